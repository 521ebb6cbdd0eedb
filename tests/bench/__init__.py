# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures the datapath and the tools that a user could choose instead: `make bench`."""

from __future__ import annotations

import conftest  # noqa: F401  makes the host library importable under its names
