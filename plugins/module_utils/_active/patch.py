# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The active tables with a few hosts changed, instead of all lists compiled anew.

Compiling two million entries takes most of a second. A ban by hand, or one more denied address, changes a
single line of the tables. The result is the same, byte for byte; where it would not be, or where that is not
known, there is none, and the caller compiles.
"""

from __future__ import annotations

import math
import typing as t

from .._declared.entries import expires_at, parse_list
from .._declared.store import is_feed
from .._feeds.spare import NOTHING
from .._tables.ipv4 import Editor
from .._tables.ranges import LAST4, NONE
from .._tables.reader import lookup4
from .lists import Lists, digest_of
from .verdict import find, verdict_of

if t.TYPE_CHECKING:
    from .._base.clock import Clock
    from .._declared.entries import Entry
    from .._declared.store import State
    from .._feeds.spare import Note
    from .generation import Areas
    from .lists import Known

# Each host costs a search in all lists; with more of them, compiling is as fast.
_MAX_HOSTS = 8
_MAX_TEXT = 1 << 20

_COUNTS = ("allow", "deny")


def patched(
    areas: Areas, given: Known, states: tuple[State, State], clock: Clock, note: Note
) -> Lists | None:
    """The lists of the second state, if its tables differ in a few isolated hosts only.

    areas, given: the tables of the first state. note: of the feeds' exceptions in both.
    """
    before, after = states
    changes = _changes(before, after)
    if changes is None or not clock.is_trusted or not areas.v4.pages:
        return None
    counts = dict(given.counts)
    expiries = [areas.next_expiry] if areas.next_expiry else []
    for kind, entry, number in changes:
        if entry.expires:
            expiry = expires_at(entry.expires)
            if number < 0 or expiry <= clock.passed:
                return None
            expiries.append(math.ceil(expiry))
        counts[kind] += number
    editor = Editor(areas.v4, areas.v4_shift, given.shape)
    changed: set[int] = set()
    for prefix in sorted({entry.prefix for dummy, entry, dummy2 in changes}):
        verdict = verdict_of(find(after, prefix, clock, note))
        former = lookup4(areas.v4, areas.v4_shift, prefix.value)
        if former == verdict:
            continue
        if not _is_isolated(areas, prefix.value, changed):
            return None
        if not editor.put(prefix.value, former, verdict):
            return None
        changed.add(prefix.value)
        counts["ranges_ipv4"] += (verdict != NONE) - (former != NONE)
    digest = digest_of(after)
    made = areas._replace(
        v4=editor.area if changed else areas.v4,
        lists=digest,
        next_expiry=min(expiries, default=0),
    )
    new_note = note if note == NOTHING else note._replace(lists=digest.hex())
    return Lists(made, counts, new_note, editor.shape)


def _changes(before: State, after: State) -> list[tuple[str, Entry, int]] | None:
    """Entries that were added (1) and removed (-1), with their kinds; None if they are not a few hosts."""
    found: list[tuple[str, Entry, int]] = []
    for kind in _COUNTS:
        old, new = getattr(before, kind), getattr(after, kind)
        for name in {*old, *new}:
            texts = old.get(name, ""), new.get(name, "")
            if texts[0] is texts[1] or texts[0] == texts[1]:
                continue
            if is_feed(name) or max(map(len, texts)) > _MAX_TEXT:
                return None
            was, now = ([*_bare(text)] for text in texts)
            for entry in {*was, *now}:
                number = now.count(entry) - was.count(entry)
                if number:
                    found.append((kind, entry, number))
    hosts = {entry.prefix for dummy, entry, dummy2 in found}
    if len(hosts) > _MAX_HOSTS or any(host.family != 4 or not host.is_host for host in hosts):
        return None
    return found


def _bare(text: str) -> t.Iterator[Entry]:
    for entry in parse_list(text, ""):
        yield entry._replace(comment="", origin="")


def _is_isolated(areas: Areas, address: int, changed: t.Collection[int]) -> bool:
    """Whether no neighbour of an address is listed, and none has changed."""
    if not 0 < address < LAST4:
        return False
    return all(
        near not in changed and lookup4(areas.v4, areas.v4_shift, near) == NONE
        for near in (address - 1, address + 1)
    )
