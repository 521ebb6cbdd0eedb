# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's own process as metrics."""

from __future__ import annotations

import os
import time
import typing as t

from packetwatch_core._kernel import abi

from . import __version__
from .metrics import COUNTER, GAUGE, Rows, Values
from .part import Part


class Process(Part):
    """Which agent this is, and what it costs. `started`: when, in seconds since 1970."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_build_info": (GAUGE, "Version of the agent and number of its ABI, always 1."),
        "packetwatch_agent_start_time_seconds": (GAUGE, "When the agent started."),
        "packetwatch_agent_resident_memory_bytes": (GAUGE, "Memory of the agent's process."),
        "packetwatch_agent_cpu_seconds_total": (COUNTER, "CPU time of the agent's process."),
    }

    def __init__(self) -> None:
        self.started = time.time()

    def values(self) -> Values:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        memory = pages * os.sysconf("SC_PAGESIZE")
        return {
            "packetwatch_build_info": [({"version": __version__, "abi": str(abi.ABI)}, 1)],
            "packetwatch_agent_start_time_seconds": [({}, self.started)],
            "packetwatch_agent_resident_memory_bytes": [({}, memory)],
            "packetwatch_agent_cpu_seconds_total": [({}, time.process_time())],
        }
