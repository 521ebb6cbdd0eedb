# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Reading the areas of docs/tables.md: one address as the XDP program does, or all starts."""

from __future__ import annotations

from collections.abc import Iterator

from ._lines import CHUNK, INNER, TABLE, WORDS
from ._tables6 import BITS, BRANCH, PRESENT

_LONG = (1 << 64) - 1
_REST = _LONG << 8 & _LONG  # bits of a record's second half that are an address's


def lookup4(words: memoryview, shift: int, address: int) -> int:
    """Return an address's verdict; words are the area's, of 32 bits."""
    low = address & (1 << shift) - 1
    line, rank = _find(words, address >> shift, low)
    return _say(words[line * WORDS + rank], low)


def lookup6(words: memoryview, width: int, address: int) -> int:
    """Return an address's verdict; words are the area's, of 32 bits."""
    line = address >> BITS - width
    consumed = width
    while True:
        rest = address << consumed & (1 << BITS) - 1
        low = rest >> BITS - CHUNK
        line, rank = _find(words, line, low)
        key = words[line * WORDS + rank]
        place = words[line * WORDS] >> 4
        if not (rank and place and key >> 4 == low):
            return _say(key, low)
        consumed += CHUNK
        high, below = _record(words, place, rank)
        if not below:
            return key & 3
        if not below & BRANCH:
            return _compare(rest << CHUNK & (1 << BITS) - 1, high, below)
        line = high


def _find(words: memoryview, line: int, low: int) -> tuple[int, int]:
    """Walk on to the leaf; return its number and how many of its keys are not above low."""
    while True:
        place = line * WORDS
        head = words[place]
        if head & 15 == TABLE:
            shape = words[place + 1]
            line = (head >> 4) + (low >> (shape & 31) & shape >> 8)
            continue
        bound = low + 1 << 4
        rank = sum(key < bound for key in words[place + 1 : place + WORDS])
        if head & 15 != INNER:
            return line, rank
        line = (head >> 4) + rank


def _say(key: int, low: int) -> int:
    return key & 3 if key >> 4 == low else key >> 2 & 3


def _record(words: memoryview, place: int, rank: int) -> tuple[int, int]:
    """Both halves of the record of a leaf's key."""
    at = place * WORDS + (rank - 1) * 4
    return words[at] | words[at + 1] << 32, words[at + 2] | words[at + 3] << 32


def _compare(rest: int, high: int, below: int) -> int:
    """What holds at an address beside the one start that a record has."""
    start = high << 64 | below & _REST
    if rest == start:
        return below >> 3 & 3
    return below >> 5 & 3 if rest > start else below >> 1 & 3


def walk4(words: memoryview, shift: int) -> Iterator[int]:
    """Yield the area's start words with whole addresses, as start_words gives them."""
    for bucket in range(1 << 32 - shift):
        for _line, _rank, key in _keys(words, bucket):
            yield bucket << shift + 4 | key


def walk6(words: memoryview, width: int) -> Iterator[int]:
    """Yield the area's start words with whole addresses, as start_words gives them."""
    for bucket in range(1 << width):
        yield from _walk6(words, bucket, bucket, width)


def _walk6(words: memoryview, line: int, prefix: int, consumed: int) -> Iterator[int]:
    """Yield what a walk leads to; all of it begins with that prefix."""
    left = BITS - consumed - CHUNK
    for leaf, rank, key in _keys(words, line):
        block = prefix << CHUNK | key >> 4
        place = words[leaf * WORDS] >> 4
        high, below = _record(words, place, rank) if place else (0, 0)
        if below & BRANCH:
            yield from _walk6(words, high, block, consumed + CHUNK)
        elif below & PRESENT:
            rest = (high << 64 | below & _REST) >> BITS - left
            yield (block << left | rest) << 4 | (below >> 5 & 3) << 2 | below >> 3 & 3
        else:
            address = block << left if left > 0 else block >> -left
            yield address << 4 | key & 15


def _keys(words: memoryview, line: int) -> Iterator[tuple[int, int, int]]:
    """Yield (leaf, rank, key) of all keys below a line, in order."""
    place = line * WORDS
    head = words[place]
    if head & 15 == TABLE:
        shape = words[place + 1]
        for number in range((shape >> 8) + 1):
            yield from _keys(words, (head >> 4) + number)
        return
    keys = [key for key in words[place + 1 : place + WORDS] if key >> 30 == 0]
    if head & 15 == INNER:
        for number in range(len(keys) + 1):
            yield from _keys(words, (head >> 4) + number)
        return
    for rank, key in enumerate(keys, 1):
        yield line, rank, key
