# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The lines of docs/tables.md: nodes of 64 bytes, as large as what a processor fetches at once.

A *key* is `low << 4 | after << 2 | verdict`, as the start words of _ranges are, with at most `LOW` bits
in low.
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
LEAST_TOP = 32 - LOW
"""Width of the narrowest top table, which leaves that much of an IPv4 address."""
NO_KEY = 1 << LOW + 4
"""What stands where there is no key: above all of them."""
INNER = 3
TABLE = 7

_EMPTY = array("I", [0, *[NO_KEY] * KEYS])
_FAN = 16
_DENSE = 5  # words a bucket from which on searching is faster than looking at each
_NEAR = 32
_CROWD = 9  # keys a line on average, at most
_LEAST_WIDTH = 5  # a narrower table does no more than an inner line
_MOST_WIDTH = 22
_CHEAP = 128  # a table that much smaller than what lies below it may be as empty as it likes


class Lines:
    """An area that is being written."""

    def __init__(self) -> None:
        self.area = array("I")

    def reserve(self, count: int) -> int:
        """Append so many lines without keys; return the first one's number."""
        first = len(self.area) // WORDS
        check_lines(first + count)
        self.area += _EMPTY * count
        return first

    def say(self, begin: int, end: int, state: int) -> None:
        """Let a verdict hold wherever these lines are reached."""
        heads = array("I", [state * 5]) * (end - begin)
        self.area[begin * WORDS : end * WORDS : WORDS] = heads

    def table(
        self, keys: array[int], cuts: list[int], buckets: Sequence[int], width: int, bits: int
    ) -> None:
        """Append a top table, whose buckets begin with keys[cut]; bits: how many the keys have."""
        _Keys(self, keys).spread(self.reserve(1 << width), cuts, buckets, width, bits)

    def lead(self, keys: array[int], line: int, begin: int, end: int, bits: int) -> None:
        """Let a line hold keys[begin:end], which have so many bits, or lead to them."""
        writer = _Keys(self, keys)
        if end - begin <= KEYS:
            writer.leaf(line, begin, end)
        else:
            writer.fill(line, begin, end, bits)


class _Keys:
    """Writes what leads to keys."""

    def __init__(self, lines: Lines, keys: array[int]) -> None:
        self._lines = lines
        self._area = lines.area
        self._keys = keys

    def fill(self, line: int, begin: int, end: int, bits: int) -> None:
        """Let a line lead to keys[begin:end], which differ in their lowest bits only."""
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
        self.spread(first, cuts, buckets, width, below)

    def spread(
        self, first: int, cuts: list[int], buckets: Sequence[int], width: int, bits: int
    ) -> None:
        """Fill the lines of a table; keys[cut] is the first one of its bucket."""
        area, keys = self._area, self._keys
        filled = 0  # the first line that is not written
        state = self._before(cuts[0])
        for bucket, (begin, end) in zip(buckets, pairwise(cuts)):
            if state and filled < bucket:
                self._lines.say(first + filled, first + bucket, state)
            filled = bucket + 1
            if end - begin <= KEYS:
                place = (first + bucket) * WORDS
                area[place] = state * 5
                area[place + 1 : place + 1 + end - begin] = keys[begin:end]
            else:
                self.fill(first + bucket, begin, end, bits)
            state = keys[end - 1] >> 2 & 3
        if state:
            self._lines.say(first + filled, first + (1 << width), state)

    def _before(self, begin: int) -> int:
        """What holds before keys[begin]."""
        return self._keys[begin - 1] >> 2 & 3 if begin else 0

    def leaf(self, line: int, begin: int, end: int) -> None:
        """Let a line hold keys[begin:end], which are as many as it can at most."""
        place = line * WORDS
        self._area[place] = self._before(begin) * 5
        self._area[place + 1 : place + 1 + end - begin] = self._keys[begin:end]

    def _inner(self, line: int, begin: int, end: int, reach: int) -> None:
        """A line that leads to up to 16 others; each but the last one to so many keys."""
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
                self._inner(first + number, start, stop, reach // _FAN)


def reach_of(count: int) -> int:
    """Keys that each line below an inner line must lead to, so that it leads to so many."""
    reach = KEYS
    while reach * _FAN < count:
        reach *= _FAN
    return reach


def cuts_at(words: Sequence[int], begin: int, end: int, shift: int) -> list[int]:
    """Return where in words[begin:end] another bucket begins, and at last the end."""
    first = (words[begin] >> shift) + 1
    buckets = (words[end - 1] >> shift) + 1 - first
    if buckets * _DENSE < end - begin:
        cuts = [begin]
        cut = begin
        for bucket in range(first, first + buckets):
            border = bucket << shift
            # Most are near, where memory has been looked at just now.
            near = cut + _NEAR
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


def table_width(
    words: Sequence[int],
    begin: int,
    end: int,
    bits: int,
    least: int = 0,
    cheap: int = _CHEAP,
) -> tuple[int, list[int]]:
    """Return the width of a table that suits words[begin:end], and where its buckets begin.

    A third of its lines is used, or it is cheap: so many times smaller than what lies below it. Width 0:
    none suits; not if there is a least width.
    """
    count = end - begin
    width = max(min((count // _CROWD).bit_length(), bits, _MOST_WIDTH), least)
    if width < _LEAST_WIDTH and not least:
        return 0, []
    cuts = cuts_at(words, begin, end, bits - width + 4)
    while width > least and len(cuts) * 3 < 1 << width and cheap << width > count:
        width -= 1
        if width < _LEAST_WIDTH and not least:
            return 0, []
        shift = bits - width + 4
        inner = [cut for cut in cuts[1:-1] if (words[cut - 1] ^ words[cut]) >> shift]
        cuts = [begin, *inner, end]
    return width, cuts
