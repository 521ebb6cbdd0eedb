# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The single IPv6 hosts of docs/tables.md: buckets of a hash table, and their filter.

The arrays are in this machine's byte order. Hosts with the XDP program are little-endian, as the format
requires (docs/tables.md).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from .area import TRIES, WORDS, Area, Place, check_lines
from .lanes import as_number, longs, low_halves, places_of, repeated, widened, zero_lanes
from .pool import IPV6
from .ranges import ALLOW, DENY, LAST6, NONE
from .scatter import scatter

SLOTS = 4
"""Hosts in a bucket, which is a line."""
TAG = 0x1FFF
"""The bits of a filter slot that come from the hash."""
MORE = 0x2000
"""Set in the first filter slot of a bucket if a host that did not fit there is in a later bucket."""
VERDICT_SHIFT = 14
"""The lowest bit of the verdict in a filter slot; the verdict of an empty slot is NONE."""

_HASH_LOW = 0x9E3779B97F4A7C15
_HASH_ALL = 0xD6E8FEB86659FD93
_HALF = (1 << 32) - 1
_WHOLE = (1 << 64) - 1
_CHUNK = 1 << 16
_HOMES_BITS = 6
_MAX_PART = 256
_FEW = 64
_MANY_BYTES = 4  # bytes in common from which on a search for them is faster than arithmetic on all


def split(words: Iterable[int], around: int = NONE) -> tuple[dict[int, list[int]], list[int]]:
    """Return the start words (see ranges.py) of single hosts by verdict, and the other start words.

    around: the verdict before the first of them; it must have begun two addresses earlier at least.

    A host is stored singly if both its neighbours share another verdict: then the tree does not need its
    start word. Within a listed range, a second start word says that the range goes on after the host; the
    tree does not need that one either.
    """
    hosts: dict[int, list[int]] = {ALLOW: [], DENY: []}
    others: list[int] = []
    before = NONE  # the verdict that held before the last of `others`
    for word in words:
        pair = word & 15
        host = others[-1] if before and pair == before * 5 else NONE
        if host & 15 in hosts and host >> 4 == (word >> 4) - 1:
            others.pop()
            hosts[host & 3].append(host)
            around, before = before, NONE
        elif not around and pair in hosts:
            hosts[pair].append(word)
            before = NONE
        else:
            others.append(word)
            around, before = pair >> 2, around
    return hosts, others


def packed(words: list[int]) -> bytearray:
    """Return the addresses of start words, packed (pool.py), without holding all as objects at once."""
    data = bytearray()
    for begin in range(0, len(words), _CHUNK):
        data += IPV6.pack([word >> 4 for word in words[begin : begin + _CHUNK]])
    return data


class _Waiting(NamedTuple):
    """A host whose home is full."""

    home: int
    mark: int
    key: array[int]


def homes_for(count: int) -> int:
    """Return the number of homes for so many hosts.

    At most two and a half hosts in a bucket on average: for one in fifteen the home is full. Only the first
    six bits of the number differ from 0, so that most changes of a few hosts move no other hosts.
    """
    homes = count * 2 // 5 + 1 if count else 0
    step = 1 << max(homes.bit_length() - _HOMES_BITS, 0)
    return -(-homes // step) * step


class Buckets:
    """Buckets that are being filled. homes: of the whole table. part: only hosts with these homes come."""

    def __init__(self, homes: int, part: range | None = None) -> None:
        self._homes = homes
        self._first = part.start if part else 0
        self.place = Place(homes=len(part) if part else homes)
        self._used = bytearray(self.place.buckets)
        self._passed: set[int] = set()
        self._waiting: list[_Waiting] = []
        # One slot more than the buckets have: hosts without room are written there, and ignored.
        self._overflow = SLOTS * self.place.buckets
        self._slots = array("H", bytes(2 * (self._overflow + 1)))
        self._keys = array("Q", bytes(16 * (self._overflow + 1)))

    def add(self, packed: bytes | bytearray, verdict: int) -> None:
        """Put packed addresses (pool.py) into their homes; hosts whose home is full wait."""
        for begin in range(0, len(packed), 16 * _CHUNK):
            keys = array("Q", packed[begin : begin + 16 * _CHUNK])
            if sys.byteorder == "little":
                keys.byteswap()
            homes, marks = _hash(keys, self._homes, verdict)
            if self._first:
                homes = array("Q", [home - self._first for home in homes])
            taken, full = self._take(homes)
            self._write(taken, keys, marks)
            self._waiting += [
                _Waiting(homes[number], marks[number], keys[2 * number : 2 * number + 2])
                for number in full
            ]

    def place_waiting(self) -> list[int]:
        """Put the waiting hosts into buckets after their homes, once all other hosts are at home.

        Returns `address << 4 | verdict` of the hosts that find no room.
        """
        taken = array("Q", [self._take_after(waiting.home) for waiting in self._waiting])
        keys, marks = array("Q"), array("H", [waiting.mark for waiting in self._waiting])
        for waiting in self._waiting:
            keys += waiting.key
        self._write(taken, keys, marks)
        return [
            (waiting.key[0] << 64 | waiting.key[1]) << 4 | waiting.mark >> VERDICT_SHIFT
            for waiting, slot in zip(self._waiting, taken)
            if slot == self._overflow
        ]

    def _take(self, homes: array[int]) -> tuple[array[int], list[int]]:
        """Return a slot for each host, given its home, and the indexes of hosts whose home is full."""
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
            taken[number] = self._overflow
        return taken, full

    def _take_after(self, home: int) -> int:
        """Return a slot in the first bucket after a full home that has room; mark the buckets passed."""
        used = self._used
        for bucket in range(home + 1, home + TRIES):
            if used[bucket] < SLOTS:
                self._passed.update(range(home, bucket))
                used[bucket] += 1
                return bucket * SLOTS + used[bucket] - 1
        return self._overflow

    def _write(self, taken: array[int], keys: array[int], marks: array[int]) -> None:
        scatter(self._keys, taken, memoryview(keys))
        scatter(self._slots, taken, memoryview(marks))

    @property
    def spilled(self) -> int:
        """How many buckets after the last home have hosts."""
        return len(bytes(self._used[self.place.homes :]).rstrip(b"\0"))

    def filled(self) -> tuple[memoryview, memoryview]:
        """Return the buckets and their filter, as bytes."""
        for bucket in self._passed:
            self._slots[bucket * SLOTS] |= MORE
        keys, slots = memoryview(self._keys), memoryview(self._slots)
        return keys[: 2 * self._overflow].cast("B"), slots[: self._overflow].cast("B")


def put_after(
    tree: array[int], filled: tuple[memoryview, memoryview], homes: int
) -> tuple[Area, Place]:
    """Return the area of the tree's lines and then the buckets, and where the buckets are."""
    line = len(tree) // WORDS
    place = Place(line if homes else 0, homes)
    check_lines(line + place.buckets)
    filters = array("Q", bytes(8 * line))
    return Area.of((tree, filled[0]), (filters, filled[1])), place


def buckets_of(area: Area, place: Place) -> tuple[memoryview, memoryview]:
    """Return the buckets of an area and their filter, as bytes."""
    keys, slots = _views(area, place)
    return keys.cast("B"), slots.cast("B")


def count_hosts(area: Area, place: Place) -> int:
    """Return the number of hosts in the buckets."""
    slots = buckets_of(area, place)[1].tobytes()
    verdicts = slots[sys.byteorder == "little" :: 2]
    return len(verdicts) - verdicts.count(0)


def edited(area: Area, place: Place, removed: set[int], added: set[int]) -> Area | None:
    """Return the area without and with some hosts, as if all had been put into buckets anew.

    removed, added: `address << 4 | verdict`; the number of homes must stay right. None if too many other
    hosts would move.
    """
    made = Area(bytearray(area.lines), bytearray(area.filter))
    buckets = _Open(*_views(made, place), place.homes)
    changes = sorted(removed | added)
    for home in buckets.homes_of(changes):
        if not buckets.renew(home, removed, dict(zip(added, buckets.homes_of(added)))):
            return None
    return made


class _Open:
    """Buckets that can be changed, and their filter."""

    def __init__(self, keys: memoryview, slots: memoryview, homes: int) -> None:
        self._keys = keys
        self._slots = slots
        self._homes = homes

    def homes_of(self, words: Iterable[int]) -> list[int]:
        """Return the homes of hosts."""
        halves = [half for word in words for half in (word >> 68, word >> 4 & _WHOLE)]
        return _hash(array("Q", halves), self._homes)[0].tolist()

    def renew(self, home: int, removed: set[int], added: dict[int, int]) -> bool:
        """Fill anew the buckets around a home, from which and into which no host has moved.

        added: hosts with their homes. Returns False if too many hosts would move.
        """
        part = self._around(home, home)
        while len(part) <= _MAX_PART:
            words = {word for bucket in part for word in self._words_of(bucket)} - removed
            words |= {word for word, own in added.items() if own in part}
            made = Buckets(self._homes, part)
            for verdict in (ALLOW, DENY):
                made.add(packed(sorted(word for word in words if word & 3 == verdict)), verdict)
            if made.place_waiting():
                return False
            if not made.spilled:
                keys, slots = made.filled()
                self._put(self._keys, keys.cast("Q"), 2 * SLOTS, part)
                self._put(self._slots, slots.cast("H"), SLOTS, part)
                return True
            part = self._around(part.start, part.stop - 1 + made.spilled)
        return False

    def _around(self, first: int, last: int) -> range:
        """Return the buckets from first to last, and those which share hosts with them."""
        while first and self._slots[(first - 1) * SLOTS] & MORE:
            first -= 1
        while self._slots[last * SLOTS] & MORE:
            last += 1
        return range(first, last + 1)

    def _words_of(self, bucket: int) -> Iterator[int]:
        for slot in range(bucket * SLOTS, (bucket + 1) * SLOTS):
            if self._slots[slot]:
                address = self._keys[2 * slot] << 64 | self._keys[2 * slot + 1]
                yield address << 4 | self._slots[slot] >> VERDICT_SHIFT

    @staticmethod
    def _put(own: memoryview, new: memoryview, size: int, part: range) -> None:
        """Replace the buckets of a part; size: numbers in a bucket."""
        own[part.start * size : part.stop * size] = new[: len(part) * size]


def lookup(area: Area, place: Place, address: int) -> int:
    """Return the verdict of a single host; NONE if no bucket has it."""
    if not place.homes:
        return NONE
    keys, slots = _views(area, place)
    key = address >> 64, address & _WHOLE
    ((home,), (mark,)) = _hash(array("Q", key), place.homes)
    for bucket in range(home, home + TRIES):
        first = bucket * SLOTS
        for slot in range(first, first + SLOTS):
            if slots[slot] & TAG == mark and (keys[2 * slot], keys[2 * slot + 1]) == key:
                return slots[slot] >> VERDICT_SHIFT
        if not slots[first] & MORE:
            break
    return NONE


def listed(area: Area, place: Place, first: int, last: int) -> list[int]:
    """Return `address << 4 | verdict` of all hosts from first to last, ascending."""
    if not place.homes:
        return []
    if last - first < _FEW:
        few = ((address, lookup(area, place, address)) for address in range(first, last + 1))
        return [address << 4 | verdict for address, verdict in few if verdict]
    keys, slots = _views(area, place)
    free = ((first ^ last) >> 64).bit_length()
    numbers: Iterable[int] = range(len(slots))
    shared = (64 - free) // 8
    if shared >= _MANY_BYTES and first >> 96:
        numbers = _beginning(area, place, (first >> 64).to_bytes(8, "big")[:shared])
    elif free < 64:
        # Lane arithmetic finds the hosts with the same first bits; most have others.
        highs = array("Q", keys[::2].tobytes())
        fixed = repeated(_WHOLE >> free << free, 8, len(highs))
        differ = (as_number(highs) ^ repeated(first >> 64, 8, len(highs))) & fixed
        numbers = zero_lanes(differ, 8, len(highs))
    found = [
        (keys[2 * number] << 64 | keys[2 * number + 1]) << 4 | slots[number] >> VERDICT_SHIFT
        for number in numbers
        if slots[number] >> VERDICT_SHIFT
    ]
    found.sort()
    if (first, last) != (0, LAST6):
        found = [word for word in found if first <= word >> 4 <= last]
    return found


def _beginning(area: Area, place: Place, lead: bytes) -> Iterator[int]:
    """Yield the numbers of the slots whose address begins with some bytes, up to eight."""
    pattern, offset = (lead, 0) if sys.byteorder == "big" else (lead[::-1], 8 - len(lead))
    line = 4 * WORDS
    begin, end = line * place.line, line * (place.line + place.buckets)
    at = area.lines.find(pattern, begin, end)
    while at >= 0:
        number, rest = divmod(at - begin - offset, 16)
        if not rest:
            yield number
        at = area.lines.find(pattern, at + 1, end)


def merged(others: Iterable[int], hosts: list[int], around: int) -> list[int]:
    """Return the tree's start words with those of the hosts (from `listed`) inserted: undo `split`.

    around: the verdict that holds before the first of them.
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
    """Return the buckets' keys, as numbers of 64 bits, and the slots of their filter."""
    end = place.line + place.buckets
    keys = memoryview(area.lines).cast("Q")[8 * place.line : 8 * end]
    slots = memoryview(area.filter).cast("H")[SLOTS * place.line : SLOTS * end]
    return keys, slots


def _hash(keys: array[int], homes: int, verdict: int = NONE) -> tuple[array[int], array[int]]:
    """Return home and filter slot of each key, which is the two 64-bit halves of an address.

    The hash is multiply-shift, applied twice: Dietzfelbinger et al., J. Algorithms 25(1), 1997.
    """
    highs, lows = keys[::2], keys[1::2]
    count = len(highs)
    whole, half = repeated(_WHOLE, 16, count), repeated(_HALF, 16, count)
    mixed = as_number(widened(lows)) * _HASH_LOW & whole
    mixed = mixed + as_number(widened(highs)) & whole
    mixed = (mixed ^ mixed >> 32 & half) * _HASH_ALL & whole
    places = (mixed >> 32 & half) * homes >> 32 & half
    marks = mixed >> 16 & repeated(TAG, 16, count) | repeated(verdict << VERDICT_SHIFT, 16, count)
    shorts = memoryview(low_halves(marks, count, "Q")).cast("B").cast("H")
    return low_halves(places, count, "Q"), array("H", shorts[::4].tobytes())
