# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Reads the tables of docs/tables.md: one address, by the XDP program's steps, or all ranges."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from . import ipv6_hosts
from .area import WORDS, Area
from .ipv4 import BLOCK_BITS
from .ipv4_halves import HALF_BITS, HALVES, Halves
from .ipv6_tree import BITS, IN_RECORD, RECORD_WORDS, RUN
from .lines import INNER, LOW, NO_KEY, TABLE
from .ranges import LAST4, LAST6, NONE, Ranges, ranges_of

if TYPE_CHECKING:
    from .tables import Tables

_VERDICTS = 3
_MAX_SCANS = 10  # more parts share one scan of all buckets

Part = tuple[int, int]
"""The part of the address space to read: first and last address."""


class _Table(NamedTuple):
    """A line of the tree that leads to a table."""

    first: int
    """Number of the table's first line."""
    width: int
    """Bits of the address that number the table's lines."""
    skipped: int
    """Bits of the address before those, which must equal prefix."""
    prefix: int
    before: int
    """The verdict if the skipped bits are smaller than prefix."""
    after: int
    """The verdict if they are larger."""


class _Record(NamedTuple):
    """A start whose address does not fit into its key."""

    rest: int
    """The address without its first 8 bits."""
    verdict: int
    """Holds at the address."""
    after: int
    """Holds from the next address on."""


def lookup4(area: Area, shift: int, address: int) -> int:
    """Return an address's verdict; shift: `header.v4_shift`."""
    halved = shift & HALVES
    shift &= ~HALVES
    low = address & (1 << shift) - 1
    line = address >> shift
    if not memoryview(area.filter).cast("Q")[line] >> (low >> shift - BLOCK_BITS) & 1:
        return NONE
    words = area.words
    if halved:
        halves = Halves(words)
        half = address >> shift - 1
        low = address & (1 << HALF_BITS) - 1
        below = halves.line_of(half)
        if below is None:
            verdict, lows = halves.hosts_of(half)
            return verdict if low in lows else NONE
        line = below
    while True:
        place = line * WORDS
        head = words[place]
        if head & 7 == TABLE:
            shape = words[place + 1]
            line = (head >> 4) + (low >> (shape & 31) & shape >> 8)
            continue
        rank = _rank(words, place, low)
        if head & 7 != INNER:
            return _key_verdict(words[place + rank], low)
        line = (head >> 4) + rank


def lookup6(words: memoryview, address: int) -> int:
    """Return the tree's verdict for an address; words: the area's, of 32 bits."""
    line = at = 0
    while words[line * WORDS] & 7 == TABLE:
        table = _table6(words, line)
        at += table.skipped
        prefix = address >> BITS - at & (1 << table.skipped) - 1
        if prefix != table.prefix:
            return table.before if prefix < table.prefix else table.after
        at += table.width
        line = table.first + (address >> BITS - at & (1 << table.width) - 1)
    place = line * WORDS
    low = address >> _rest(at) & (1 << LOW) - 1
    rank = _rank(words, place, low)
    if not rank:
        return words[place] & 3
    key = words[place + rank]
    if key >> 4 != low or key & 3 != IN_RECORD:
        return _key_verdict(key, low)
    rest = address & (1 << BITS - 8) - 1
    verdict = words[place + rank - 1] >> 2 & 3
    for record in _records(words, (words[place] >> 4) + rank - 1):
        if rest <= record.rest:
            return record.verdict if rest == record.rest else verdict
        verdict = record.after
    return verdict


def _rank(words: memoryview, place: int, low: int) -> int:
    """Return how many of a line's keys are not above low."""
    bound = low + 1 << 4
    return sum(key < bound for key in words[place + 1 : place + WORDS])


def _key_verdict(key: int, low: int) -> int:
    return key & 3 if key >> 4 == low else key >> 2 & 3


def _table6(words: memoryview, line: int) -> _Table:
    head, shape, low, high = words[line * WORDS : line * WORDS + 4]
    return _Table(
        head >> 4, shape & 255, shape >> 8 & 255, high << 32 | low, shape >> 16 & 3, shape >> 18
    )


def _rest(at: int) -> int:
    """Return how many bits of an address follow its key, if the key follows the first `at` bits."""
    return BITS - LOW - min(at, BITS - LOW)


def _records(words: memoryview, number: int) -> list[_Record]:
    """Return the records of a key: the one with this number, or the run that it leads to."""
    low, high = _pair(words, number)
    count = 1
    if low & RUN:
        count = low >> 8
        number -= high
    found = []
    for each in range(number, number + count):
        low, high = _pair(words, each)
        found.append(_Record(high << 56 | low >> 8, low >> 4 & 3, low >> 6 & 3))
    return found


def _pair(words: memoryview, number: int) -> tuple[int, int]:
    """Return a record as two numbers of 64 bits."""
    place = number * RECORD_WORDS
    low, high = words[place : place + RECORD_WORDS].cast("B").cast("Q")
    return low, high


def walk4(words: memoryview, shift: int, first: int, last: int) -> Iterator[int]:
    """Yield the start words (`ranges.start_words`) from first to last; shift: `header.v4_shift`."""
    part = first, last
    if shift & HALVES:
        return chain.from_iterable(_halves(words, (shift & ~HALVES) - 1, part))
    return chain.from_iterable(
        leaf
        for bucket in range(first >> shift, (last >> shift) + 1)
        for leaf in _Bucket4(words, bucket << shift, part).leaves(bucket, 0, shift)
    )


def _halves(words: memoryview, bits: int, part: Part) -> Iterator[list[int]]:
    """Yield the start words of each half and of each leaf below it; bits: of addresses in a half."""
    halves = Halves(words)
    for half in range(part[0] >> bits, (part[1] >> bits) + 1):
        begin = half << bits
        line = halves.line_of(half)
        if line is not None:
            top = begin >> HALF_BITS << HALF_BITS
            yield from _Bucket4(words, top, part).leaves(line, begin - top, bits)
            continue
        verdict, lows = halves.hosts_of(half)
        if lows:
            top = begin << 4 | verdict
            yield _within([top | low << 4 for low in lows], begin, bits, part)


def _within(found: list[int], begin: int, bits: int, part: Part) -> list[int]:
    """Return the start words that are in the part; all of them lie in the 2^bits addresses from begin."""
    if part[0] <= begin and begin | (1 << bits) - 1 <= part[1]:
        return found
    return [word for word in found if part[0] <= word >> 4 <= part[1]]


def _numbers(begin: int, bits: int, width: int, part: Part) -> range:
    """Return the numbers of a table's lines that the part reaches.

    The table has 2^width lines, each for 2^bits addresses, from begin on.
    """
    return range(
        max(0, part[0] - begin >> bits), min((1 << width) - 1, part[1] - begin >> bits) + 1
    )


class _Bucket4:
    """Reads what lies below a half, or a line of the top table, in a part of the address space.

    top: the address whose `low` is zero in the keys.
    """

    def __init__(self, words: memoryview, top: int, part: Part) -> None:
        self._words = words
        self._top = top
        self._part = part

    def leaves(self, line: int, low: int, bits: int) -> Iterator[list[int]]:
        """Yield the start words of each leaf below a line for the 2^bits addresses from top | low on."""
        words = self._words
        place = line * WORDS
        first = words[place] >> 4
        begin = self._top | low
        if words[place] & 7 == TABLE:
            below = words[place + 1] & 31
            for number in _numbers(begin, below, bits - below, self._part):
                yield from self.leaves(first + number, low | number << below, below)
        elif words[place] & 7 == INNER:
            for number in range(len(_keys(words, place)) + 1):
                yield from self.leaves(first + number, low, bits)
        else:
            found = [self._top << 4 | key for key in _keys(words, place)]
            yield _within(found, begin, bits, self._part)


def _keys(words: memoryview, place: int) -> list[int]:
    """Return the keys of a line, without the fill."""
    return [key for key in words[place + 1 : place + WORDS] if key < NO_KEY]


def walk6(words: memoryview, first: int, last: int) -> Iterator[int]:
    """Yield the tree's start words of the addresses from first to last."""
    return chain.from_iterable(_Walk6(words, (first, last)).below(0, 0, 0))


class _Walk6:
    """Reads the tree in a part of the address space."""

    def __init__(self, words: memoryview, part: Part) -> None:
        self._words = words
        self._pairs = words.cast("B").cast("Q")
        self._part = part

    def below(self, line: int, prefix: int, at: int) -> Iterator[list[int]]:
        """Yield the start words of each leaf below a line; prefix: the first `at` bits that lead to it."""
        begin = prefix << BITS - at
        if self._words[line * WORDS] & 7 != TABLE:
            found = self._leaf(line, begin, at)
            yield _within(found, begin, BITS - at, self._part)
            return
        table = _table6(self._words, line)
        begin |= table.prefix << BITS - at - table.skipped
        at += table.skipped + table.width
        prefix = begin >> BITS - at
        for number in _numbers(begin, BITS - at, table.width, self._part):
            yield from self.below(table.first + number, prefix | number, at)

    def _leaf(self, line: int, begin: int, at: int) -> list[int]:
        """Return a leaf's start words; begin: the first address that leads to it."""
        place = line * WORDS
        begin = begin >> LOW << LOW if at > BITS - LOW else begin
        rest = _rest(at)
        pairs = self._pairs
        found = []
        for number, key in enumerate(_keys(self._words, place), self._words[place] >> 4):
            start = begin | key >> 4 << rest
            if key & 3 != IN_RECORD:
                found.append(start << 4 | key & 15)
                continue
            top = start >> BITS - 8 << BITS - 4
            low = pairs[2 * number]
            if low & RUN:
                records = _records(self._words, number)
                found += [top | r.rest << 4 | r.after << 2 | r.verdict for r in records]
            else:
                found.append(top | pairs[2 * number + 1] << 60 | low >> 4)
        return found


def lookup(tables: Tables, family: int, address: int) -> int:
    """Return the verdict for an address (a number), by the same steps as the XDP program."""
    area = _area(tables, family)
    if not area.pages:
        return NONE
    if family == 4:
        return lookup4(area, tables.v4_shift, address)
    verdict = ipv6_hosts.lookup(area, tables.v6_hosts, address)
    return verdict if verdict or tables.v6_hosts.is_all else lookup6(area.words, address)


def verdicts(tables: Tables, family: int, parts: Sequence[tuple[int, int]]) -> list[set[int]]:
    """Return the set of verdicts that occur in each part, given as (first address, last address)."""
    area = _area(tables, family)
    if not area.pages:
        return [{NONE} for _part in parts]
    found: list[list[int]] = [[] for _part in parts]
    if family == 6 and len(parts) <= _MAX_SCANS:
        found = [ipv6_hosts.listed(area, tables.v6_hosts, *part) for part in parts]
    elif family == 6:
        # The buckets are not in order: each search scans all of them. So search once for all parts.
        whole = min(first for first, _last in parts), max(last for _first, last in parts)
        hosts = ipv6_hosts.listed(area, tables.v6_hosts, *whole)
        found = [
            hosts[bisect(hosts, part[0] << 4) : bisect(hosts, part[1] << 4 | 15)] for part in parts
        ]
    return [_verdicts(tables, family, part, hosts) for part, hosts in zip(parts, found)]


def _verdicts(tables: Tables, family: int, part: tuple[int, int], hosts: list[int]) -> set[int]:
    first, last = part
    found = {lookup(tables, family, first)}
    after, since = NONE, last + 1  # the verdict after the start before, and its first address
    for word in _starts(tables, family, part, hosts):
        if len(found) == _VERDICTS:
            break
        if since < word >> 4:
            found.add(after)
        found.add(word & 3)
        after, since = word >> 2 & 3, (word >> 4) + 1
    if since <= last:
        found.add(after)
    return found


def read_runs(
    tables: Tables, family: int, part: tuple[int, int], hosts: list[int]
) -> list[tuple[int, int]]:
    """Return (start, verdict) pairs that cover a part of the addresses; neighbours differ.

    hosts: those of single IPv6 hosts in the part (`listed`).
    """
    first, last = part
    found = [(first, lookup(tables, family, first))]
    for word in _starts(tables, family, part, hosts):
        for start, verdict in ((word >> 4, word & 3), ((word >> 4) + 1, word >> 2 & 3)):
            if found[-1][0] == start and len(found) > 1:
                # The start of this range replaces the end of the one before.
                found.pop()
            if start <= last and verdict != found[-1][1]:
                found.append((start, verdict))
    return found


def read_ranges(tables: Tables) -> tuple[Ranges, Ranges]:
    """Return the IPv4 and the IPv6 ranges that the tables hold, equal to those of `compile_ranges`."""
    hosts = ipv6_hosts.listed(tables.v6, tables.v6_hosts, 0, LAST6)
    return (
        ranges_of(_starts(tables, 4, (0, LAST4), []), LAST4),
        ranges_of(_starts(tables, 6, (0, LAST6), hosts), LAST6),
    )


def _area(tables: Tables, family: int) -> Area:
    return tables.v4 if family == 4 else tables.v6


def _starts(tables: Tables, family: int, part: tuple[int, int], hosts: list[int]) -> Iterable[int]:
    """Return the start words of a part; hosts: those of single IPv6 hosts in it (`listed`)."""
    area = _area(tables, family)
    if not area.pages:
        return ()
    words = area.words
    if family == 4:
        return walk4(words, tables.v4_shift, *part)
    if tables.v6_hosts.is_all:
        return hosts
    around = lookup6(words, part[0])
    return ipv6_hosts.merged(walk6(words, *part), hosts, around)
