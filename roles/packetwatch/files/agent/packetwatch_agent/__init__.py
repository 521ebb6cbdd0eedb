# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent of a host: logs events, exports metrics, keeps bans and protected addresses current."""

from __future__ import annotations

__version__ = "1.0.0-rc.1"
