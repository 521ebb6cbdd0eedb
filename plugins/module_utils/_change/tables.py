# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Compiling a state's lists on this host, with the addresses that feeds must not deny."""

from __future__ import annotations

import typing as t

from .._active.lists import Lists, compile_lists, digest_of, is_current
from .._feeds.spare import NOTHING, has_feeds, lasting, read_note, spared_now

if t.TYPE_CHECKING:
    from .._active.generation import Areas
    from .._declared.store import State
    from .._feeds.spare import FeedReport, Spared
    from .._network.snapshot import Snapshot


class ListCompiler:
    """Compiles lists. note: path of the file with the exceptions that feeds were compiled with."""

    def __init__(self, note: str, snapshot: Snapshot) -> None:
        self._note = note
        self._snapshot = snapshot

    def tables(
        self, state: State, active: Areas | None, is_filtered: bool, judge: bool = False
    ) -> tuple[Areas, Lists | None]:
        """The active tables if the state's lists would give the same, else new tables and their lists.

        is_filtered: whether an interface is filtered now. judge: find entries without effect, too.
        """
        spared = self._spared(is_filtered) if has_feeds(state) else {}
        if active is not None and is_current(active, state):
            note = read_note(self._note) if spared else NOTHING
            known = (
                note.lists == active.lists.hex() and lasting(spared).items() <= note.spared.items()
            )
            if known or not spared:
                return active, None
        lists = compile_lists(state, spared, judge=judge)
        return lists.areas, lists

    def as_before(self, state: State) -> Lists:
        """Compile with the feed exceptions of the active tables, if those tables are of this state.

        Entries without effect are found too.
        """
        if not has_feeds(state):
            return compile_lists(state, judge=True)
        note = read_note(self._note)
        is_known = note.lists == digest_of(state).hex()
        return compile_lists(state, note.spared if is_known else self._spared_now(), judge=True)

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
