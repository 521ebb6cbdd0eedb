# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Reading the areas of docs/tables.md: one address as the XDP program does, or all starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ._lines import INNER, LOW, NO_KEY, TABLE, WORDS
from ._tables6 import BITS, LOOK, MANY, RECORD_WORDS


class _Table(NamedTuple):
    """A line that leads to a table, by bits behind those that it skips, which must be a prefix's."""

    first: int
    width: int
    skipped: int
    prefix: int
    before: int
    after: int


class _Record(NamedTuple):
    """One start: an address without its first 8 bits; what holds at and behind it."""

    rest: int
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
    if key >> 4 != low or key & 3 != LOOK:
        return _say(key, low)
    rest = address & (1 << BITS - 8) - 1
    said = words[place + rank - 1] >> 2 & 3
    for record in _records(words, (words[place] >> 4) + rank - 1):
        if rest <= record.rest:
            return record.verdict if rest == record.rest else said
        said = record.after
    return said


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


def _rest(at: int) -> int:
    """How many bits of an address are behind those of the keys that follow its first ones (at)."""
    return BITS - LOW - min(at, BITS - LOW)


def _records(words: memoryview, number: int) -> list[_Record]:
    """The records that a key leads to: one, or the run that it names."""
    low, high = _pair(words, number)
    count = 1
    if low & MANY:
        count = low >> 8
        number -= high
    found = []
    for each in range(number, number + count):
        low, high = _pair(words, each)
        found.append(_Record(high << 56 | low >> 8, low >> 4 & 3, low >> 6 & 3))
    return found


def _pair(words: memoryview, number: int) -> tuple[int, int]:
    """A record's two numbers of 64 bits."""
    place = number * RECORD_WORDS
    low, high = words[place : place + RECORD_WORDS].cast("B").cast("Q")
    return low, high


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
    place = line * WORDS
    if words[place] & 7 == TABLE:
        table = _table6(words, line)
        prefix = prefix << table.skipped | table.prefix
        at += table.skipped + table.width
        for number in range(1 << table.width):
            yield from _walk6(words, table.first + number, prefix << table.width | number, at)
        return
    top = prefix << BITS - at
    for number, key in enumerate(_keys(words, place), words[place] >> 4):
        begin = top >> LOW << LOW if at > BITS - LOW else top
        begin |= key >> 4 << _rest(at)
        if key & 3 != LOOK:
            yield begin << 4 | key & 15
            continue
        for record in _records(words, number):
            address = begin >> BITS - 8 << BITS - 8 | record.rest
            yield address << 4 | record.after << 2 | record.verdict
