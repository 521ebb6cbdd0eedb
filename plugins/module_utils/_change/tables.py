# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Compiling a state's lists on this host, with the addresses that feeds must not deny."""

from __future__ import annotations

import typing as t

from .._active.lists import Lists, compile_lists, digest_of, is_current, read_known
from .._base.clock import read_clock
from .._declared.drop_ins import DropIns
from .._feeds.spare import NOTHING, has_feeds, lasting, read_note, spared_now

if t.TYPE_CHECKING:
    from .._active.generation import Areas, Generation
    from .._base.paths import Paths
    from .._declared.store import State
    from .._feeds.spare import FeedReport, Note, Spared
    from .._network.snapshot import Snapshot


# Characters of lists that take a tenth of a second to compile.
_LONG = 1 << 21


class ListCompiler:
    """Compiles lists, with the exceptions for feeds that are noted on disk."""

    def __init__(self, paths: Paths, snapshot: Snapshot) -> None:
        self._note = paths.spared
        self._paths = paths
        self._snapshot = snapshot

    def tables(
        self,
        state: State,
        active: Areas | None,
        is_filtered: bool,
        before: State | None = None,
        noted: Areas | None = None,
        *,
        judge: bool = False,
    ) -> tuple[Areas, Lists | None]:
        """The active tables if the state's lists would give the same, else new tables and their lists.

        is_filtered: whether an interface is filtered now. before: the confirmed state. noted: as
        `noted` returns them. judge: find entries without effect too, unless only a few entries change.
        """
        spared = self._spared(is_filtered) if has_feeds(state) else {}
        clock = read_clock(self._paths.clock)
        if active is not None and is_current(active, state, clock) and self._spares(active, spared):
            return active, None
        lists = None
        if active is not None and before is not None and is_current(active, before, clock):
            lists = self._patched(noted or active, before, state, spared)
        if lists is None:
            lists = compile_lists(state, spared, clock, judge=judge)
        return lists.areas, lists

    def noted(self, current: Generation, active: Areas) -> Areas:
        """The active tables with the digests of their pages, if the last change noted them.

        Only an edit of the tables uses them: all else hashes the bytes that the kernel has.
        """
        known = read_known(self._paths.tables, active)
        return current.noted(active, known.digests) if known else active

    def for_good(self, state: State, lists: Lists) -> Areas:
        """The tables of the same lists without the allow entries that expire."""
        clock = read_clock(self._paths.clock)
        return compile_lists(state, lists.note.spared, clock, for_good=True).areas

    def _spares(self, active: Areas, spared: Spared) -> bool:
        """Whether the active tables were compiled with these exceptions."""
        return not spared or self._is_noted(read_note(self._note), active, spared)

    @staticmethod
    def _is_noted(note: Note, active: Areas, spared: Spared) -> bool:
        return note.lists == active.lists.hex() and lasting(spared).items() <= note.spared.items()

    def _patched(self, active: Areas, before: State, state: State, spared: Spared) -> Lists | None:
        """The active tables, changed for a few entries; None if all lists must be compiled.

        Short lists are compiled, which is as fast and finds entries without effect.
        """
        # Imported here: a boot does not need it, and it would cost memory.
        from .._active.patch import patched

        if DropIns.of(state.allow).size + DropIns.of(state.deny).size < _LONG:
            return None
        note = NOTHING
        if has_feeds(before) or has_feeds(state):
            note = read_note(self._note)
            if not self._is_noted(note, active, spared):
                return None
        given = read_known(self._paths.tables, active)
        if given is None:
            return None
        clock = read_clock(self._paths.clock)
        return patched(active, given, (before, state), clock, note)

    def as_before(self, state: State) -> Lists:
        """Compile with the feed exceptions of the active tables, if those tables are of this state.

        Entries without effect are found too.
        """
        clock = read_clock(self._paths.clock)
        if not has_feeds(state):
            return compile_lists(state, clock=clock, judge=True)
        note = read_note(self._note)
        is_known = note.lists == digest_of(state).hex()
        spared = note.spared if is_known else self._spared_now()
        return compile_lists(state, spared, clock, judge=True)

    def report(self) -> FeedReport:
        """The feed entries that were left out when the active tables were compiled."""
        return read_note(self._note).report

    def _spared(self, is_filtered: bool) -> Spared:
        """The addresses that feeds must not deny.

        While nothing is filtered, the network may not be up yet, as during a boot. Then the addresses
        of the last compilation count too: a feed that denies the gateway would keep the network down.
        """
        before = {} if is_filtered else lasting(read_note(self._note).spared)
        return before | self._spared_now()

    def _spared_now(self) -> Spared:
        return spared_now(self._snapshot.network, self._snapshot.protection)
