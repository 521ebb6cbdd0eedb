# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs how many events the limits have suppressed, and how many were lost."""

from __future__ import annotations

import typing as t

from packetwatch_core._health.problems import Facts
from packetwatch_core._kernel.counters import read_counters

from .output import Output
from .part import Part
from .quota import Quota

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map

    from .loop import Loop

_PERIOD = 60.0


class _Counts(t.NamedTuple):
    suppressed: int
    lost: int
    probes_lost: int


class Losses(Part):
    """Reads the program's counters and the agent's own once a minute, and logs what has grown."""

    def __init__(self, counters: Map, quota: Quota, output: Output) -> None:
        self._counters = counters
        self._quota = quota
        self._output = output
        self._logged = self._seen = self._read()

    def start(self, loop: Loop) -> None:
        loop.after(_PERIOD, self.tick)

    def stop(self) -> None:
        self.tick()

    def facts(self, known: Facts) -> Facts:
        return known._replace(are_events_lost=self.grown())

    def tick(self) -> float:
        """Log what has grown since the last time."""
        now = self._read()
        grown = _Counts(*(new - old for new, old in zip(now, self._logged)))
        self._logged = now
        if any(grown):
            self._output.say(
                "warn" if grown.lost else "info",
                "events were held back by the limits, or lost",
                packetwatch__suppressed=grown.suppressed,
                packetwatch__lost=grown.lost,
                packetwatch__probes_lost=grown.probes_lost,
            )
        return _PERIOD

    def grown(self) -> bool:
        """Whether events were lost since the last call."""
        former, self._seen = self._seen, self._read()
        return self._seen.lost > former.lost

    def _read(self) -> _Counts:
        found = read_counters(self._counters)
        suppressed = found["events_suppressed"] + sum(self._quota.suppressed.values())
        return _Counts(suppressed, found["events_lost"], found["probes_lost"])
