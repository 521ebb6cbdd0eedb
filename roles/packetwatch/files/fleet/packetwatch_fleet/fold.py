# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fold: from the values of the store to who is banned until when. No input, no output, no clock of its own.

A source is banned until the latest end of all rows that count: rows of accepted enforcers that have not ended, made
after every lift of the source. The evidence is the strongest among these rows. This is a join: order, duplicates,
replays and several enforcers that decide the same do not matter.
"""

from __future__ import annotations

import collections
import sys
import typing as t

from packetwatch_core._node.keys import BANS, LIFTS

from . import pages
from .keys import enforcer_of, name_of
from .pages import EVIDENCE, Lift, Page, Refused, Row
from .sources import Sources

# Rows of all pages, and of all lifts. An agent takes 10,000 bans, and three enforcers may decide the same.
MAX_ROWS, MAX_LIFTS = 40_000, 20_000

_RANKS = {name: rank for rank, name in enumerate(EVIDENCE)}


class Ban(t.NamedTuple):
    """What holds for a source. All but `until` is from the row with the strongest evidence."""

    until: float
    made: float
    evidence: str
    enforcer: str
    rule: str
    seen: int

    @property
    def label(self) -> str:
        """The name of the ban's author, as the agent logs it."""
        return f"{self.enforcer}/{self.rule}"


def join(rows: t.Iterable[Row], before: float, now: float) -> Ban | None:
    """The ban that the rows of one source make; None if none of them counts.

    before: rows that were made until then are lifted.
    """
    counting = [row for row in rows if row.until > now and row.made > before]
    if not counting:
        return None
    best, until = counting[0], counting[0].until
    # Most sources have one row.
    if len(counting) > 1:
        best = max(counting, key=_strength)
        until = max(row.until for row in counting)
    author = best.page.removeprefix(BANS).partition("/")[0]
    return Ban(until, best.made, best.evidence, author, best.rule, best.seen)


def _strength(row: Row) -> tuple[t.Any, ...]:
    """A total order, so that the result does not depend on the order of rows."""
    return _RANKS[row.evidence], row


def fold(
    values: t.Mapping[str, bytes],
    now: float,
    sources: Sources | None = None,
    accepted: t.Collection[str] = (),
) -> dict[str, Ban]:
    """All bans, by source, from keys and values. accepted: enforcers; none: all are."""
    board = Board(sources, accepted)
    for key, value in values.items():
        board.put(key, value)
    return dict(board.bans(now))


class Board:
    """The fold, kept current value by value: a change costs what its page holds, not what all pages hold.

    accepted: names of enforcers whose rows count; none: all do.
    """

    def __init__(self, sources: Sources | None = None, accepted: t.Collection[str] = ()) -> None:
        self._sources = sources or Sources()
        self._accepted = frozenset(accepted)
        self._rows = _Table[Row](MAX_ROWS)
        self._lifts = _Table[Lift](MAX_LIFTS)
        self.refused: collections.Counter[str] = collections.Counter()
        """Values and rows that did not count, by reason."""

    def put(self, key: str, value: bytes) -> set[str]:
        """Take a value; return the sources for which something may have changed."""
        try:
            if key.startswith(BANS):
                return self._put_page(key, value)
            if key.startswith(LIFTS):
                return self._put_lifts(key, value)
        except Refused as refused:
            self.refused[refused.reason] += 1
        return self.drop(key)

    def drop(self, key: str) -> set[str]:
        """Withdraw a value; return the sources that it had."""
        return self._rows.put(key, []) | self._lifts.put(key, [])

    def keys(self) -> set[str]:
        """The keys whose values have rows."""
        return self._rows.keys() | self._lifts.keys()

    def size(self, key: str) -> int:
        """How many decisions a page has."""
        return len(self._rows.page_sources(key))

    def ban(self, source: str, now: float) -> Ban | None:
        """The ban of a source; None if it is not banned."""
        lifts = self._lifts.of(source)
        before = max((lift.before for lift in lifts), default=-1.0)
        return join(self._rows.of(source), before, now)

    def bans(self, now: float) -> t.Iterator[tuple[str, Ban]]:
        """All bans with their sources, one by one: all at once are megabytes."""
        for source in self._rows.sources():
            if ban := self.ban(source, now):
                yield source, ban

    def sources(self, key: str) -> t.Iterable[str]:
        """The sources of a page of decisions."""
        return self._rows.page_sources(key)

    def rows(self, source: str) -> list[Row]:
        """All decisions on a source, also those that do not count."""
        return list(self._rows.of(source))

    def lift(self, source: str) -> Lift | None:
        """The latest lift of a source."""
        return max(self._lifts.of(source), default=None)

    def expire(self, now: float) -> set[str]:
        """Forget rows that have ended; return the sources that have other rows."""
        return self._rows.discard(lambda row: row.until <= now)

    def hold(self, name: str, rows: t.Iterable[tuple[str, Row]]) -> None:
        """Add rows that no enforcer has: what the host goes on to ban on its own account.

        name: of their page and author. They count together with those that were held before.
        """
        self._rows.put(name, [*self._rows.page(name), *rows])

    def _put_page(self, key: str, value: bytes) -> set[str]:
        enforcer = enforcer_of(key)
        if enforcer is None:
            raise Refused("key")
        if self._accepted and enforcer not in self._accepted:
            raise Refused("enforcer")
        page = self._counted(pages.parse_page(value, self._sources))
        # Pages repeat a few names and times thousands of times.
        times: dict[float, float] = {}
        rows = [
            (
                source,
                row._replace(rule=sys.intern(row.rule), made=times.setdefault(row.made, row.made)),
            )
            for source, row in page
        ]
        return self._rows.put(key, rows)

    def _put_lifts(self, key: str, value: bytes) -> set[str]:
        if name_of(key, LIFTS) is None:
            raise Refused("key")
        return self._lifts.put(key, self._counted(pages.parse_lifts(value, self._sources)))

    def _counted(self, page: Page[t.Any]) -> list[tuple[str, t.Any]]:
        if page.wrong:
            self.refused["row"] += page.wrong
        return page.rows


_V = t.TypeVar("_V", Row, Lift)


class _Table(t.Generic[_V]):
    """Rows by source, and which page each is from."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._size = 0
        self._pages: dict[str, tuple[str, ...]] = {}
        """The sources of each page; a source with two rows is there twice."""
        self._found: dict[str, _V | list[_V]] = {}
        """By source: its row, or rows. Most sources have one."""

    def put(self, key: str, found: t.Iterable[tuple[str, _V]]) -> set[str]:
        """Replace the rows of a page; return the sources whose rows have changed."""
        rows = list(dict.fromkeys((source, row._replace(page=key)) for source, row in found))
        former: tuple[str, ...] = self._pages.get(key, ())
        if self._size - len(former) + len(rows) > self._room:
            raise Refused("full")
        new: dict[str, list[_V]] = {}
        for source, row in rows:
            new.setdefault(source, []).append(row)
        changed = {one for one in {*former, *new} if self._change(one, key, new.get(one, []))}
        self._size += len(rows) - len(former)
        if rows:
            self._pages[key] = tuple(source for source, dummy in rows)
        else:
            self._pages.pop(key, None)
        return changed

    def discard(self, is_over: t.Callable[[_V], bool]) -> set[str]:
        """Remove rows; return the sources that keep some."""
        over = [source for source in self._found if any(map(is_over, self.of(source)))]
        kept = set()
        gone: dict[str, collections.Counter[str]] = {}
        for source in over:
            left = []
            for row in self.of(source):
                if is_over(row):
                    gone.setdefault(row.page, collections.Counter())[source] += 1
                else:
                    left.append(row)
            self._set(source, left)
            if left:
                kept.add(source)
        for key, sources in gone.items():
            self._forget(key, sources)
        return kept

    def of(self, source: str) -> list[_V]:
        found = self._found.get(source)
        if found is None:
            return []
        return found if isinstance(found, list) else [found]

    def page(self, key: str) -> list[tuple[str, _V]]:
        sources = dict.fromkeys(self.page_sources(key))
        return [(source, row) for source in sources for row in self.of(source) if row.page == key]

    def page_sources(self, key: str) -> tuple[str, ...]:
        return self._pages.get(key, ())

    def sources(self) -> t.Iterator[str]:
        return iter(self._found)

    def keys(self) -> set[str]:
        return set(self._pages)

    def _change(self, source: str, key: str, rows: list[_V]) -> bool:
        """Give a source other rows of a page; return whether they differ."""
        before = self.of(source)
        after = [row for row in before if row.page != key] + rows
        if before == after:
            return False
        self._set(source, after)
        return True

    def _forget(self, key: str, gone: collections.Counter[str]) -> None:
        left = collections.Counter(self._pages[key]) - gone
        self._size -= len(self._pages[key]) - left.total()
        if left:
            self._pages[key] = tuple(left.elements())
        else:
            del self._pages[key]

    def _set(self, source: str, rows: list[_V]) -> None:
        if not rows:
            self._found.pop(source, None)
        else:
            self._found[source] = rows if len(rows) > 1 else rows[0]
