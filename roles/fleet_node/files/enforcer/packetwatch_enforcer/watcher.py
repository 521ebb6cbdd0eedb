# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follows what hosts report and what people have decided, and lets the rules look at it."""

from __future__ import annotations

import collections
import time
import typing as t

from packetwatch_agent.loop import Loop
from packetwatch_agent.metrics import COUNTER, GAUGE, Rows, Values, by_label
from packetwatch_agent.output import Output, Trouble
from packetwatch_agent.part import Part
from packetwatch_core._network.endpoints import is_label
from packetwatch_core._node.keys import HOSTS, LIFTS, LISTS
from packetwatch_fleet.driver import Driver
from packetwatch_fleet.observed import read_addresses, read_bans, read_seen
from packetwatch_fleet.pages import Refused
from packetwatch_fleet.sources import Sources
from packetwatch_fleet.store.interface import Change, Gone, Lost, Put, Relisted, Snapshot, Store

from .announce import Announcer
from .judge import Judge, sources_of
from .roster import Host, Roster
from .rules.panel import Panel, Result

TICK = 5.0
# Seconds between two readings of the store's stream: a thousand hosts report 750 times a second.
_PAUSE = 0.05
# Reports of all hosts that the store should get in a second.
REPORTS = 750
# A report that is older says nothing about the present. Hosts write at most so often.
MAX_AGE, _MAX_BATCH = 86400.0, 60.0
# Above this, clocks of nodes differ.
_MAX_SKEW = 5.0
_SKEWS = 128
# Detection is blind if this part of what hosts have seen in a minute is lost, and at least so many.
_BLIND_PART, _BLIND_FEW, _TICKS = 0.1, 100, 12


class Watcher(Part):
    """decided: called after decisions."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_enforcer_connected": (GAUGE, "Whether the store is followed."),
        "packetwatch_enforcer_hosts": (GAUGE, "Hosts that have reported."),
        "packetwatch_enforcer_reports_total": (COUNTER, "Reports of hosts, by kind."),
        "packetwatch_enforcer_pairs_total": (COUNTER, "Pairs of a source and a closed port."),
        "packetwatch_enforcer_lost_total": (
            COUNTER,
            "Pairs that hosts have lost, and reports that were overwritten before they were read.",
        ),
        "packetwatch_enforcer_blind": (
            GAUGE,
            "Whether so much is lost that scans of the fleet may be missed.",
        ),
        "packetwatch_enforcer_values_refused_total": (
            COUNTER,
            "Reports and rows that are not understood, by reason.",
        ),
        "packetwatch_enforcer_clock_offset_seconds": (
            GAUGE,
            "How far the clock of this node is ahead of the hosts' reports.",
        ),
    }

    def __init__(
        self,
        store: Store,
        judge: Judge,
        panel: Panel,
        roster: Roster,
        sources: Sources,
        announcer: Announcer,
        output: Output,
    ) -> None:
        self.decided: t.Callable[[], None] = lambda: None
        self.is_connected = False
        self.lost = 0
        self.is_blind = False
        self.refused: collections.Counter[str] = collections.Counter()
        self._store = store
        self._judge = judge
        self._panel = panel
        self._roster = roster
        self._sources = sources
        self._announcer = announcer
        self._output = output
        self._follower = store.follow(HOSTS, judge.ledger.folder, LIFTS, LISTS)
        self._driver: Driver | None = None
        self._place = ("", 0)
        """The cluster, and the newest revision of it that was seen."""
        self._ticked = time.monotonic()
        self._reports: collections.Counter[str] = collections.Counter()
        self._pairs = 0
        self._sums: collections.deque[tuple[int, int]] = collections.deque([(0, 0)], _TICKS + 1)
        self._skews: collections.deque[float] = collections.deque(maxlen=_SKEWS)
        self._trouble = Trouble(output)
        self._skew = Trouble(output)

    def start(self, loop: Loop) -> None:
        self._driver = Driver(loop, self._follower, self._step, _PAUSE)
        loop.after(TICK, self._tick)

    def stop(self) -> None:
        if self._driver:
            self._driver.close()

    # What other parts ask

    def now(self) -> float | None:
        """The store's time; None: not known yet."""
        offset = self._store.offset()
        return None if offset is None else time.monotonic() + offset

    @property
    def revision(self) -> int:
        """The newest revision of the store that was seen."""
        return self._follower.revision

    @property
    def batch(self) -> float:
        """Seconds between two reports of a host of what it has seen: the store takes so many."""
        return round(min(max(1.0, len(self._roster) / REPORTS), _MAX_BATCH), 1)

    def values(self) -> Values:
        return {
            "packetwatch_enforcer_connected": [({}, int(self.is_connected))],
            "packetwatch_enforcer_hosts": [({}, len(self._roster))],
            "packetwatch_enforcer_reports_total": by_label("kind", self._reports),
            "packetwatch_enforcer_pairs_total": [({}, self._pairs)],
            "packetwatch_enforcer_lost_total": [({}, self.lost)],
            "packetwatch_enforcer_blind": [({}, int(self.is_blind))],
            "packetwatch_enforcer_values_refused_total": by_label("reason", self.refused),
            "packetwatch_enforcer_clock_offset_seconds": [({}, self._offset())],
        }

    # Changes

    def _step(self) -> None:
        changes = self._follower.step()
        # The first answer brings the store's time with it.
        now = self.now()
        results: list[Result] = []
        for change in changes:
            if isinstance(change, Lost):
                self._lose(change)
            elif now is not None:
                results += self._take(change, now)
        # Also what changes elsewhere tells how old a store is.
        self._place = self._place[0], max(self._place[1], self._follower.revision)
        if now is not None and results:
            self._decide(results, now)

    def _take(self, change: Change, now: float) -> list[Result]:
        if isinstance(change, Put):
            return self._put(change.key, change.value, now)
        if isinstance(change, Gone):
            return self._drop(change.key, now)
        return self._relist(change.snapshot, now) if isinstance(change, Relisted) else []

    def _put(self, key: str, value: bytes, now: float) -> list[Result]:
        try:
            if key.startswith(HOSTS):
                return self._report(key, value, now)
        except Refused as refused:
            self.refused[refused.reason] += 1
            return []
        if key.startswith(LISTS):
            self._judge.never.put(key, value)
        else:
            self._forget(self._judge.put(key, value))
        return []

    def _drop(self, key: str, now: float) -> list[Result]:
        self._judge.never.drop(key)
        self._judge.drop(key)
        name, dummy, kind = key.removeprefix(HOSTS).partition("/")
        if not key.startswith(HOSTS) or not (host := self._roster.host(name)):
            return []
        if kind == "status":
            self._roster.leave(host)
        return self._panel.bans(host.number, [], now) if kind == "bans" else []

    def _forget(self, lifted: t.Iterable[str]) -> None:
        for source in sources_of(lifted):
            self._panel.forget(source)

    def _lose(self, lost: Lost) -> None:
        self.is_connected = False
        self._trouble.log(f"the store is not followed, so nothing is decided: {lost.reason}")

    def _relist(self, snapshot: Snapshot, now: float) -> list[Result]:
        """Begin with what is true now. What was overwritten meanwhile is lost, and counted."""
        items = snapshot.items
        place = snapshot.cluster, snapshot.revision
        is_same = self._place[0] in ("", place[0]) and self._place[1] <= place[1]
        self._place = place
        pages = {
            key: value
            for key, (dummy, value) in items.items()
            if key.startswith((LIFTS, self._judge.ledger.folder))
        }
        self._forget(self._judge.relist(pages, now, is_same))
        for key in self._judge.never.keys() - items.keys():
            self._judge.never.drop(key)
        results: list[Result] = []
        # Addresses first: nobody is decided on before it is known who must not be banned.
        for kind in ("status", "bans", "seen", ""):
            for key, (dummy, value) in items.items():
                is_report = key.startswith(HOSTS)
                if key.startswith(LISTS) and kind == "status":
                    self._judge.never.put(key, value)
                elif is_report and kind and key.endswith(f"/{kind}"):
                    results += self._put(key, value, now)
        for host in self._roster:
            for kind in ("status", "bans"):
                key = f"{HOSTS}{host.name}/{kind}"
                if key not in items:
                    results += self._drop(key, now)
        self.is_connected = True
        self._trouble.log("")
        self._output.say(
            "info", f"following the store at {self._follower.endpoint}, {len(self._roster)} hosts"
        )
        self.decided()
        return results

    # Reports of hosts

    def _report(self, key: str, value: bytes, now: float) -> list[Result]:
        name, dummy, kind = key.removeprefix(HOSTS).partition("/")
        if not is_label(name):
            raise Refused("key")
        host = self._roster.host(name)
        if host is None:
            raise Refused("full")
        if kind == "seen":
            return self._seen(host, value, now)
        if kind == "bans":
            bans, wrong = read_bans(value, self._sources)
            self.refused["row"] += wrong
            self._reports[kind] += 1
            return self._panel.bans(host.number, bans, now)
        if kind == "status":
            self._reports[kind] += 1
            self._judge.never.put(key, value)
            self._roster.settle(host, read_addresses(value))
        return []

    def _seen(self, host: Host, value: bytes, now: float) -> list[Result]:
        seen = read_seen(value)
        number, then, lost = host.last
        host.last = seen.number, seen.time, seen.lost
        if (seen.number, seen.time) == (number, then):
            return []
        self._reports["seen"] += 1
        if 0 < number < seen.number:
            # A report that was overwritten had about as many pairs as this one.
            missed = min(seen.number - number - 1, int(_MAX_BATCH)) * max(1, seen.size)
            self.lost += missed + max(0, seen.lost - lost)
        if seen.time < now - MAX_AGE:
            return []
        self._pairs += seen.size
        self._skews.append(now - seen.time)
        return self._panel.seen(host.number, list(seen.pairs), min(seen.time, now))

    # Decisions

    def _decide(self, results: t.Iterable[Result], now: float) -> None:
        for seat, found in results:
            record = self._judge.judge(seat.name, seat.action, found, now)
            if record:
                self._announcer.decision(record)
        self.decided()

    # Time

    def _tick(self) -> float:
        moment, now = time.monotonic(), self.now()
        passed, self._ticked = moment - self._ticked, moment
        if now is not None:
            self._judge.expire(now)
            self._decide(self._panel.tick(now, passed), now)
        self._announcer.faults(self._panel)
        if self.is_connected:
            self._announcer.unreachable(self._panel)
        self._sums.append((self._pairs, self.lost))
        pairs, lost = (last - first for last, first in zip(self._sums[-1], self._sums[0]))
        self.is_blind = not self.is_connected or (
            lost > _BLIND_FEW and lost > _BLIND_PART * (pairs + lost)
        )
        self._announcer.blind(self.is_blind, lost, pairs)
        offset = self._offset()
        self._skew.log(
            f"the clock of this node is {offset:+.0f} s from that of the hosts' reports: synchronise the clocks of all nodes"
            if abs(offset) > _MAX_SKEW
            else ""
        )
        return TICK

    def _offset(self) -> float:
        """The median, which a few hosts cannot change."""
        found = sorted(self._skews)
        return found[len(found) // 2] if found else 0.0
