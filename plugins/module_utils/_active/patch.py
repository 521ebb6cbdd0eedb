# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The active tables with a few entries changed, instead of all lists compiled anew.

Compiling two million entries takes most of a second. One more denied address or network changes a few
lines of the tables. The result is the same, byte for byte; where it would not be, or where that is not
known, there is none, and the caller compiles.

The new verdicts inside a changed prefix are known without the lists if an entry was added: allow beats
deny, and deny beats nothing. If one was removed, the lists are searched for entries that overlap it.
"""

from __future__ import annotations

import math
import typing as t
from array import array
from bisect import bisect_right
from collections import Counter

from .._base.errors import InvalidInput
from .._declared.drop_ins import DropIns
from .._declared.entries import expires_at, parse_list
from .._declared.search import overlapping
from .._declared.store import is_foreign
from .._feeds.spare import NOTHING
from .._tables.area import WORDS, Area, Place
from .._tables.ipv4 import Shape, build4
from .._tables.ipv4_halves import HALF_BITS, HALVES, are_few
from .._tables.ipv6_hosts import (
    Buckets,
    buckets_of,
    count_hosts,
    edited,
    homes_for,
    listed,
    packed,
    put_after,
    split,
)
from .._tables.ipv6_tree import build6
from .._tables.lines import MIN_TOP_WIDTH, first_width
from .._tables.pool import IPV4, IPV6
from .._tables.ranges import ALLOW, DENY, LAST4, LAST6, NONE, combine, runs, spans_of, words_of
from .._tables.reader import lookup, read_runs, walk6
from .lists import Lists, digest_of
from .splice import spliced
from .verdict import find

if t.TYPE_CHECKING:
    from .._base.address import Prefix
    from .._base.clock import Clock
    from .._declared.entries import Entry
    from .._declared.store import State
    from .._feeds.spare import Note
    from .generation import Areas
    from .lists import Known

# So few starts or hosts are all put into tables anew.
_FEW = 1 << 14
# With more changes, or starts in the changed part, compiling is as fast.
_MAX_PREFIXES = 8
_MAX_STARTS = 1 << 14
_MAX_TEXT = 1 << 20
_MAX_LINES = 64
_MAX_TREE = 1 << 10
_MAX_ODD = 1 << 21
# Addresses around a prefix whose starts may change with it, and how far the quiet around it is sought.
_NEAR = 4
_MAX_NEAR = 64
_MIN_LENGTH6 = 16

_COUNTS = ("allow", "deny")
_LAST = {4: LAST4, 6: LAST6}

Runs = list[tuple[int, int]]


def patched(
    areas: Areas, given: Known, states: tuple[State, State], clock: Clock, note: Note
) -> Lists | None:
    """The lists of the second state, if its tables differ from those of the first in a few lines only.

    areas, given: the tables of the first state. note: of the feeds' exceptions in both.
    """
    before, after = states
    changes = _changes(before, after)
    if changes is None or not clock.is_trusted:
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
    shape, former = given.shape, areas
    for kind, entry, number in changes:
        prefix = entry.prefix
        more = _joining(prefix, kind) if number > 0 else _searching(prefix, after, clock, note)
        if more is None:
            return None
        done = (
            edit4(areas, shape, prefix, more) if prefix.family == 4 else _edit6(areas, prefix, more)
        )
        if done is None:
            return None
        areas, ranges, shape = done.areas, done.ranges, done.shape or shape
        counts[f"ranges_ipv{prefix.family}"] += ranges
    areas.v4.made_from(former.v4)
    areas.v6.made_from(former.v6)
    counts["pages"] = 1 + areas.v4.pages + areas.v6.pages
    digest = digest_of(after)
    made = areas._replace(lists=digest, next_expiry=min(expiries, default=0))
    new_note = note if note == NOTHING else note._replace(lists=digest.hex())
    return Lists(made, counts, new_note, shape)


def _changes(before: State, after: State) -> list[tuple[str, Entry, int]] | None:
    """Entries that were added (1) and removed (-1), with their kinds; None if they are not a few."""
    found: Counter[tuple[str, Entry]] = Counter()
    for kind in _COUNTS:
        old, new = (DropIns.of(getattr(each, kind)) for each in (before, after))
        for name in {*old, *new}:
            if old.is_same(new, name):
                continue
            texts = old.get(name, ""), new.get(name, "")
            if is_foreign(name) or max(map(len, texts)) > _MAX_TEXT:
                return None
            lines = _changed_lines(*texts)
            if len(lines) > _MAX_LINES:
                return None
            try:
                for line, number in lines.items():
                    for entry in parse_list(line, ""):
                        found[kind, entry._replace(comment="", origin="")] += number
            except InvalidInput:
                # Compiling all lists names the file and the line.
                return None
    changes = [(kind, entry, number) for (kind, entry), number in found.items() if number]
    prefixes = {entry.prefix for dummy, entry, dummy2 in changes}
    return changes if len(prefixes) <= _MAX_PREFIXES else None


def _changed_lines(before: str, after: str) -> dict[str, int]:
    """The lines that one text has more often than the other, with how often it was added or removed."""
    counts = Counter(after.splitlines())
    counts.subtract(before.splitlines())
    return {line: number for line, number in counts.items() if number}


# The verdicts inside a changed prefix


def _joining(prefix: Prefix, kind: str) -> t.Callable[[Runs], Runs]:
    """A function that returns a prefix's runs with one more entry for all of it."""
    if kind == "allow":
        return lambda dummy: [(prefix.value, ALLOW)]
    return lambda inside: [(start, verdict or DENY) for start, verdict in inside]


def _searching(
    prefix: Prefix, state: State, clock: Clock, note: Note
) -> t.Callable[[Runs], Runs] | None:
    """A function that returns a prefix's runs as the lists say; None if a search could miss an entry."""
    packing, last = (IPV4, LAST4) if prefix.family == 4 else (IPV6, LAST6)
    texts = (*state.allow.values(), *state.deny.values())
    if prefix.family == 6 and any(len(text) > _MAX_ODD and ":" in text for text in texts):
        # IPv6 has many spellings. Finding all takes longer than compiling.
        return None
    found = [item for item in find(state, prefix, clock, note, overlapping) if item.counts]
    nets = {
        kind: [
            (max(item.entry.prefix.value, prefix.value), min(item.entry.prefix.last, prefix.last))
            for item in found
            if item.kind == kind
        ]
        for kind in _COUNTS
    }
    allow, deny = (spans_of(nets[kind], packing) for kind in _COUNTS)
    whole = list(runs(combine(allow, deny, last), last))
    return lambda dummy: _inside(whole, prefix.value, prefix.last)


# Runs: (start, verdict), each up to the next one


def _inside(found: Runs, first: int, last: int) -> Runs:
    """The runs of the addresses from first to last, without what is around them."""
    begin = bisect_right(found, (first, DENY)) - 1
    part = found[begin : bisect_right(found, (last, DENY))]
    return [(first, part[0][1]), *part[1:]]


def _replaced(found: Runs, first: int, last: int, inside: Runs, end: int) -> Runs:
    """The runs up to `end` with other ones from first to last."""
    after = _inside(found, last + 1, end) if last < end else []
    made: Runs = []
    for start, verdict in (*(run for run in found if run[0] < first), *inside, *after):
        if not made or made[-1][1] != verdict:
            made.append((start, verdict))
    return made


def _count(found: Runs) -> int:
    return sum(verdict != NONE for dummy, verdict in found)


class Done(t.NamedTuple):
    """Changed tables. ranges: how many more they have. shape: of a changed IPv4 area."""

    areas: Areas
    ranges: int
    shape: Shape | None


def edit4(
    areas: Areas, shape: Shape, prefix: Prefix, more: t.Callable[[Runs], Runs]
) -> Done | None:
    """The tables with other verdicts in an IPv4 prefix; None if others would have another layout then."""
    is_all = shape.starts <= _FEW
    # The starts after the prefix may change as well: its surroundings do.
    top = range(1)
    first, last = 0, LAST4
    shift = areas.v4_shift & ~HALVES
    if not is_all:
        top = range(max(prefix.value - 1, 0) >> shift, (min(prefix.last + 2, LAST4) >> shift) + 1)
        if len(top) * shape.starts > _MAX_STARTS << 32 - shift:
            return None
        first, last = top.start << shift, (top.stop << shift) - 1
    low, high = max(first - 2, 0), min(last + 1, LAST4)
    old = read_runs(areas.tables(), 4, (low, high), [])
    inside = more(_inside(old, prefix.value, prefix.last))
    new = _replaced(old, prefix.value, prefix.last, inside, high)
    if new == old:
        return Done(areas, 0, None)
    ranges = _count(new) - _count(old)
    were, words = (
        [word for word in words_of(found, high) if first <= word >> 4 <= last]
        for found in (old, new)
    )
    if is_all:
        area, code, made = build4(words) if words else (Area(), 0, Shape())
        return Done(areas._replace(v4=area, v4_shift=code), ranges, made)
    bits = shift - bool(areas.v4_shift & HALVES)
    changed = _changed_shape(shape, were, words, bits)
    stays = _may_lose(shape, changed.used, bits)
    if not stays or not all(_fits(found, areas.v4_shift) for found in (shape, changed)):
        return None
    before = _inside(old, first - 1, first - 1)[0][1] if first else NONE
    area = spliced(areas.v4, areas.v4_shift, shape.main, top, words, before)
    return Done(areas._replace(v4=area), ranges, changed)


def _changed_shape(shape: Shape, old: list[int], new: list[int], bits: int) -> Shape:
    """The shape with other start words in a part; bits: of the addresses of a line or half."""
    others = [sum(word & 15 != shape.main for word in words) for words in (old, new)]
    empty = {word >> bits + 4 for word in old} - {word >> bits + 4 for word in new}
    return Shape(
        shape.starts + len(new) - len(old),
        shape.others + others[1] - others[0],
        shape.main,
        shape.used - len(empty),
    )


def _fits(shape: Shape, shift: int) -> bool:
    """Whether `build4` would choose this layout, for starts that use at least a third of the lines."""
    bits = 32 - first_width(shape.starts, 32, MIN_TOP_WIDTH)
    if not shift & HALVES:
        many = bits <= HALF_BITS + 1 and are_few(shape.others, shape.starts)
        return bits == shift and not many
    # If the lines are crowded, the table is one bit narrower; two bits would be no halves.
    is_chosen = bits <= HALF_BITS + 1 and min(bits, HALF_BITS) == (shift & ~HALVES) - 1
    return is_chosen and are_few(shape.others, shape.starts)


def _may_lose(shape: Shape, used: int, bits: int) -> bool:
    """Whether the layout stays if only so many lines have starts; bits: of the addresses of each."""
    width = 32 - bits
    # As in `table_width`, whose cuts are one more than the lines.
    return used == shape.used or width <= MIN_TOP_WIDTH or (used + 1) * 3 >= 1 << width


def _edit6(areas: Areas, prefix: Prefix, more: t.Callable[[Runs], Runs]) -> Done | None:
    """The tables with other verdicts in an IPv6 prefix; None if that moves too much of them."""
    area, place = areas.v6, areas.v6_hosts
    count = count_hosts(area, place)
    part = _quiet_around(areas, prefix) if count <= _FEW or prefix.length >= _MIN_LENGTH6 else None
    if part is None:
        return None
    low, high = part
    parts = ((low, prefix.value - 1), (prefix.value, prefix.last), (prefix.last + 1, high))
    hosts = [word for first, last in parts for word in listed(area, place, first, last)]
    old = read_runs(areas.tables(), 6, part, hosts)
    inside = more(_inside(old, prefix.value, prefix.last))
    new = _replaced(old, prefix.value, prefix.last, inside, high)
    if new == old:
        return Done(areas, 0, None)
    were, wanted = _split(old, part), _split(new, part)
    if were.hosts != set(hosts):
        # A host that found no room in the buckets is in the tree.
        return None
    tree = _tree(area, place, part, were.others, wanted.others)
    if tree is None:
        return None
    removed, added = were.hosts - wanted.hosts, wanted.hosts - were.hosts
    homes = homes_for(count + len(added) - len(removed))
    if (removed or added) and count <= _FEW:
        filled = _fill(({*listed(area, place, 0, LAST6)} - removed) | added, homes)
        if filled is None:
            return None
        area, place = put_after(tree, filled, homes)
    else:
        changed = edited(area, place, removed, added) if removed or added else area
        if changed is None or homes != place.homes:
            return None
        area = changed
        if were.others != wanted.others:
            area, place = put_after(tree, buckets_of(area, place), homes)
    return Done(areas._replace(v6=area, v6_hosts=place), _count(new) - _count(old), None)


def _quiet_around(areas: Areas, prefix: Prefix) -> tuple[int, int] | None:
    """The first and the last address of a prefix and its surroundings; None if they are crowded.

    At both ends, the same verdict holds for three addresses. So it does not matter what lies beyond them.
    """
    tables = areas.tables()
    ends = []
    for end, step, limit in ((prefix.value, -1, 0), (prefix.last, 1, LAST6)):
        for distance in range(_NEAR, _MAX_NEAR):
            at = end + step * distance
            if not 0 < at < LAST6:
                ends.append(limit)
                break
            if len({lookup(tables, 6, at - step * near) for near in range(3)}) == 1:
                ends.append(at)
                break
    if len(ends) < 2:
        return None
    low, high = ends
    return low, high


class _Split(t.NamedTuple):
    """Start words of single hosts, as `listed` returns them, and those of the tree."""

    hosts: set[int]
    others: list[int]


def _split(found: Runs, part: tuple[int, int]) -> _Split:
    """The start words of runs that cover a part; its first address is none, unless it is 0."""
    low, high = part
    words = [word for word in words_of(found, high) if not low or word >> 4 > low]
    hosts, others = split(words, found[0][1] if low else NONE)
    return _Split({word & ~12 for some in hosts.values() for word in some}, others)


def _tree(
    area: Area, place: Place, part: tuple[int, int], old: list[int], new: list[int]
) -> array[int] | None:
    """The lines of the tree with other start words in a part; None if it is large."""
    if old == new and place.homes:
        return array("I", area.lines[: place.line * WORDS * 4])
    if (place.line if place.homes else len(area.lines) // WORDS // 4) > _MAX_TREE:
        return None
    has_tree = bool(area.pages) and not place.is_all
    every = list(walk6(area.words, 0, LAST6)) if has_tree else []
    low, high = part
    words = [word for word in every if word >> 4 < low or (low and word >> 4 == low)]
    words += [*new, *(word for word in every if word >> 4 > high)]
    return build6(words) if words else array("I")


def _fill(words: set[int], homes: int) -> tuple[memoryview, memoryview] | None:
    """Buckets with these hosts, and their filter; None if one of them finds no room."""
    buckets = Buckets(homes)
    for verdict in (ALLOW, DENY):
        buckets.add(packed(sorted(word for word in words if word & 3 == verdict)), verdict)
    return None if buckets.place_waiting() else buckets.filled()
