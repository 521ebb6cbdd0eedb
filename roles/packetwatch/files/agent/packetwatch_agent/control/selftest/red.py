# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a stage of the drill fails."""

from __future__ import annotations


class Red(Exception):
    """A stage has failed; stages that build on it are not run."""
