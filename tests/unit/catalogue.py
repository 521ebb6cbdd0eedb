# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All metrics that the parts of the agent, and those of a fleet's processes, declare."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import packetwatch_agent
import packetwatch_fleet.host
from packetwatch_agent.metrics import Rows
from packetwatch_agent.part import Part


def metrics_of(package: ModuleType) -> Rows:
    """The metrics that all modules of a package declare; other packages have parts of their own."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    found: Rows = {}
    for part in Part.__subclasses__():
        if part.__module__.startswith(f"{package.__name__}."):
            found |= part.METRICS
    return found


CATALOGUE: Rows = metrics_of(packetwatch_agent)
FLEET_CATALOGUE: Rows = metrics_of(packetwatch_fleet.host)
