# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Reading the areas of docs/tables.md: one address as the XDP program does, or all starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ._lines import INNER, NO_KEY, TABLE, WORDS
from ._tables6 import BITS, FLAG_BITS, LOW_BITS, TOP, WIDE


class _Table(NamedTuple):
    """A line that leads to a table, by bits behind those that it skips, which must be a prefix's."""

    first: int
    width: int
    skipped: int
    prefix: int
    before: int
    after: int


class _Record(NamedTuple):
    """One start: an address without its first bits; what holds before, at and behind it."""

    rest: int
    before: int
    verdict: int
    after: int


def lookup4(words: memoryview, shift: int, address: int) -> int:
    """Return an address's verdict; words are the area's, of 32 bits."""
    low = address & (1 << shift) - 1
    line = address >> shift
    while True:
        place = line * WORDS
        head = words[place]
        if head & 7 == TABLE:
            shape = words[place + 1]
            line = (head >> 4) + (low >> (shape & 31) & shape >> 8)
            continue
        rank = _rank(words, place, low)
        if head & 7 != INNER:
            return _say(words[place + rank], low)
        line = (head >> 4) + rank


def lookup6(words: memoryview, address: int) -> int:
    """Return an address's verdict; words are the area's, of 32 bits."""
    line = at = 0
    while True:
        head = words[line * WORDS]
        if head & 7 == WIDE:
            return _among(words, line, address)
        if head & 7 != TABLE:
            return head & 3
        table = _table6(words, line)
        at += table.skipped
        prefix = address >> BITS - at & (1 << table.skipped) - 1
        if prefix != table.prefix:
            return table.before if prefix < table.prefix else table.after
        at += table.width
        line = table.first + (address >> BITS - at & (1 << table.width) - 1)


def _rank(words: memoryview, place: int, low: int) -> int:
    """How many of a line's keys are not above low."""
    bound = low + 1 << 4
    return sum(key < bound for key in words[place + 1 : place + WORDS])


def _say(key: int, low: int) -> int:
    return key & 3 if key >> 4 == low else key >> 2 & 3


def _table6(words: memoryview, line: int) -> _Table:
    head, shape, low, high = words[line * WORDS : line * WORDS + 4]
    return _Table(
        head >> 4, shape & 255, shape >> 8 & 255, high << 32 | low, shape >> 16 & 3, shape >> 18
    )


def _records(words: memoryview, line: int) -> list[_Record]:
    """A line's records; the last one may be there several times."""
    found = []
    for at in range(line * WORDS, (line + 1) * WORDS, 4):
        one, two, three, four = words[at : at + 4]
        low, high = one | two << 32, three | four << 32
        rest = high << LOW_BITS | low >> FLAG_BITS
        found.append(_Record(rest, low >> 3 & 3, low >> 5 & 3, low >> 7 & 3))
    return found


def _among(words: memoryview, line: int, address: int) -> int:
    """What holds at an address according to a line's records."""
    rest = address & (1 << BITS - TOP) - 1
    records = _records(words, line)
    below = [record for record in records if record.rest <= rest]
    if not below:
        return records[0].before
    return below[-1].verdict if below[-1].rest == rest else below[-1].after


def walk4(words: memoryview, shift: int) -> Iterator[int]:
    """Yield the area's start words with whole addresses, as start_words gives them."""
    for bucket in range(1 << 32 - shift):
        for key in _keys4(words, bucket):
            yield bucket << shift + 4 | key


def _keys4(words: memoryview, line: int) -> Iterator[int]:
    """Yield all keys below a line."""
    place = line * WORDS
    head = words[place]
    if head & 7 == TABLE:
        below = range((words[place + 1] >> 8) + 1)
    elif head & 7 == INNER:
        below = range(len(_keys(words, place)) + 1)
    else:
        yield from _keys(words, place)
        return
    for number in below:
        yield from _keys4(words, (head >> 4) + number)


def _keys(words: memoryview, place: int) -> list[int]:
    """A line's keys, without what fills it up."""
    return [key for key in words[place + 1 : place + WORDS] if key < NO_KEY]


def walk6(words: memoryview) -> Iterator[int]:
    """Yield the area's start words with whole addresses, as start_words gives them."""
    return _walk6(words, 0, 0, 0)


def _walk6(words: memoryview, line: int, prefix: int, at: int) -> Iterator[int]:
    """Yield all starts below a line that addresses with a prefix of so many bits reach."""
    head = words[line * WORDS]
    if head & 7 == WIDE:
        top = prefix << BITS - at >> BITS - TOP << BITS - TOP
        former = -1
        for record in _records(words, line):
            if record.rest != former:
                yield (top | record.rest) << 4 | record.after << 2 | record.verdict
            former = record.rest
    elif head & 7 == TABLE:
        table = _table6(words, line)
        prefix = prefix << table.skipped | table.prefix
        at += table.skipped + table.width
        for number in range(1 << table.width):
            yield from _walk6(words, table.first + number, prefix << table.width | number, at)
