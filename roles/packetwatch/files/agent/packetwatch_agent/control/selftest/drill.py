# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fire drill: an imagined scan goes through detection, ban, log and lift on the live host.

The drill runs the very program of the interface, on its real maps, by BPF_PROG_TEST_RUN, and loads
nothing. It leaves: counters, the position in the ring of scan bans, the flag that there may
be scan bans, and lines in the log.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from packetwatch_core._bans.bans import MAPS
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._kernel import abi

from .. import wire
from ..client import Connection
from . import frames
from .ground import SECOND, Ground
from .red import Red
from .scan import ATTEMPTS, Scan, choose

if t.TYPE_CHECKING:
    from packetwatch_core._host.host import Host

STAGES = ("prepare", "detect", "ban", "enforce", "log", "lift", "restore")
_PASS, _DROP = 2, 1
_VERDICTS = {_PASS: "passed", _DROP: "dropped"}
# Seconds to wait for the agent's line.
_PATIENCE = 10.0

Agent = t.Callable[[], Connection]


class Stage(t.NamedTuple):
    """One step of the drill."""

    name: str
    ok: bool
    text: str


class Drill:
    """One run. `agent` opens a connection to the agent's socket, or raises `ControlError`."""

    def __init__(
        self,
        host: Host,
        agent: Agent,
        interface: str | None = None,
        family: int = 4,
        clock: t.Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._host = host
        self._agent = agent
        self._wanted = interface
        self._family = family
        self._now = clock
        self._ground: Ground | None = None
        self._scan: Scan | None = None
        self.stages: list[Stage] = []

    @property
    def passed(self) -> bool:
        return bool(self.stages) and all(stage.ok for stage in self.stages)

    def run(self) -> wire.Result:
        """Run all stages that can run, and remove afterwards what they made, in any case."""
        with contextlib.ExitStack() as stack:
            self._take("prepare", lambda: self._prepare(stack))
            if self._ground and self._scan:
                exercise = Exercise(self._ground, self._scan)
                try:
                    self._exercise(exercise, stack)
                finally:
                    self._take("restore", exercise.restore)
        return {
            "passed": self.passed,
            "interface": self._ground.interface.name if self._ground else "",
            "source": self._scan.text if self._scan else "",
            "packets": self._ground.packets if self._ground else 0,
            "stages": [stage._asdict() for stage in self.stages],
        }

    def _take(self, name: str, stage: t.Callable[[], str]) -> bool:
        """Run a stage and note how it went; return whether it is green."""
        try:
            self.stages.append(Stage(name, True, stage()))
        except (Red, PacketwatchError, OSError) as error:
            self.stages.append(Stage(name, False, str(error)))
        return self.stages[-1].ok

    def _prepare(self, stack: contextlib.ExitStack) -> str:
        """Choose interface, source, target and ports."""
        ground = self._ground = Ground(self._host, self._wanted, stack)
        scan = self._scan = choose(ground, self._family, self._now())
        closed = "closed " if ground.interface.counts == "closed" else ""
        monitor = ", which only monitors" if ground.monitors else ""
        return (
            f"{scan.text} will try {len(scan.ports)} {closed}ports on "
            f"{ground.interface.name}{monitor}"
        )

    def _exercise(self, exercise: Exercise, stack: contextlib.ExitStack) -> None:
        """The stages between preparing and restoring."""
        log = Log(self._agent, exercise.scan.text, stack)
        if self._take("detect", exercise.detect) and self._take("ban", exercise.ban):
            self._take("enforce", exercise.enforce)
            self._take("log", log.check)
            self._take("lift", exercise.lift)


class Exercise:
    """The stages on the program and its maps; each returns what it saw, or raises `Red`."""

    def __init__(self, ground: Ground, scan: Scan) -> None:
        self._ground = ground
        self.scan = scan

    def detect(self) -> str:
        """All ports but the last pass; the packet to the last crosses the threshold."""
        *ports, last = self.scan.ports
        count = len(self.scan.ports)
        for number, port in enumerate(ports, 1):
            if self._send(port) != _PASS:
                raise Red(
                    f"packet {number} of the scan was dropped, but only packet {count} reaches the threshold"
                )
        verdict = self._send(last)
        if self._ground.monitors:
            self._expect_pass(verdict, "a packet was dropped although the policy is monitor")
            if self._ground.maps["tracks2"].lookup(self.scan.source.key) is not None:
                raise Red(f"{count} closed ports were tried, but no scan was detected")
            return f"packet {count} was detected as a scan, and passed: monitor"
        if verdict != _DROP:
            raise Red(
                f"{count} closed ports were tried, but no scan was detected: no packet was dropped"
            )
        return f"the packet to port {count} was dropped"

    def ban(self) -> str:
        ban = self._ground.find_ban(self.scan.source)
        if self._ground.monitors:
            if ban:
                raise Red(f"{ban.source.text} is banned although the policy is monitor")
            seconds = self._ground.policy["ban_ns"] / SECOND
            return f"would be banned for {seconds:g} s: monitor"
        if not ban:
            raise Red(f"the scan was detected, but the maps contain no ban of {self.scan.text}")
        length = (ban.expires - ban.since) / SECOND
        short = ", short: above the rate of bans" if ban.flags & abi.BAN_OVERFLOW else ""
        return f"{ban.source.text} is banned for {length:g} s{short}, {ban.ports} ports counted"

    def enforce(self) -> str:
        """The source's next connection, and a packet that begins none."""
        port = self.scan.ports[0]
        begins = self._send(port)
        if self._ground.monitors:
            self._expect_pass(begins, "a packet was dropped although the policy is monitor")
            return "another connection passes: monitor"
        if begins != _DROP:
            raise Red(f"{self.scan.text} is banned, but its next connection passes")
        other = self._send(port, frames.ACK)
        scope = self._ground.interface.scope
        wanted = _DROP if scope == "all" else _PASS
        if other != wanted:
            raise Red(
                f"a packet that begins no connection {_VERDICTS.get(other, other)}; with "
                f"ban_scope: {scope} it must be {_VERDICTS[wanted]}"
            )
        return f"its next connection is dropped, what begins none is {_VERDICTS[wanted]}"

    def lift(self) -> str:
        lifted = self._ground.bans.lift(self.scan.text)
        if self._ground.monitors:
            return "nothing to lift: monitor"
        if not lifted:
            raise Red(f"the ban of {self.scan.text} had disappeared before it was lifted")
        if len(self.scan.ports) == 1:
            return "the ban is lifted; with scan_ports: 1 the next connection is a scan again"
        verdict = self._send(self.scan.ports[0])
        self._expect_pass(verdict, "a connection is dropped although the ban is lifted")
        return "the ban is lifted, and its connections pass again"

    def restore(self) -> str:
        """Remove what the drill has made, and compare the rest with what was before."""
        ground, source = self._ground, self.scan.source
        ground.bans.lift(self.scan.text)
        ground.maps["rates"].delete(self.scan.rate_key)
        # Other bans come more slowly than a drill ends, so its own is among the last.
        ground.vacate_ring(source, ATTEMPTS)
        left = [table for table in MAPS if ground.bans.find(source, table)]
        if left or ground.is_counted(source):
            raise Red(
                f"entries of {self.scan.text} could not be removed from {', '.join(left) or 'tracks'}"
            )
        changed = ground.changes()
        if changed:
            raise Red(f"changed meanwhile, perhaps by another process: {', '.join(changed)}")
        return "program, lists, links and bans are as before; counters have moved on"

    def _send(self, port: int, flags: int = frames.SYN) -> int:
        return self._ground.send(self.scan.packet(port, flags))

    @staticmethod
    def _expect_pass(verdict: int, problem: str) -> None:
        if verdict != _PASS:
            raise Red(problem)


class Log:
    """Follows the agent's lines about a source from the beginning on."""

    def __init__(self, agent: Agent, source: str, stack: contextlib.ExitStack) -> None:
        self._source = source
        self._watch: Connection | wire.ControlError
        try:
            self._watch = stack.enter_context(agent())
            self._watch.wait(_PATIENCE)
            self._watch.send("watch", actions=["ban", "scan"], sources=[source])
            answer = self._watch.receive()
            if "item" not in answer:
                self._watch = wire.error_of(answer)
        except TimeoutError:
            self._watch = wire.ControlError("the agent does not answer")
        except wire.ControlError as error:
            self._watch = error

    def check(self) -> str:
        """Wait for the line."""
        if isinstance(self._watch, wire.ControlError):
            raise Red(f"the agent does not log: {self._watch}")
        deadline = time.monotonic() + _PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            self._watch.wait(left)
            try:
                line = self._watch.receive().get("item")
            except TimeoutError:
                break
            if isinstance(line, dict) and line.get("source.ip") == self._source:
                return f"the agent has logged it: event.action {line.get('event.action')}"
        raise Red(
            f"the agent has logged nothing of it within {_PATIENCE:g} s: it is behind, or a rate "
            "limit has suppressed the event (packetwatch_events_suppressed_total)"
        )
