# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What the declared lists say about one prefix, and which entries say so."""

from __future__ import annotations

import typing as t

from .._base.clock import counts
from .._declared.entries import expires_at
from .._declared.search import covering
from .._feeds.spare import is_left_out
from .._tables.ranges import ALLOW, DENY, NONE

if t.TYPE_CHECKING:
    from .._base.address import Prefix
    from .._base.clock import Clock
    from .._declared.entries import Entry
    from .._declared.store import State
    from .._feeds.spare import Note

Search = t.Callable[[str, "Prefix"], "list[Entry]"]


class Found(t.NamedTuple):
    """An entry that covers a prefix.

    kind: of its list, allow or deny. owner: name of its drop-in. counts: whether it is in the tables.
    is_undecided: whether the clock cannot tell yet if it has expired.
    """

    kind: str
    owner: str
    entry: Entry
    counts: bool
    is_undecided: bool


def find(
    state: State,
    prefix: Prefix,
    clock: Clock,
    note: Note,
    search: Search = covering,
) -> list[Found]:
    """The entries that cover a prefix: allow before deny, the longest prefixes first.

    note: root's note with the entries of feeds that were left out.
    """
    found = []
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        for owner, text in sorted(lists.items()):
            for entry in search(text, prefix):
                expiry = expires_at(entry.expires) if entry.expires else None
                is_active = expiry is None or counts(kind, expiry, clock)
                is_undecided = expiry is not None and clock.is_undecided(expiry)
                is_active = is_active and not is_left_out(kind, owner, text, entry.prefix, note)
                found.append(Found(kind, owner, entry, is_active, is_undecided))
    return sorted(found, key=lambda item: (item.kind != "allow", -item.entry.prefix.length))


def verdict_of(found: t.Iterable[Found]) -> int:
    """The verdict of these entries."""
    kinds = {item.kind for item in found if item.counts}
    return ALLOW if "allow" in kinds else DENY if "deny" in kinds else NONE
