# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The IPv4 area of docs/tables.md: a top table, whose lines or halves hold the addresses' lower bits."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

from .area import WORDS, Area
from .ipv4_halves import HALF_BITS, HALVES, Halves, are_few, build_halves, half_of, main_verdict
from .lanes import as_bits, as_number, low_bytes, low_halves, places_of, repeated
from .lines import (
    INNER,
    KEYS,
    MIN_TOP_WIDTH,
    NO_KEY,
    TABLE,
    Lines,
    cuts_at,
    first_width,
    table_width,
)
from .ranges import ALLOW, DENY, LAST4, NONE

BLOCK_BITS = 6
"""After the bits of an address that select its top line, so many select its bit in the line's filter."""
# Translation tables for bytes: one byte of a start word → `after << 2 | verdict`; that → 0 or 1.
_PAIRS = bytes(word & 15 for word in range(256))
_LISTED_AFTER = bytes(word >> 2 & 3 != 0 for word in range(256))


class Shape(NamedTuple):
    """What decides the layout of an area, beside the places of its starts.

    starts: their number. others: how many of them are not isolated hosts of the most frequent verdict,
    `main`. used: at least so many lines of the top table have starts.
    """

    starts: int = 0
    others: int = 0
    main: int = NONE
    used: int = 0


def build4(words: Sequence[int]) -> tuple[Area, int, Shape]:
    """Return the area, `header.v4_shift` (docs/tables.md) and the shape for start words (see ranges.py)."""
    width, cuts = table_width(words, 0, len(words), 32, MIN_TOP_WIDTH)
    bits = 32 - width
    every = array("Q", words)
    count = len(every)
    pairs = low_bytes(every).translate(_PAIRS)
    most = max((ALLOW, DENY), key=pairs.count)
    shape = Shape(count, count - pairs.count(most), most, len(cuts) - 1)
    main = main_verdict(pairs) if bits <= HALF_BITS + 1 else NONE
    if main and bits > HALF_BITS:
        bits = HALF_BITS
        cuts = cuts_at(words, 0, count, bits + 4)
    shift = bits + 1 if main else bits
    filters = _filter(every, pairs, shift - BLOCK_BITS)
    key_bits = HALF_BITS if main else bits
    keys = low_halves(as_number(every) & repeated((1 << key_bits + 4) - 1, 8, count), count)
    buckets = [words[cut] >> bits + 4 for cut in cuts[:-1]]
    if main:
        lines = build_halves(pairs, main, keys, cuts, buckets, bits)
        return Area.of(lines.area, filters), shift | HALVES, shape
    lines = Lines()
    lines.table(keys, cuts, buckets, width, bits)
    return Area.of(lines.area, filters), shift, shape


def _filter(words: array[int], pairs: bytes, shift: int) -> array[int]:
    """Return a bitmap with a bit for each block of 2^shift addresses: 1 if any of them is listed.

    pairs: `after << 2 | verdict` of each start word; 0 if nothing is listed from there on.
    """
    marks = bytearray(1 << 32 - shift)
    blocks = low_halves(as_number(words) >> shift + 4, len(words))
    for block in compress(blocks, pairs) if NONE in pairs else blocks:
        marks[block] = 1
    # Mark the blocks of each range after the one in which it begins.
    for place in places_of(1, pairs.translate(_LISTED_AFTER)):
        begin = blocks[place]
        last = (words[place + 1] >> 4) - 1 if place + 1 < len(words) else LAST4
        more = (last >> shift) - begin
        if more:
            marks[begin + 1 : begin + 1 + more] = b"\1" * more
    return as_bits(marks)


class Editor:
    """Changes the verdicts of isolated hosts in an area, so that `build4` would have made the same area.

    A host is isolated if both neighbours are not listed, before and after the change. shape: of the area.
    """

    def __init__(self, area: Area, shift: int, shape: Shape) -> None:
        self.shape = shape
        self._lines = bytearray(area.lines)
        self._filter = bytearray(area.filter)
        self._halved = bool(shift & HALVES)
        self._shift = shift & ~HALVES

    @property
    def area(self) -> Area:
        return Area(bytes(self._lines), bytes(self._filter))

    def put(self, address: int, former: int, verdict: int) -> bool:
        """Change a host's verdict; False if that changes the layout, so that all must be built anew."""
        starts, others, main, used = self.shape
        more = (verdict != NONE) - (former != NONE)
        odd = (verdict not in (NONE, main)) - (former not in (NONE, main))
        shape = Shape(starts + more, others + odd, main, used)
        if not (self._fits(self.shape) and self._fits(shape)):
            return False
        half = self._half_of(address)
        put = self._put_key if half is None else self._put_low
        if not put(address, verdict):
            return False
        self.shape = shape._replace(used=self.shape.used)
        self._mark(address)
        return True

    def _may_empty(self) -> bool:
        """Whether one line of the top table less has starts, and the layout stays; counts it if so."""
        width = 32 - (self._shift - 1 if self._halved else self._shift)
        used = self.shape.used - 1
        # As in `table_width`, whose cuts are one more than the lines.
        if used < 1 or (width > MIN_TOP_WIDTH and (used + 1) * 3 < 1 << width):
            return False
        self.shape = self.shape._replace(used=used)
        return True

    def _fits(self, shape: Shape) -> bool:
        """Whether `build4` would choose this layout, for starts that use at least a third of the lines."""
        bits = 32 - first_width(shape.starts, 32, MIN_TOP_WIDTH)
        if not self._halved:
            many = bits <= HALF_BITS + 1 and are_few(shape.others, shape.starts)
            return bits == self._shift and not many
        # If the lines are crowded, the table is one bit narrower; two bits would be no halves.
        is_chosen = bits <= HALF_BITS + 1 and min(bits, HALF_BITS) == self._shift - 1
        return is_chosen and are_few(shape.others, shape.starts)

    @property
    def _words(self) -> memoryview:
        return memoryview(self._lines).cast("I")

    def _half_of(self, address: int) -> int | None:
        """The half that holds an address's hosts itself; None if a line has their keys."""
        if not self._halved:
            return None
        half = address >> self._shift - 1
        return half if Halves(self._words).line_of(half) is None else None

    def _line_of(self, address: int) -> tuple[int, int]:
        """The line with an address's keys, as the place of its first word, and how many bits they have."""
        if not self._halved:
            return (address >> self._shift) * WORDS, self._shift
        line = Halves(self._words).line_of(address >> self._shift - 1)
        return (line or 0) * WORDS, HALF_BITS

    def _put_low(self, address: int, verdict: int) -> bool:
        """Add or remove a host in a half."""
        half = address >> self._shift - 1
        lows = set(Halves(self._words).hosts_of(half)[1])
        lows ^= {address & (1 << HALF_BITS) - 1}
        if verdict not in (NONE, self.shape.main) or len(lows) > KEYS:
            return False
        if not lows and not self._may_empty():
            return False
        data = half_of(self.shape.main, sorted(lows))
        self._lines[half * len(data) : (half + 1) * len(data)] = data
        return True

    def _put_key(self, address: int, verdict: int) -> bool:
        """Add, remove or change a host in a line."""
        place, bits = self._line_of(address)
        words = self._words
        if words[place] & 7 in (INNER, TABLE):
            return False
        low = address & (1 << bits) - 1
        keys = [key for key in words[place + 1 : place + WORDS] if key < NO_KEY and key >> 4 != low]
        keys = sorted([*keys, low << 4 | verdict]) if verdict else keys
        is_half = self._halved and all(key & 15 == self.shape.main for key in keys)
        if len(keys) > KEYS or is_half or not (keys or self._may_empty()):
            return False
        words[place + 1 : place + WORDS] = memoryview(
            array("I", keys + [NO_KEY] * (KEYS - len(keys)))
        )
        return True

    def _mark(self, address: int) -> None:
        """Set or clear the filter's bit for the block of an address."""
        bits = self._shift - BLOCK_BITS
        begin = address >> bits << bits
        filters = memoryview(self._filter).cast("Q")
        line, bit = address >> self._shift, 1 << (address >> bits & (1 << BLOCK_BITS) - 1)
        is_listed = self._is_listed(begin, begin + (1 << bits) - 1)
        filters[line] = filters[line] | bit if is_listed else filters[line] & ~bit

    def _is_listed(self, first: int, last: int) -> bool:
        """Whether an address from first to last is listed; all of them belong to one line or half."""
        half = self._half_of(first)
        if half is not None:
            mask = (1 << HALF_BITS) - 1
            lows = Halves(self._words).hosts_of(half)[1]
            return any(first & mask <= low <= last & mask for low in lows)
        words = self._words
        place, bits = self._line_of(first)
        mask = (1 << bits) - 1
        state = words[place] & 3
        for key in words[place + 1 : place + WORDS]:
            if key >= NO_KEY or key >> 4 > last & mask:
                break
            if key >> 4 < first & mask:
                state = key >> 2 & 3
            elif key & 15 or (state and key >> 4 > first & mask):
                return True
            else:
                state = NONE
        return state != NONE
