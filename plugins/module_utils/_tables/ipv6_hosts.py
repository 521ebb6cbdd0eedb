# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Single IPv6 addresses of docs/tables.md: buckets that a hash leads to, and their filter.

All arrays are in the order of bytes of the hosts that packets come to, which is little-endian.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from .area import WORDS, Area, check_lines
from .lanes import as_number, longs, low_halves, places_of, repeated, widened, zero_lanes
from .pool import IPV6
from .ranges import ALLOW, DENY, LAST6, NONE
from .scatter import scatter

SLOTS = 4
"""Hosts in a bucket, which is a line."""
TRIES = 32
"""Buckets that may have a host: its home, and those behind it while all before them are full."""
TAG = 0x1FFF
"""The bits of a slot that are taken from the hash."""
MORE = 0x2000
"""Set in the first slot of a bucket if a host whose way led there is in a later one."""
SAYS = 14
"""Bit of a slot where its verdict begins; an empty one has none."""

_HASH_LOW = 0x9E3779B97F4A7C15
_HASH_ALL = 0xD6E8FEB86659FD93
_HALF = (1 << 32) - 1
_WHOLE = (1 << 64) - 1
_AT_ONCE = 1 << 16


class Place(NamedTuple):
    """Where in an area the hosts are: the first bucket's line, and how many buckets are homes."""

    line: int = 0
    homes: int = 0

    @property
    def is_all(self) -> bool:
        """Whether no tree comes before them."""
        return self.homes > 0 and not self.line

    @property
    def buckets(self) -> int:
        """All buckets, those behind the last home included."""
        return self.homes + TRIES - 1 if self.homes else 0


def split(words: Iterable[int]) -> tuple[dict[int, list[int]], list[int]]:
    """Return the start words (see _ranges) of single hosts by verdict, and the others.

    Single is what has its own verdict amid another one, so that the others do not need it. Amid what
    is listed, the word behind it says that this holds again: that one is not needed either.
    """
    hosts: dict[int, list[int]] = {ALLOW: [], DENY: []}
    others: list[int] = []
    around = before = NONE  # before: what held before the last of the others
    for word in words:
        said = word & 15
        host = others[-1] if before and said == before * 5 else NONE
        if host & 15 in hosts and host >> 4 == (word >> 4) - 1:
            others.pop()
            hosts[host & 3].append(host)
            around, before = before, NONE
        elif not around and said in hosts:
            hosts[said].append(word)
            before = NONE
        else:
            others.append(word)
            around, before = said >> 2, around
    return hosts, others


def packed(words: list[int]) -> bytearray:
    """Return the addresses of start words as _pool packs them; never all of them as objects."""
    data = bytearray()
    for begin in range(0, len(words), _AT_ONCE):
        data += IPV6.pack([word >> 4 for word in words[begin : begin + _AT_ONCE]])
    return data


class _Late(NamedTuple):
    """A host that found its home full."""

    home: int
    mark: int
    key: array[int]


class Buckets:
    """Buckets that are being filled, with room for so many hosts."""

    def __init__(self, count: int) -> None:
        # Two and a half hosts a bucket: one in fifteen finds its home full.
        self.place = Place(homes=count * 2 // 5 + 1 if count else 0)
        self._used = bytearray(self.place.buckets)
        self._passed: set[int] = set()
        self._late: list[_Late] = []
        # The last slot is nobody's: there goes what finds no room.
        self._nowhere = SLOTS * self.place.buckets
        self._slots = array("H", bytes(2 * (self._nowhere + 1)))
        self._keys = array("Q", bytes(16 * (self._nowhere + 1)))

    def add(self, packed: bytes | bytearray, verdict: int) -> None:
        """Put addresses, packed as in _pool, to their homes; where these are full, they wait."""
        for begin in range(0, len(packed), 16 * _AT_ONCE):
            keys = array("Q", packed[begin : begin + 16 * _AT_ONCE])
            if sys.byteorder == "little":
                keys.byteswap()
            homes, marks = _hash(keys, self.place.homes, verdict)
            taken, full = self._take(homes)
            self._write(taken, keys, marks)
            self._late += [
                _Late(homes[number], marks[number], keys[2 * number : 2 * number + 2])
                for number in full
            ]

    def settle(self) -> list[int]:
        """Put what waits behind its homes; return `address << 4 | verdict` of what has no room there.

        So as many as can be are at home, where they are looked for first.
        """
        taken = array("Q", [self._take_behind(late.home) for late in self._late])
        keys, marks = array("Q"), array("H", [late.mark for late in self._late])
        for late in self._late:
            keys += late.key
        self._write(taken, keys, marks)
        return [
            (late.key[0] << 64 | late.key[1]) << 4 | late.mark >> SAYS
            for late, slot in zip(self._late, taken)
            if slot == self._nowhere
        ]

    def _take(self, homes: array[int]) -> tuple[array[int], list[int]]:
        """Return a slot for each of these homes' hosts, and the places of those that found none."""
        counts = []
        used = self._used
        for bucket in homes:
            count = used[bucket]
            counts.append(count)
            if count < SLOTS:
                used[bucket] = count + 1
        slots = as_number(homes) * SLOTS + as_number(array("Q", counts))
        taken = longs(slots, len(counts))
        full = places_of(SLOTS, bytes(counts))
        for number in full:
            taken[number] = self._nowhere
        return taken, full

    def _take_behind(self, home: int) -> int:
        """Return a slot in the first bucket behind a full one that has room, and mark the way."""
        used = self._used
        for bucket in range(home + 1, home + TRIES):
            if used[bucket] < SLOTS:
                self._passed.update(range(home, bucket))
                used[bucket] += 1
                return bucket * SLOTS + used[bucket] - 1
        return self._nowhere

    def _write(self, taken: array[int], keys: array[int], marks: array[int]) -> None:
        scatter(self._keys, taken, memoryview(keys))
        scatter(self._slots, taken, memoryview(marks))

    def after(self, tree: array[int]) -> tuple[Area, Place]:
        """Return the area that begins with these lines, and where in it the buckets are."""
        for bucket in self._passed:
            self._slots[bucket * SLOTS] |= MORE
        line = len(tree) // WORDS
        check_lines(line + self.place.buckets)
        filters = array("Q", bytes(8 * line))
        if not self.place.homes:
            return Area.of(tree, filters), self.place
        tree.frombytes(memoryview(self._keys)[: 2 * self._nowhere].cast("B"))
        filters.frombytes(memoryview(self._slots)[: self._nowhere].cast("B"))
        return Area.of(tree, filters), self.place._replace(line=line)


def lookup(area: Area, place: Place, address: int) -> int:
    """Return a host's verdict."""
    if not place.homes:
        return NONE
    keys, slots = _views(area, place)
    key = address >> 64, address & _WHOLE
    ((home,), (mark,)) = _hash(array("Q", key), place.homes)
    for bucket in range(home, home + TRIES):
        first = bucket * SLOTS
        for slot in range(first, first + SLOTS):
            if slots[slot] & TAG == mark and (keys[2 * slot], keys[2 * slot + 1]) == key:
                return slots[slot] >> SAYS
        if not slots[first] & MORE:
            break
    return NONE


def listed(area: Area, place: Place, first: int, last: int) -> list[int]:
    """Return `address << 4 | verdict` of the hosts from the first address to the last, ascending."""
    if not place.homes:
        return []
    keys, slots = _views(area, place)
    highs = array("Q", keys[::2].tobytes())
    free = ((first ^ last) >> 64).bit_length()
    numbers: Iterable[int] = range(len(slots))
    if free < 64:
        # Most have other first bits, which is told without looking at each.
        fixed = repeated(_WHOLE >> free << free, 8, len(highs))
        differ = (as_number(highs) ^ repeated(first >> 64, 8, len(highs))) & fixed
        numbers = zero_lanes(differ, 8, len(highs))
    found = [
        (highs[number] << 64 | keys[2 * number + 1]) << 4 | slots[number] >> SAYS
        for number in numbers
        if slots[number] >> SAYS
    ]
    found.sort()
    if (first, last) != (0, LAST6):
        found = [word for word in found if first <= word >> 4 <= last]
    return found


def merged(others: Iterable[int], hosts: list[int], around: int) -> list[int]:
    """Return start words with those of hosts among them; around: what holds before the first.

    hosts: as `listed` gives them.
    """
    if not hosts:
        return list(others)
    found = sorted(chain(others, hosts))
    host = iter(hosts)
    upcoming: int | None = next(host)
    for number, word in enumerate(found):
        if word == upcoming:
            found[number] = word | around << 2
            upcoming = next(host, None)
        else:
            around = word >> 2 & 3
    return found


def _views(area: Area, place: Place) -> tuple[memoryview, memoryview]:
    """The buckets' keys, as numbers of 64 bits, and the slots of their filter."""
    end = place.line + place.buckets
    keys = memoryview(area.lines).cast("Q")[8 * place.line : 8 * end]
    slots = memoryview(area.filter).cast("H")[SLOTS * place.line : SLOTS * end]
    return keys, slots


def _hash(keys: array[int], homes: int, verdict: int = NONE) -> tuple[array[int], array[int]]:
    """Return home and slot of each key, which is an address in two halves. Multiply-shift, twice:
    Dietzfelbinger et al., J. Algorithms 25(1), 1997."""
    highs, lows = keys[::2], keys[1::2]
    count = len(highs)
    whole, half = repeated(_WHOLE, 16, count), repeated(_HALF, 16, count)
    mixed = as_number(widened(lows)) * _HASH_LOW & whole
    mixed = mixed + as_number(widened(highs)) & whole
    mixed = (mixed ^ mixed >> 32 & half) * _HASH_ALL & whole
    places = (mixed >> 32 & half) * homes >> 32 & half
    marks = mixed >> 16 & repeated(TAG, 16, count) | repeated(verdict << SAYS, 16, count)
    shorts = memoryview(low_halves(marks, count, "Q")).cast("B").cast("H")
    return low_halves(places, count, "Q"), array("H", shorts[::4].tobytes())
