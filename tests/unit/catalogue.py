# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All metrics that the agent's parts declare."""

from __future__ import annotations

import importlib
import pkgutil

import packetwatch_agent
from packetwatch_agent.metrics import Rows
from packetwatch_agent.part import Part

for module in pkgutil.iter_modules(packetwatch_agent.__path__, "packetwatch_agent."):
    importlib.import_module(module.name)

CATALOGUE: Rows = {}
for part in Part.__subclasses__():
    # Other processes have parts of their own, which a test may have imported before.
    if part.__module__.startswith(f"{packetwatch_agent.__name__}."):
        CATALOGUE |= part.METRICS
