# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the agent, and what all of them are together: a page of metrics, commands, health."""

from __future__ import annotations

import typing as t

from .metrics import Rows, Values, render

if t.TYPE_CHECKING:
    from packetwatch_core._health.problems import Facts

    from .control.requests import Command
    from .loop import Loop


class Part:
    """One part of the agent. A part overrides what it has; assembly.py lists all parts."""

    METRICS: t.ClassVar[Rows] = {}
    """Type and help text of each metric that `values` returns."""

    def start(self, loop: Loop) -> None:
        """Begin to work: add timers and descriptors to the loop."""

    def reload(self) -> None:
        """Read again what nothing reports changes of (SIGHUP)."""

    def stop(self) -> None:
        """Write what is not yet written, and close what is open."""

    def values(self) -> Values:
        """Samples by the name of the metric."""
        return {}

    def facts(self, known: Facts) -> Facts:
        """The known facts about the host's health, with those that this part adds."""
        return known

    def commands(self) -> t.Mapping[str, Command]:
        """Commands of the control socket by name."""
        return {}


class Parts:
    """All parts, in the order in which they start."""

    def __init__(self, *parts: Part) -> None:
        self._parts = list(parts)

    def add(self, part: Part) -> None:
        self._parts.append(part)

    def start(self, loop: Loop) -> None:
        for part in self._parts:
            part.start(loop)

    def reload(self) -> None:
        for part in self._parts:
            part.reload()

    def stop(self) -> None:
        """Stop the last part first."""
        for part in reversed(self._parts):
            part.stop()

    def page(self) -> str:
        """The metrics as text."""
        rows: Rows = {}
        values: Values = {}
        for part in self._parts:
            rows |= part.METRICS
            # Two parts may have samples of one metric.
            for name, samples in part.values().items():
                values[name] = values.get(name, []) + samples
        return render(rows, values)

    def problems(self) -> list[str]:
        """What is wrong with the host, for the heartbeat."""
        # Imported here: it costs memory, and most fleet processes have no heartbeat.
        from packetwatch_core._health.problems import Facts, find

        facts = Facts()
        for part in self._parts:
            facts = part.facts(facts)
        return [problem.text for problem in find(facts)]

    def commands(self) -> dict[str, Command]:
        return {name: found for part in self._parts for name, found in part.commands().items()}
