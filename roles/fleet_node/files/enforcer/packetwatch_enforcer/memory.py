# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The memory of the process, as a metric."""

from __future__ import annotations

import os
import typing as t

from packetwatch_agent.metrics import GAUGE, Rows, Values
from packetwatch_agent.part import Part


class Memory(Part):
    """Has nothing but its metric."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_enforcer_resident_memory_bytes": (GAUGE, "Memory of the enforcer."),
    }

    def values(self) -> Values:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return {
            "packetwatch_enforcer_resident_memory_bytes": [({}, pages * os.sysconf("SC_PAGESIZE"))]
        }
