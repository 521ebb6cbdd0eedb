# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judges what rules have found: what is refused, what is known already, what becomes a row. No clock, no input, no output.

What the enforcer has decided itself is in the same fold as on hosts, so a lift and an end mean the same here and there.
"""

from __future__ import annotations

import collections
import math
import typing as t

from packetwatch_core._base.address import Prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._node.keys import LIFTS
from packetwatch_core._node.never import Never
from packetwatch_core._node.rules import ENFORCE, MONITOR
from packetwatch_fleet.fold import Board
from packetwatch_fleet.pages import EVIDENCE, MAX_SEEN, MAX_SYN, Row
from packetwatch_fleet.sources import Sources, network_of, packed, unpacked

from .ledger import Ledger, Page
from .rules.interface import Decision, Found, Hosts, Proposal

PROPOSE = "propose"
"""The action of a decision that only people can carry out."""
# Seconds of a ban that a rule may want. Hosts have limits of their own.
MAX_SECONDS = 7 * 86400.0
RECENT = 64
_MAX_MONITORED = 10_000
_MAX_SHOWN, _MAX_WHY = 8, 200
# A ban is prolonged if this part of it would be new.
_PART = 0.1
_RANKS = {name: rank for rank, name in enumerate(EVIDENCE)}
# Rules know nothing by hand.
_OF_RULES = EVIDENCE[:2]
# How much later than a lift a new row is made.
_AFTER_LIFT = 0.2

Record = dict[str, t.Any]
"""A decision as ``rules/NAME`` has it."""


class Judge:
    """Decides as the enforcer `name`. shared: IPv6 prefixes whose sources are banned singly."""

    def __init__(
        self, name: str, never: Never, hosts: Hosts, shared: t.Sequence[Prefix] = ()
    ) -> None:
        self.never = never
        self.ledger = Ledger(name)
        self.refused: collections.Counter[str] = collections.Counter()
        """What was found and refused, by reason."""
        self.decided: collections.Counter[str] = collections.Counter()
        """Decisions, by rule."""
        self.recent: collections.deque[Record] = collections.deque(maxlen=RECENT)
        """The newest decisions, the newest one first."""
        self._hosts = hosts
        self._shared = shared
        self._sources = Sources(shared)
        self._board = Board(self._sources)
        self._monitored: dict[str, Row] = {}
        """What would be banned if the rules enforced it."""

    # What the store has

    def put(self, key: str, value: bytes) -> set[str]:
        """Take one of the enforcer's own pages, or a page of lifts; return the sources that were lifted."""
        touched = self._board.put(key, value)
        if key.startswith(self.ledger.folder):
            self.ledger.know(key, value)
            return set()
        return self._take_lifts(touched) if key.startswith(LIFTS) else set()

    def drop(self, key: str) -> None:
        """A page is gone: it has ended, or somebody has withdrawn it."""
        self._board.drop(key)
        self.ledger.close(key)

    def relist(self, pages: t.Mapping[str, bytes], now: float, is_same: bool) -> set[str]:
        """Take all own pages and all lifts; return the sources that were lifted.

        is_same: whether the store goes on where it was. If it does not, because it was wiped or restored, what it lacks
        is written again. If it does, somebody has withdrawn what it lacks.
        """
        known = set()
        if not is_same:
            # What is lifted stays so, also if the store has lost its lifts.
            known = {row for row in self._all_own() if not self._is_lifted(*row)}
        for key in self._board.keys() - pages.keys():
            self.drop(key)
        lifted: set[str] = set()
        for key, value in pages.items():
            lifted |= self.put(key, value)
        for source, row in known - self._all_own():
            if row.until > now and not self._is_lifted(source, row):
                self.ledger.add(source, row)
        return lifted

    def commit(self, now: float, most: int) -> list[Page]:
        """Up to `most` pages to write."""
        pages = self.ledger.commit(now, most)
        for page in pages:
            self._board.put(page.key, page.value)
        return pages

    def expire(self, now: float) -> None:
        """Forget what has ended."""
        self._board.expire(now)
        self._monitored = {s: row for s, row in self._monitored.items() if row.until > now}

    @property
    def entries(self) -> int:
        """How many rows of its own are in the store."""
        return sum(map(self._board.size, self._own_keys()))

    # What rules find

    def judge(self, rule: str, action: str, found: Found, now: float) -> Record | None:
        """Decide; None: it is refused, which is counted, or known already."""
        try:
            if isinstance(found, Proposal):
                return self._propose(rule, found, now)
            row = self._row(rule, found, now)
        except (TypeError, ValueError, InvalidInput):
            # A rule of somebody else may find anything.
            self.refused["invalid"] += 1
            return None
        source = self._sources.of(unpacked(found.source))
        if reason := self._why_not(source, found.source, now):
            self.refused[reason] += 1
            return None
        if self._is_known(source, row, action, now):
            return None
        if action == ENFORCE and not self.ledger.add(source, row):
            self.refused["full"] += 1
            return None
        if action == MONITOR:
            if len(self._monitored) >= _MAX_MONITORED:
                del self._monitored[next(iter(self._monitored))]
            self._monitored[source] = row
        return self._record(
            rule,
            action,
            now,
            source=source,
            seconds=round(row.until - row.made, 1),
            until=row.until,
            evidence=row.evidence,
            seen=row.seen,
            hosts=[self._hosts.name(host)[:64] for host in found.hosts[:_MAX_SHOWN]],
            ports=list(found.ports[:_MAX_SHOWN]),
            why=str(found.why)[:_MAX_WHY],
        )

    def _propose(self, rule: str, found: Proposal, now: float) -> Record | None:
        if len(found.network) not in (3, 6):
            raise ValueError
        return self._record(
            rule,
            PROPOSE,
            now,
            source=network_of(found.network),
            seconds=0,
            until=0,
            evidence=EVIDENCE[0],
            seen=found.seen,
            hosts=[],
            ports=list(found.ports[:_MAX_SHOWN]),
            why=str(found.why)[:_MAX_WHY],
        )

    def _record(self, rule: str, action: str, now: float, **fields: t.Any) -> Record:
        self.decided[rule] += 1
        record = {"t": round(now, 1), "rule": rule, "action": action} | fields
        self.recent.appendleft(record)
        return record

    def _row(self, rule: str, found: Decision, now: float) -> Row:
        """The row of a decision; raises an error if it makes no sense."""
        seconds, seen = float(found.seconds), int(found.seen)
        if len(found.source) not in (4, 8, 16) or found.evidence not in _OF_RULES:
            raise ValueError
        if not (math.isfinite(seconds) and seconds >= 1 and 0 <= seen <= MAX_SEEN):
            raise ValueError
        seconds = min(seconds, MAX_SYN if found.evidence == EVIDENCE[0] else MAX_SECONDS)
        lift = self._board.lift(self._sources.of(unpacked(found.source)))
        # It must be later than the last lift, which may be of a node whose clock is ahead.
        made = round(max(now, lift.before + _AFTER_LIFT if lift else 0.0), 1)
        return Row(round(made + seconds, 1), made, rule, found.evidence, seen)

    def _why_not(self, source: str, data: bytes, now: float) -> str:
        """Why a source must not be banned; empty: it may be."""
        if self.never.refused(source) or self.never.is_full:
            return "never"
        if len(data) == 8 and self._is_in_shared(source):
            return "shared"
        lift = self._board.lift(source)
        return "hold" if lift and now < lift.hold else ""

    def _is_known(self, source: str, row: Row, action: str, now: float) -> bool:
        """Whether a decision in force does as much."""
        known = self._board.rows(source)
        if source in self.ledger.pending:
            known.append(self.ledger.pending[source])
        if action == MONITOR and source in self._monitored:
            known.append(self._monitored[source])
        for one in known:
            if one.until <= now or self._is_lifted(source, one):
                continue
            if _RANKS[one.evidence] < _RANKS[row.evidence]:
                continue
            # SYNs prove nothing, however often they are repeated: such a ban is not prolonged while it is in force.
            if one.evidence == EVIDENCE[0] or row.until - one.until < _PART * (
                row.until - row.made
            ):
                return True
        return False

    def _own_keys(self) -> list[str]:
        keys = self._board.keys()
        return [key for key in keys if key.startswith(self.ledger.folder)]

    def _all_own(self) -> set[tuple[str, Row]]:
        """All rows of its own in the store, whatever their pages."""
        return {
            (source, row._replace(page=""))
            for key in self._own_keys()
            for source in self._board.sources(key)
            for row in self._board.rows(source)
        }

    def _is_lifted(self, source: str, row: Row) -> bool:
        lift = self._board.lift(source)
        return lift is not None and row.made <= lift.before

    def _take_lifts(self, touched: t.Iterable[str]) -> set[str]:
        lifted = {source for source in touched if self._board.lift(source)}
        for source in lifted:
            for rows in (self.ledger.pending, self._monitored):
                if source in rows and self._is_lifted(source, rows[source]):
                    del rows[source]
        return lifted

    def _is_in_shared(self, source: str) -> bool:
        half = parse_prefix(source)
        return any(
            one.family == 6 and one.value <= half.last and half.value <= one.last
            for one in self._shared
        )


def sources_of(lifted: t.Iterable[str]) -> t.Iterator[bytes]:
    """Sources as rules have them."""
    return map(packed, lifted)
