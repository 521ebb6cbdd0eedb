# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds rules by name: the collection's own, files in the folder of rules, and entry points.

A rule of your own is a function ``make_rule(thresholds, hosts)`` that returns a `Rule`.
"""

from __future__ import annotations

import os
import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import is_label

from .crowd import Crowd
from .interface import Make
from .quorum import Quorum
from .scans import Slow, Sweep

GROUP = "packetwatch.rules"
FOLDER = "/etc/packetwatch-enforcer/rules.d"

_OWN: dict[str, Make] = {"quorum": Quorum, "sweep": Sweep, "slow": Slow, "crowd": Crowd}


def find_rule(name: str, folder: str = FOLDER) -> Make:
    """What makes the rule of this name; raises `InvalidInput`, or whatever the rule's own file raises."""
    found = _OWN.get(name) or _find(name, folder)
    if found is None:
        raise InvalidInput(
            f"there is no rule {name!r}: write {', '.join(_OWN)}, the name of a file in {folder}, or the name of an entry "
            f"point of the group {GROUP}"
        )
    return found


def _find(name: str, folder: str) -> Make | None:
    if not is_label(name):
        return None
    path = os.path.join(folder, f"{name}.py")
    if os.path.exists(path):
        import importlib.util

        spec = importlib.util.spec_from_file_location(f"packetwatch_rule_{name}", path)
        if spec is None or spec.loader is None:
            return None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made: Make = module.make_rule
        return made
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=name):
        loaded: t.Any = point.load()
        return t.cast("Make", loaded)
    return None
