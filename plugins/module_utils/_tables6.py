# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The IPv6 area of docs/tables.md: tries of tables with leaves, over both halves of an address.

A *mark* is `after << 2 | verdict`, as in the start words of _ranges.
"""

from __future__ import annotations

from array import array
from itertools import pairwise

from ._errors import TooLarge

PAGE_WORDS = 1 << 13
"""64-bit words in a page of 64 KiB."""

LOWER = (1 << 64) - 1
"""Mask of an address's lower half."""
TABLE = 1 << 2
OFFSET = 26
PLACE = (1 << 32) - 1
"""Mask of a descriptor's offset, once it is shifted down."""
AFTER = 62
_LEVELS = 4
_MAX_WIDTH = 20
_MAX_LEAF = 4096
_MAX_WORDS = 1 << 32
_SMALL = 8  # keys of a leaf that needs no table above it
_CLUSTER = 512  # words up to which a leaf and those below it share a page at all costs
_ROOT_WIDTH = 12  # the root may always be that wide: half a page

_INFO = [mark & 3 | mark >> 2 << AFTER for mark in range(16)]


def _numbers() -> array[int]:
    return array("Q")


class _Half:
    """Starts in one half of the address: its 64-bit keys, ascending, and their marks."""

    def __init__(self) -> None:
        self.keys = _numbers()
        self.marks = bytearray()


class _Upper(_Half):
    """Starts by their upper half. A mark's verdict holds from the key's lower half 0 on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = _numbers()
        """For each key the index of its first start in the lower half; at the end, of the next one.

        A key without any has that verdict for its whole /64.
        """


def build6(words: list[int]) -> tuple[array[int], int]:
    """Return the area (unpadded) and the root descriptor for start words, as _ranges has them.

    Raises TooLarge when offsets do not fit into their field of 32 bits.
    """
    upper, lower = _split(words)
    builder = _Builder(upper, lower)
    root = builder.node(upper, 0, len(upper.keys), 0, 0, _LEVELS)
    if len(builder.area) > _MAX_WORDS:
        raise TooLarge(
            "the IPv6 lists need more than 32 GiB of tables: use shorter lists or larger prefixes"
        )
    return builder.area, root


def _split(words: list[int]) -> tuple[_Upper, _Half]:
    """Return the starts by their upper halves, and all starts in lower halves one after another."""
    upper = _Upper()
    lower = _Half()
    keys, marks, first = upper.keys, upper.marks, upper.first
    low_keys, low_marks = lower.keys, lower.marks
    state = 0
    key = -1
    for word in words:
        mark = word & 15
        if word >> 68 != key:
            if keys and first[-1] == len(low_keys):
                _merge_last(upper)
            key = word >> 68
            keys.append(key)
            first.append(len(low_keys))
            low = word >> 4 & LOWER
            if low or mark & 3 != mark >> 2:
                low_keys.append(low)
                low_marks.append(mark)
                marks.append(mark & 12 | state)
            else:
                marks.append(mark)
        else:
            low_keys.append(word >> 4 & LOWER)
            low_marks.append(mark)
            marks[-1] = marks[-1] & 3 | mark & 12
        state = mark >> 2
    if first[-1] == len(low_keys):
        _merge_last(upper)
    first.append(len(low_keys))
    return upper, lower


def _merge_last(upper: _Upper) -> None:
    """Let the last key but one tell what holds from the last one on, if that follows at once."""
    if len(upper.keys) > 1 and upper.keys[-1] - upper.keys[-2] == 1:
        upper.marks[-2] = upper.marks[-2] & 3 | upper.marks[-1] & 12
        upper.keys.pop()
        upper.marks.pop()
        upper.first.pop()


def _width(keys: array[int], begin: int, end: int, rest: int, levels: int, generous: bool) -> int:
    """Return the width of the table for these keys; 0: a leaf suits them better.

    Rest is how many bits the tables above have left, levels how many tables may still come. A table
    has about as many words as keys below it, or up to four times as many if generous.
    """
    count = end - begin
    split = (count - 1).bit_length()
    common = rest - (keys[begin] ^ keys[end - 1]).bit_length()
    needed = min(common + split - 1, rest)  # two keys a bucket
    limit = min(max(split + 2, _ROOT_WIDTH) if generous else split, _MAX_WIDTH)
    if common + split // 2 <= limit:
        width = min(needed, limit)
    else:  # tables that split nothing yet lead to where the keys differ
        tables = -(-needed // limit)
        if tables > levels and count <= _MAX_LEAF:
            return 0
        width = min(-(-needed // min(tables, levels)), limit)
    if count <= _MAX_LEAF:
        return width
    # What tables of 16 bits below cannot reach, this one must. Then a leaf never has more than
    # 4,096 keys (12 bits), however the keys lie.
    return max(width, rest - 12 - 16 * (levels - 1))


class _Builder:
    """Writes tables and leaves, in the order of their keys, into the area."""

    def __init__(self, upper: _Upper, lower: _Half) -> None:
        self.area = array("Q")
        self._upper = upper
        self._lower = lower

    def node(
        self, half: _Half, begin: int, end: int, state: int, consumed: int, levels: int
    ) -> int:
        """Write what half.keys[begin:end] need; state holds before them. Return the descriptor."""
        width = 0
        if end - begin > _SMALL and levels:
            generous = half is self._upper and not consumed
            width = _width(half.keys, begin, end, 64 - consumed, levels, generous)
        if width:
            return self._table(half, begin, end, state, consumed, levels, width)
        if half is self._lower:
            return self._lower_leaf(begin, end) | state
        return self._upper_leaf(begin, end) | state

    def _table(
        self, half: _Half, begin: int, end: int, state: int, consumed: int, levels: int, width: int
    ) -> int:
        """Write a table and everything below it."""
        area, keys, marks = self.area, half.keys, half.marks
        base = len(area)
        size = 1 << width
        area.frombytes(bytes(8 * size))
        shift = 64 - consumed - width
        descriptor = base << OFFSET | width << 4 | TABLE | state
        cuts = [
            index
            for index, (former, key) in enumerate(pairwise(keys[begin:end]), begin + 1)
            if (former ^ key) >> shift
        ]
        filled = 0  # the first bucket whose descriptor is not written
        for cut in (*cuts, end):
            key = keys[begin]
            bucket = key >> shift & (size - 1)
            if state and filled < bucket:
                self._fill(base + filled, base + bucket, state)
            filled = bucket + 1
            if not key & ((1 << shift) - 1) and self._is_plain(half, begin):
                state = marks[begin] & 3  # the descriptor's verdict says it already
                begin += 1
            if begin < cut:
                below = self.node(half, begin, cut, state, consumed + width, levels - 1)
                area[base + bucket] = below
                state = marks[cut - 1] >> 2
                begin = cut
            else:
                area[base + bucket] = state
        if state:
            self._fill(base + filled, base + size, state)
        return descriptor

    def _fill(self, begin: int, end: int, state: int) -> None:
        self.area[begin:end] = array("Q", (state,)) * (end - begin)

    def _is_plain(self, half: _Half, index: int) -> bool:
        """Return whether a key's verdict holds on behind it, its lower half having no starts."""
        if half.marks[index] & 3 != half.marks[index] >> 2:
            return False
        first = self._upper.first
        return half is self._lower or first[index] == first[index + 1]

    def _reserve(self, words: int) -> int:
        """Return the place for that many words on one page, which is the area's end."""
        place = len(self.area)
        free = -place % PAGE_WORDS
        if 0 < free < words:
            self.area.frombytes(bytes(8 * free))
            place += free
        return place

    def _lower_leaf(self, begin: int, end: int) -> int:
        """Write a leaf of starts in the lower half; return its descriptor with verdict 0."""
        place = self._reserve(2 * (end - begin))
        self.area.extend(self._lower.keys[begin:end])
        self.area.extend([_INFO[mark] for mark in self._lower.marks[begin:end]])
        return place << OFFSET | end - begin << 10

    def _upper_leaf(self, begin: int, end: int) -> int:
        """Write a leaf of starts in the upper half, and behind it what its keys lead to."""
        area, first, marks = self.area, self._upper.first, self._upper.marks
        count = end - begin
        cluster = 2 * (count + first[end] - first[begin])
        if cluster <= _CLUSTER:
            return self._cluster(begin, end, self._reserve(cluster))
        place = self._reserve(2 * count)
        area.extend(self._upper.keys[begin:end])
        area.extend([_INFO[mark] for mark in marks[begin:end]])
        for index, info in enumerate(range(place + count, place + 2 * count), begin):
            low, high = first[index], first[index + 1]
            if low < high:
                area[info] |= self.node(self._lower, low, high, marks[index] & 3, 0, _LEVELS)
        return place << OFFSET | count << 10

    def _cluster(self, begin: int, end: int, place: int) -> int:
        """Write a leaf of the upper half and, right behind it, one for each key that needs it."""
        first, marks = self._upper.first, self._upper.marks
        keys, low_marks = self._lower.keys, self._lower.marks
        infos: list[int] = []
        below: list[int] = []
        free = place + 2 * (end - begin)
        low = first[begin]
        for index in range(begin, end):
            high = first[index + 1]
            info = _INFO[marks[index]]
            if high - low == 1:
                info |= free << OFFSET | 1 << 10
                below += keys[low], _INFO[low_marks[low]]
                free += 2
            elif low < high:
                info |= free << OFFSET | high - low << 10
                below += keys[low:high]
                below += [_INFO[mark] for mark in low_marks[low:high]]
                free += 2 * (high - low)
            infos.append(info)
            low = high
        self.area.fromlist([*self._upper.keys[begin:end], *infos, *below])
        return place << OFFSET | end - begin << 10
