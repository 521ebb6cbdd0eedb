# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds rules by name: the collection's own, files in the folder of rules, and entry points.

A rule of your own is a function ``make_rule(thresholds, hosts)`` that returns a `Rule`.
"""

from __future__ import annotations

from packetwatch_core._base.errors import InvalidInput
from packetwatch_fleet.plugins import find

from .crowd import Crowd
from .interface import Make
from .quorum import Quorum
from .scans import Slow, Sweep

GROUP = "packetwatch.rules"
FOLDER = "/etc/packetwatch-enforcer/rules.d"

_OWN: dict[str, Make] = {"quorum": Quorum, "sweep": Sweep, "slow": Slow, "crowd": Crowd}


def find_rule(name: str, folder: str = FOLDER) -> Make:
    """What makes the rule of this name; raises `InvalidInput`, or whatever the rule's own file raises."""
    found = _OWN.get(name) or find(name, GROUP, "make_rule", folder)
    if found is None:
        raise InvalidInput(
            f"there is no rule {name!r}: write {', '.join(_OWN)}, the name of a file in {folder}, or the name of an entry "
            f"point of the group {GROUP}"
        )
    return found
