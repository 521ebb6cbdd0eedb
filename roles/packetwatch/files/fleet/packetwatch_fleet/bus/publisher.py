# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follows the agent's log, and publishes its lines in batches. The agent limits what waits for a slow follower."""

from __future__ import annotations

import itertools
import time
import typing as t

from packetwatch_agent.loop import Loop
from packetwatch_agent.metrics import COUNTER, GAUGE, Rows, Values, by_label
from packetwatch_agent.output import Output, Trouble
from packetwatch_agent.part import Part

from ..driver import Driver
from ..host.status import resident
from ..host.talk import AgentLost, Talk, follow
from ..store.waits import Task, Wait, Waiting
from .interface import Bus, takes_messages

# A batch is full with so many lines or bytes, and goes out after so many seconds.
MAX_LINES, _MAX_BYTES, _PAUSE = 100, 65536, 0.1
# What no server takes in one piece. The line of a scan has all its ports.
_MAX_LINE = 1 << 18
_TURN = 256
_REPORT = 10.0
# Seconds at the end for what still waits.
_LAST = 2.0
_ITEM, _NOTHING = b'{"item":', b'{"item":null}'
_ACTION = b'"event.action":"'


class Publisher(Part):
    """host: the first word of topics; the second one is the action."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_fleet_bus_connected": (GAUGE, "Whether the bus takes messages."),
        "packetwatch_fleet_bus_connects_total": (COUNTER, "Connections made to the bus."),
        "packetwatch_fleet_bus_agent_connected": (GAUGE, "Whether the agent's log is followed."),
        "packetwatch_fleet_bus_made_total": (COUNTER, "Events that the agent has logged."),
        "packetwatch_fleet_bus_events_total": (
            COUNTER,
            "Events that the bus has confirmed, and that were dropped.",
        ),
        "packetwatch_fleet_bus_waiting": (GAUGE, "Events that wait for the bus."),
        "packetwatch_fleet_bus_resident_memory_bytes": (GAUGE, "Memory of the process."),
    }

    def __init__(
        self, bus: Bus, host: str, actions: t.Sequence[str], path: str, output: Output
    ) -> None:
        self._bus = bus
        self._host = host
        self._actions = list(actions)
        self._output = output
        self._task = Task(follow(path, self._follow, self._lose))
        self._is_following = False
        self._batches: dict[str, list[bytes]] = {}
        self._sizes: dict[str, int] = {}
        self._is_due = False
        self._made = self._missed = 0
        self._reported = 0
        self._agent = Trouble(output)
        self._server = Trouble(output)
        self._loop: Loop | None = None
        self._drivers: list[Driver] = []

    def start(self, loop: Loop) -> None:
        self._loop = loop
        self._drivers = [
            Driver(loop, self._task, self._task.step),
            Driver(loop, self._bus, self._step),
        ]
        loop.after(_REPORT, self._report)

    def stop(self) -> None:
        self._flush()
        end = time.monotonic() + _LAST
        while self._bus.counts().waiting and self._bus.is_connected and time.monotonic() < end:
            self._bus.step()
            time.sleep(0.005)
        counts = self._counts()
        lost = counts["dropped"] + self._bus.counts().waiting
        self._output.say(
            "warn" if lost else "info",
            f"of {self._made} events, the bus has confirmed {counts['confirmed']}, and {lost} were dropped",
        )
        for driver in self._drivers:
            driver.close()

    def values(self) -> Values:
        batched = sum(len(lines) for lines in self._batches.values())
        return {
            "packetwatch_fleet_bus_connected": [({}, int(takes_messages(self._bus)))],
            "packetwatch_fleet_bus_connects_total": [({}, self._bus.connects)],
            "packetwatch_fleet_bus_agent_connected": [({}, int(self._is_following))],
            "packetwatch_fleet_bus_made_total": [({}, self._made)],
            "packetwatch_fleet_bus_events_total": by_label("result", self._counts()),
            "packetwatch_fleet_bus_waiting": [({}, batched + self._bus.counts().waiting)],
            "packetwatch_fleet_bus_resident_memory_bytes": [({}, resident())],
        }

    def _counts(self) -> dict[str, int]:
        found = self._bus.counts()
        return {"confirmed": found.confirmed, "dropped": found.dropped + self._missed}

    # The agent's log

    def _lose(self, error: AgentLost) -> None:
        self._is_following = False
        self._agent.log(f"the agent's events are not published: {error}")

    def _follow(self, talk: Talk) -> Waiting[None]:
        """Return never, but raise."""
        yield from talk.send("watch", actions=self._actions)
        for number in itertools.count(1):
            line = yield from talk.text()
            if not number % _TURN:
                # Lines may come without end; the bus has its turn between.
                yield Wait(None, False, 0.0)
            if line == _NOTHING:
                self._is_following = True
                self._agent.log("")
            elif line.startswith(_ITEM):
                self._take(line[len(_ITEM) : -1])
            else:
                self._miss(talk.checked(line))

    def _miss(self, answer: t.Mapping[str, t.Any]) -> None:
        """The agent had no room for so many lines: this process was too slow."""
        missed = answer.get("missed")
        if isinstance(missed, int) and missed > 0:
            self._made += missed
            self._missed += missed

    def _take(self, line: bytes) -> None:
        begin = line.find(_ACTION) + len(_ACTION)
        action = line[begin : line.find(b'"', begin)].decode(errors="replace")
        self._made += 1
        if len(line) > _MAX_LINE:
            self._missed += 1
            return
        batch = self._batches.setdefault(action, [])
        batch.append(line)
        size = self._sizes[action] = self._sizes.get(action, 0) + len(line) + 1
        if len(batch) >= MAX_LINES or size >= _MAX_BYTES:
            self._send(action)
        elif not self._is_due and self._loop:
            self._is_due = True
            self._loop.after(_PAUSE, self._flush)

    def _flush(self) -> None:
        self._is_due = False
        for action in list(self._batches):
            self._send(action)

    def _send(self, action: str) -> None:
        lines = self._batches.pop(action)
        self._sizes.pop(action)
        self._bus.publish(f"{self._host}.{action}", b"\n".join(lines) + b"\n", len(lines))
        if self._drivers:
            self._drivers[1].arm()

    # The bus

    def _step(self) -> None:
        self._bus.step()
        problem = self._bus.problem
        self._server.log(f"events are not published: {problem}" * bool(problem))

    def _report(self) -> float:
        dropped = self._counts()["dropped"]
        if dropped > self._reported:
            self._output.say(
                "warn",
                f"{dropped - self._reported} events were not published, {dropped} since the start: "
                f"{self._bus.problem or 'there were too many of them'}",
            )
            self._reported = dropped
        return _REPORT
