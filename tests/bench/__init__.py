# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures the datapath and the tools that a user could choose instead, and fleets: `make bench`, `make bench-fleet`."""

from __future__ import annotations

import sys

import conftest  # makes the host library importable under its names

_FILES = conftest.ROOT / "roles/packetwatch/files"
sys.path[:0] = [str(_FILES / part) for part in ("agent", "fleet")]
sys.path.insert(0, str(conftest.ROOT / "roles/fleet_node/files/enforcer"))
