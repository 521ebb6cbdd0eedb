# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The lines of docs/tables.md: nodes of 64 bytes, the size of a processor's cache line.

A *key* is `low << 4 | after << 2 | verdict`: a start word (see ranges.py) whose address is cut to its
lowest bits, at most `LOW` of them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from .area import WORDS, check_lines

KEYS = WORDS - 1
LOW = 24
"""Bits of an address that a key can hold."""
MIN_TOP_WIDTH = 32 - LOW
"""Width of the narrowest top table: it leaves `LOW` bits of an IPv4 address for the keys."""
NO_KEY = 1 << LOW + 4
"""Fills the unused words of a line; larger than any key."""
INNER = 3
TABLE = 7

_EMPTY = array("I", [0, *[NO_KEY] * KEYS])
_FAN_OUT = 16
_DENSE = 5  # with more words per bucket, a binary search is faster than comparing each pair
_NEAR_WORDS = 32
_KEYS_PER_LINE = 9  # the limit of the average
_MIN_WIDTH = 5  # a narrower table is no better than an inner line
_MAX_WIDTH = 22
_CHEAP_RATIO = 128  # a table with so many times fewer lines than words below it may be sparse


class Lines:
    """The lines of an area that is being built."""

    def __init__(self) -> None:
        self.area = array("I")

    def reserve(self, count: int) -> int:
        """Append `count` lines without keys; return the number of the first one."""
        first = len(self.area) // WORDS
        check_lines(first + count)
        self.area += _EMPTY * count
        return first

    def set_verdict(self, begin: int, end: int, state: int) -> None:
        """Give the verdict `state` to all addresses that lead to the lines from begin to before end."""
        heads = array("I", [state * 5]) * (end - begin)
        self.area[begin * WORDS : end * WORDS : WORDS] = heads

    def table(
        self, keys: array[int], cuts: list[int], buckets: Sequence[int], count: int, bits: int
    ) -> None:
        """Append a top table of `count` lines, or a part of one.

        keys[cut] is the first key of a bucket, `buckets` has the number of each; bits: the length of
        the keys' `low`. A key before the first bucket says what holds before it.
        """
        _Keys(self, keys).spread(self.reserve(count), cuts, buckets, count, bits)

    def write(self, keys: array[int], line: int, begin: int, end: int, bits: int) -> None:
        """Write keys[begin:end] to a line, or below it if they are too many.

        bits: the length of the keys' `low`.
        """
        writer = _Keys(self, keys)
        if end - begin <= KEYS:
            writer.leaf(line, begin, end)
        else:
            writer.fill(line, begin, end, bits)


class _Keys:
    """Writes the lines and tables that lead to these keys."""

    def __init__(self, lines: Lines, keys: array[int]) -> None:
        self._lines = lines
        self._area = lines.area
        self._keys = keys

    def fill(self, line: int, begin: int, end: int, bits: int) -> None:
        """Make a line lead to keys[begin:end], which differ only in their lowest `bits` bits."""
        width, cuts = table_width(self._keys, begin, end, bits)
        if not width:
            self._inner(line, begin, end, reach_of(end - begin))
            return
        first = self._lines.reserve(1 << width)
        below = bits - width
        mask = (1 << width) - 1
        self._area[line * WORDS] = first << 4 | TABLE
        self._area[line * WORDS + 1] = mask << 8 | below
        buckets = [self._keys[cut] >> below + 4 & mask for cut in cuts[:-1]]
        self.spread(first, cuts, buckets, 1 << width, below)

    def spread(
        self, first: int, cuts: list[int], buckets: Sequence[int], count: int, bits: int
    ) -> None:
        """Write a table's lines; keys[cut] is the first key of a bucket, `buckets` has its number."""
        area, keys = self._area, self._keys
        filled = 0  # lines below this one are written
        state = self._before(cuts[0])
        for bucket, (begin, end) in zip(buckets, pairwise(cuts)):
            if state and filled < bucket:
                self._lines.set_verdict(first + filled, first + bucket, state)
            filled = bucket + 1
            if end - begin <= KEYS:
                place = (first + bucket) * WORDS
                area[place] = state * 5
                area[place + 1 : place + 1 + end - begin] = keys[begin:end]
            else:
                self.fill(first + bucket, begin, end, bits)
            state = keys[end - 1] >> 2 & 3
        if state:
            self._lines.set_verdict(first + filled, first + count, state)

    def _before(self, begin: int) -> int:
        """Return the verdict that holds just before keys[begin]."""
        return self._keys[begin - 1] >> 2 & 3 if begin else 0

    def leaf(self, line: int, begin: int, end: int) -> None:
        """Write keys[begin:end] to a line; there are at most `KEYS`."""
        place = line * WORDS
        self._area[place] = self._before(begin) * 5
        self._area[place + 1 : place + 1 + end - begin] = self._keys[begin:end]

    def _inner(self, line: int, begin: int, end: int, reach: int) -> None:
        """Write a line that leads to up to 16 lines, of which each leads to `reach` keys, or the last to fewer."""
        begins = range(begin, end, reach)
        first = self._lines.reserve(len(begins))
        place = line * WORDS
        self._area[place] = first << 4 | INNER
        for number, start in enumerate(begins):
            if number:
                self._area[place + number] = self._keys[start] & ~15
            stop = min(start + reach, end)
            if reach == KEYS:
                self.leaf(first + number, start, stop)
            else:
                self._inner(first + number, start, stop, reach // _FAN_OUT)


def reach_of(count: int) -> int:
    """Return how many keys each line below an inner line leads to, if there are `count` in all."""
    reach = KEYS
    while reach * _FAN_OUT < count:
        reach *= _FAN_OUT
    return reach


def cuts_at(words: Sequence[int], begin: int, end: int, shift: int) -> list[int]:
    """Return the indexes at which the buckets of words[begin:end] begin, and then end itself.

    Words of one bucket have all bits from `shift` on in common.
    """
    first = (words[begin] >> shift) + 1
    buckets = (words[end - 1] >> shift) + 1 - first
    if buckets * _DENSE < end - begin:
        cuts = [begin]
        cut = begin
        for bucket in range(first, first + buckets):
            border = bucket << shift
            # Most borders are near; the memory there is still in the processor's cache.
            near = cut + _NEAR_WORDS
            if near > end or words[near - 1] < border:
                near = end
            cut = bisect_left(words, border, cut, near)
            if cut > cuts[-1]:
                cuts.append(cut)
        cuts.append(end)
        return cuts
    part = words if end - begin == len(words) else words[begin:end]
    cuts = [
        index
        for index, (former, word) in enumerate(pairwise(part), begin + 1)
        if (former ^ word) >> shift
    ]
    return [begin, *cuts, end]


def first_width(count: int, bits: int, min_width: int = 0) -> int:
    """Return the width of a table for `count` words that are spread evenly; at least min_width."""
    return max(min((count // _KEYS_PER_LINE).bit_length(), bits, _MAX_WIDTH), min_width)


def table_width(
    words: Sequence[int],
    begin: int,
    end: int,
    bits: int,
    min_width: int = 0,
    cheap_ratio: int = _CHEAP_RATIO,
) -> tuple[int, list[int]]:
    """Return the width of a table that suits words[begin:end], and where its buckets begin (`cuts_at`).

    At least a third of its lines is used, or it has `cheap_ratio` times fewer lines than words below it.
    Width 0 means that no table suits; with a min_width there is always a table.
    """
    count = end - begin
    width = first_width(count, bits, min_width)
    if width < _MIN_WIDTH and not min_width:
        return 0, []
    cuts = cuts_at(words, begin, end, bits - width + 4)
    while width > min_width and len(cuts) * 3 < 1 << width and cheap_ratio << width > count:
        width -= 1
        if width < _MIN_WIDTH and not min_width:
            return 0, []
        shift = bits - width + 4
        inner = [cut for cut in cuts[1:-1] if (words[cut - 1] ^ words[cut]) >> shift]
        cuts = [begin, *inner, end]
    return width, cuts
