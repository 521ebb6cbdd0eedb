# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The IPv6 tree of docs/tables.md: tables below tables, until a line has up to 15 starts."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import MutableSequence, Sequence
from itertools import accumulate, chain, groupby, pairwise
from typing import NamedTuple

from .._base.errors import TooLarge
from .area import WORDS
from .lanes import as_number, repeated, zero_lanes
from .lines import KEYS, LOW, NO_KEY, TABLE, Lines, table_width

BITS = 128
IN_RECORD = 3
"""The verdict of a key whose bits do not decide: its record does."""
RUN = 1
"""Lowest bit of a record that leads to a run of records; their count is in the next byte."""
RECORD_WORDS = 4

_RECORD_BYTES = 4 * RECORD_WORDS
_MAX_RECORDS = 1 << 27
_CHEAP_RATIO = 16
_MIN_WIDTH = 3  # then 42 tables reach the last bit, for any addresses
_MAX_SKIPPED = 63
_KEY = (1 << LOW) - 1 << 4
_WHOLE = frozenset((0, 5, 10))
_EXACT = frozenset(range(16))
_CHUNK = 1 << 16


def build6(words: MutableSequence[int]) -> array[int]:
    """Return the tree, in whole lines, for start words (see ranges.py). Lookups begin with line 0.

    Clears the words: a million of them take more memory than the tree.
    """
    builder = _Builder(words)
    builder.fill(builder.lines.reserve(1))
    words.clear()
    return builder.area()


class _Leaf(NamedTuple):
    """A line that leads to no other, for words[begin:end]; the verdict `state` holds before them."""

    line: int
    begin: int
    end: int
    state: int


class _Builder:
    """Writes lines, and the records that follow all lines."""

    def __init__(self, words: Sequence[int]) -> None:
        self.lines = Lines()
        self._words = words
        self._records = bytearray()
        # Lines with records: their record numbers are complete once the number of lines is known.
        self._recorded: list[int] = []

    def fill(self, line: int) -> None:
        """Make a line lead to all words."""
        if len(self._words) <= KEYS:
            self._leaves([_Leaf(line, 0, len(self._words), 0)], 0)
        else:
            self._table(line, 0, len(self._words), 0, 0)

    def area(self) -> array[int]:
        """Return lines and records."""
        area = self.lines.area
        first = len(area) // RECORD_WORDS
        if first + self._next_record() > _MAX_RECORDS:
            raise TooLarge(
                "the IPv6 lists need more than 2048 MiB of tables: "
                "use shorter lists or larger prefixes"
            )
        for line in self._recorded:
            area[line * WORDS] += first << 4
        records = array("Q", bytes(self._records))
        if sys.byteorder == "big":
            records.byteswap()
        area.frombytes(records.tobytes())
        area.extend([0] * (-len(area) % WORDS))
        return area

    def _table(self, line: int, begin: int, end: int, state: int, at: int) -> None:
        """Make a line lead to a table of words[begin:end], whose first `at` bits are equal.

        The verdict `state` holds before them.
        """
        words = self._words
        one, other = words[begin], words[end - 1]
        skipped = min(BITS + 4 - at - (one ^ other).bit_length(), _MAX_SKIPPED)
        left = BITS - at - skipped
        width, cuts = table_width(words, begin, end, left, _MIN_WIDTH, _CHEAP_RATIO)
        first = self.lines.reserve(1 << width)
        area = self.lines.area
        place = line * WORDS
        prefix = one >> left + 4 & (1 << skipped) - 1
        area[place] = first << 4 | TABLE
        area[place + 1] = width | skipped << 8 | state << 16 | (other >> 2 & 3) << 18
        area[place + 2 : place + 4] = array("I", array("Q", [prefix]).tobytes())
        self._buckets(first, cuts, state, at + skipped, width)

    def _buckets(self, first: int, cuts: list[int], state: int, at: int, width: int) -> None:
        """Write a table's lines; the `width` bits after the first `at` number them.

        words[cut] is the first word of a bucket; the verdict `state` holds before the table.
        """
        words = self._words
        shift = BITS - at - width + 4
        mask = (1 << width) - 1
        filled = 0  # lines below this one are written
        leaves = []
        for begin, end in pairwise(cuts):
            bucket = words[begin] >> shift & mask
            if state and filled < bucket:
                self.lines.set_verdict(first + filled, first + bucket, state)
            filled = bucket + 1
            if end - begin <= KEYS:
                leaves.append(_Leaf(first + bucket, begin, end, state))
            else:
                self._table(first + bucket, begin, end, state, at + width)
            state = words[end - 1] >> 2 & 3
        if state:
            self.lines.set_verdict(first + filled, first + (1 << width), state)
        self._leaves(leaves, at + width)

    def _leaves(self, leaves: list[_Leaf], at: int) -> None:
        """Write leaves, whose keys hold the bits after the first `at`."""
        words = list(chain.from_iterable(self._words[leaf.begin : leaf.end] for leaf in leaves))
        keys = _keys(words, at)
        record = self._next_record()
        recorded = any(key & 3 == IN_RECORD for key in keys)
        if recorded:
            self._recorded += [leaf.line for leaf in leaves]
            _pack(self._records, words)
        area = self.lines.area
        index = 0
        for line, begin, end, state in leaves:
            place = line * WORDS
            count = end - begin
            area[place] = state * 5 + (record + index << 4 if recorded else 0)
            area[place + 1 : place + 1 + count] = keys[index : index + count]
            index += count
        equal = _equal(keys)
        if equal:
            ends = list(accumulate(leaf.end - leaf.begin for leaf in leaves))
            for number in sorted({bisect_right(ends, index) for index in equal}):
                begin = ends[number] - leaves[number].end + leaves[number].begin
                self._join(
                    leaves[number].line, words[begin : ends[number]], keys[begin : ends[number]]
                )

    def _join(self, line: int, words: list[int], keys: Sequence[int]) -> None:
        """Rewrite a leaf so that starts with the same bits share one key, which leads to a run."""
        groups = [list(group) for _bits, group in groupby(range(len(keys)), lambda i: keys[i] >> 4)]
        if len(groups) == len(keys):
            return
        base = self._next_record() + sum(len(group) for group in groups if len(group) > 1)
        joined, links = [], bytearray()
        for number, group in enumerate(groups):
            own = [words[index] for index in group]
            key = keys[group[-1]]
            if len(group) > 1:
                back = base + number - self._next_record()
                _pack(self._records, own)
                links += (back << 64 | len(group) << 8 | RUN).to_bytes(_RECORD_BYTES, "little")
                key = key & ~3 | IN_RECORD
            else:
                _pack(links, own)
            joined.append(key)
        self._records += links
        place = line * WORDS
        area = self.lines.area
        area[place] = base << 4 | area[place] & 15
        area[place + 1 : place + WORDS] = array("I", joined + [NO_KEY] * (KEYS - len(joined)))

    def _next_record(self) -> int:
        return len(self._records) // _RECORD_BYTES


def _keys(words: list[int], at: int) -> array[int]:
    """Return a key for each start, with the bits after the first `at` of its address."""
    shift = BITS - LOW - min(at, BITS - LOW)
    rest = (1 << shift) - 1 << 4 | 15
    whole = _WHOLE if shift else _EXACT
    return array(
        "I",
        [
            word >> shift & _KEY | (word & 15 if word & rest in whole else word & 12 | IN_RECORD)
            for word in words
        ],
    )


def _equal(keys: array[int]) -> list[int]:
    """Return the indexes of keys whose next key has the same bits."""
    found: list[int] = []
    for begin in range(0, len(keys) - 1, _CHUNK):
        part = keys[begin : begin + _CHUNK + 1]
        count = len(part) - 1
        differ = as_number(part[1:]) ^ as_number(part[:-1])
        lanes = differ & repeated(_KEY, part.itemsize, count)
        found += [begin + at for at in zero_lanes(lanes, part.itemsize, count)]
    return found


def _pack(records: bytearray, words: list[int]) -> None:
    """Append a record for each start word: the word without the address's first 8 bits."""
    size = _RECORD_BYTES + 1
    for begin in range(0, len(words), _CHUNK):
        part = bytearray().join(
            [(word << 4).to_bytes(size, "little") for word in words[begin : begin + _CHUNK]]
        )
        del part[_RECORD_BYTES::size]
        records += part
