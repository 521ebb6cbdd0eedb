# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follows what the agent sees and bans, and reports it to the store, at most so often."""

from __future__ import annotations

import binascii
import collections
import math
import time
import typing as t

from packetwatch_agent import __version__
from packetwatch_agent.loop import Loop
from packetwatch_agent.metrics import COUNTER, Rows, Values, by_label
from packetwatch_agent.output import Output, Trouble
from packetwatch_agent.part import Part
from packetwatch_core._base.address import format_prefix, from_mapped
from packetwatch_core._base.errors import Unreadable
from packetwatch_core._base.number import is_a
from packetwatch_core._kernel import netlink

from ..driver import Driver
from ..keys import report_of
from ..reports import Reports, status
from ..sources import Sources
from ..store.interface import Store
from ..store.waits import Task, Waiting
from .applier import Applier
from .picture import Picture
from .talk import AgentLost, Talk, follow

# Seconds between two reports of the same kind; that of what was seen depends on the number of hosts.
BANS, STATUS = 0.5, 30.0
# From the first probe to the report of it: the others of its scan come with it, and a ban that follows goes first.
GATHER = 0.05
_RETRY = 1.0
_MAX_ADDRESSES = 64
# RT_SCOPE_UNIVERSE: neither of the loopback nor of a link alone.
_UNIVERSE = 0


class Witness(Part):
    """Reports as `host`. takes: what the host's settings let the fleet do."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_fleet_reports_total": (COUNTER, "Reports handed to the store, by kind."),
        "packetwatch_fleet_observations_lost_total": (
            COUNTER,
            "Observations of the agent that no report has.",
        ),
    }

    def __init__(
        self,
        store: Store,
        host: str,
        path: str,
        picture: Picture,
        applier: Applier,
        sources: Sources,
        takes: t.Mapping[str, object],
        output: Output,
    ) -> None:
        self.problem = ""
        self._takes = takes
        self._host = host
        self._path = path
        self._picture = picture
        self._applier = applier
        self._reports = Reports(sources)
        self._writer = store.writer()
        self._task = Task(follow(path, self._follow, self._lose))
        self._drivers: list[Driver] = []
        self._loop: Loop | None = None
        self._sent: collections.Counter[str] = collections.Counter()
        self._last: dict[str, float] = {}
        self._waiting: set[str] = set()
        """Kinds of reports that wait for their turn."""
        self._trouble = Trouble(output)
        self._denied = Trouble(output)

    def start(self, loop: Loop) -> None:
        self._loop = loop
        self._drivers = [
            Driver(loop, self._task, self._task.step),
            Driver(loop, self._writer, self._write),
        ]
        loop.after(1.0, self._report_status)

    def stop(self) -> None:
        for driver in self._drivers:
            driver.close()

    def summary(self) -> dict[str, t.Any]:
        """For packetwatchctl."""
        return {
            "host": self._host,
            "reports": dict(self._sent),
            "lost": self._reports.lost,
            "problem": self._writer.problem or self.problem,
        }

    def values(self) -> Values:
        return {
            "packetwatch_fleet_reports_total": by_label("kind", self._sent),
            "packetwatch_fleet_observations_lost_total": [({}, self._reports.lost)],
        }

    # The agent's stream

    def _lose(self, error: AgentLost) -> None:
        self.problem = str(error)
        self._trouble.log(f"what the host sees is not reported: {error}")

    def _follow(self, talk: Talk) -> Waiting[None]:
        """Return never, but raise."""
        yield from self._ask_for_bans()
        yield from talk.send("fleet_watch")
        while True:
            answer = yield from talk.line()
            self.problem = ""
            self._trouble.log("")
            missed = answer.get("missed")
            if is_a(missed, int) and missed > 0:
                self._reports.miss(missed)
                yield from self._ask_for_bans()
                continue
            changed = self._reports.take(answer.get("item"), time.monotonic())
            if changed:
                self._report_soon(changed)

    def _ask_for_bans(self) -> Waiting[None]:
        """Begin with the host's bans in force: the stream has only changes."""
        now = time.monotonic()
        self._reports.clear_bans()

        def take(item: t.Any) -> None:
            # A ban without end is none of a scan.
            if isinstance(item, list) and len(item) >= 3 and item[1] is not None:
                self._reports.take({"ban": [item[0], [], item[1], item[2]]}, now)

        talk = Talk(self._path)
        try:
            yield from talk.ask(take, "fleet_bans", of="host")
        finally:
            talk.close()
        self._report_soon("bans")

    # Reports

    def _report_soon(self, kind: str) -> None:
        """Report at once after a quiet time, else when the interval is over."""
        if kind in self._waiting or self._loop is None:
            return
        self._waiting.add(kind)
        pause, interval = (0.0, BANS) if kind == "bans" else (GATHER, self._picture.interval())
        due = max(time.monotonic() + pause, self._last.get(kind, -math.inf) + interval)

        def report() -> float | None:
            return self._report(kind)

        self._loop.after(max(0.0, due - time.monotonic()), report)

    def _report(self, kind: str) -> float | None:
        now, then = time.monotonic(), self._picture.now()
        if then is None:
            # The store has not answered yet.
            return _RETRY
        self._waiting.discard(kind)
        self._last[kind] = now
        make = self._reports.bans if kind == "bans" else self._reports.seen
        self._put("bans" if kind == "bans" else "seen", make(now, then - now))
        return None

    def _report_status(self) -> float:
        then = self._picture.now()
        if then is None:
            return _RETRY
        value = status(
            then,
            version=__version__,
            applied=self._picture.place.revision,
            bans=self._applier.in_kernel,
            missing=self._applier.missing,
            refused=dict(self._applier.refused),
            addresses=_addresses(),
            digest=self._digest(),
            takes=self._takes,
        )
        self._put("status", value)
        return STATUS

    def _digest(self) -> str:
        """A short text that is the same on all hosts that know the same bans. It proves nothing."""
        found = 0
        for source in sorted(source for source, dummy in self._picture.bans()):
            if ban := self._picture.ban(source):
                line = f"{source} {ban.until:.0f} {ban.evidence}\n"
                found = binascii.crc32(line.encode(), found)
        return f"{found:08x}"

    def _put(self, kind: t.Literal["seen", "bans", "status"], value: bytes) -> None:
        self._sent[kind] += 1
        self._writer.put(report_of(self._host, kind), value)
        self._drivers[1].arm()

    def _write(self) -> None:
        self._writer.step()
        self._denied.log(
            f"reports do not reach the store: {self._writer.problem}" * bool(self._writer.problem)
        )


def _addresses() -> list[str]:
    """The host's addresses that others may see, which no enforcer of the fleet bans."""
    try:
        found = netlink.addresses()
    except (*netlink.BROKEN, Unreadable):
        return []
    raw = [one.address for one in found if one.scope == _UNIVERSE][:_MAX_ADDRESSES]
    mapped = [one if len(one) == 16 else bytes(10) + b"\xff\xff" + one for one in raw]
    return sorted(format_prefix(from_mapped(one, 128)) for one in mapped)
