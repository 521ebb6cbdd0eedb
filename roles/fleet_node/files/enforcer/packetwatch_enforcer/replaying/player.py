# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded lines of many hosts become reports, and the enforcer's own rules and judge decide on them.

Time is that of the lines. Nothing is read from a clock, so the same recording has the same decisions.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import typing as t

from packetwatch_core._bans.recorded import Line, number_of, text_of
from packetwatch_core._base.address import Prefix, format_prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._node.never import Never
from packetwatch_core._node.rules import Declared
from packetwatch_fleet.keys import report_of
from packetwatch_fleet.observed import read_bans, read_seen
from packetwatch_fleet.reports import status
from packetwatch_fleet.sources import Sources

from ..judge import Judge, Record
from ..roster import Roster
from ..rules.panel import Panel, Result
from ..watcher import TICK
from .host import BANS, ReplayedHost

# Pages that are written at a tick: more than one second of decisions.
_PAGES = 1000
NAME = "replay"


class Player:
    """never: prefixes that nobody bans. shared: IPv6 prefixes whose sources are banned singly."""

    def __init__(
        self,
        rules: t.Mapping[str, Declared],
        folder: str,
        never: t.Sequence[Prefix] = (),
        shared: t.Sequence[Prefix] = (),
        batch: float = 1.0,
    ) -> None:
        self._sources = Sources(shared)
        self._batch = batch
        self._roster = Roster()
        self.panel = Panel(rules, self._roster, folder, is_bounded=False)
        always = [(format_prefix(prefix), "on the never-list of the command") for prefix in never]
        self.judge = Judge(NAME, Never(always), self._roster, shared)
        self.decisions: list[Record] = []
        self.actions: collections.Counter[str] = collections.Counter()
        self.first = self.last = 0.0
        self.probes_lost = self.damaged = self.nameless = self.monitored = 0
        self._hosts: dict[str, ReplayedHost] = {}
        self._due: list[tuple[float, int, str, str]] = []
        """When which host writes which report."""
        self._count = itertools.count()
        self._tick = 0.0

    @property
    def hosts(self) -> list[str]:
        return sorted(self._hosts)

    @property
    def lost(self) -> int:
        """Probes that are in no report."""
        return sum(host.reports.lost for host in self._hosts.values())

    def feed(self, line: Line) -> None:
        """Take the next line."""
        now = line.time / 1e9
        if not self.first:
            self.first, self._tick = now, now + TICK
        self.last = max(self.last, now)
        self._advance(now)
        self.actions[line.action] += 1
        self.probes_lost += number_of(line.fields, "packetwatch.probes_lost")
        reason = text_of(line.fields, "packetwatch.reason")
        self.monitored += (line.action, reason) == ("scan", "monitor")
        if not line.host:
            self.nameless += 1
            return
        try:
            self._take(line, now)
        except InvalidInput:
            self.damaged += 1

    def end(self) -> None:
        """Let the last reports be written."""
        self._advance(self.last + self._batch + TICK)

    def _take(self, line: Line, now: float) -> None:
        host = self._hosts.get(line.host)
        if host is None:
            host = self._hosts[line.host] = ReplayedHost(self._sources, self._batch)
        if line.action == "probe":
            self._settle(line, host)
        due = host.take(line, now)
        if due:
            kind, moment = due
            heapq.heappush(self._due, (moment, next(self._count), line.host, kind))

    def _settle(self, line: Line, host: ReplayedHost) -> None:
        """Probes go to addresses of the host, which nobody bans and which say where it is."""
        address = format_prefix(parse_prefix(text_of(line.fields, "destination.ip")))
        known = self._roster.host(line.host)
        if address in host.addresses or known is None:
            return
        host.addresses[address] = None
        value = status(line.time / 1e9, addresses=list(host.addresses))
        self.judge.never.put(report_of(line.host, "status"), value)
        self._roster.settle(known, host.addresses)

    # Time

    def _advance(self, now: float) -> None:
        """Let everything happen that is due before `now`."""
        while True:
            moment = self._due[0][0] if self._due else now
            if min(moment, self._tick) >= now:
                return
            if self._tick <= moment:
                self._pass(self._tick)
                self._tick += TICK
            else:
                moment, dummy, name, kind = heapq.heappop(self._due)
                self._report(name, kind, moment)

    def _pass(self, now: float) -> None:
        self.judge.expire(now)
        self._decide(self.panel.tick(now, TICK), now)
        self.judge.commit(now, _PAGES)

    def _report(self, name: str, kind: str, now: float) -> None:
        host, known = self._hosts[name], self._roster.host(name)
        value = host.report(kind, now)
        if known is None:
            return
        if kind == BANS:
            bans, dummy = read_bans(value, self._sources)
            self._decide(self.panel.bans(known.number, bans, now), now)
        else:
            pairs = list(read_seen(value).pairs)
            self._decide(self.panel.seen(known.number, pairs, now), now)

    def _decide(self, results: t.Iterable[Result], now: float) -> None:
        for seat, found in results:
            record = self.judge.judge(seat.name, seat.action, found, now)
            if record:
                self.decisions.append(record)
