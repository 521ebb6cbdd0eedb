# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The IPv4 area of docs/tables.md: a top table, whose lines or halves hold the addresses' lower bits."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import NamedTuple

from .area import Area
from .ipv4_halves import HALF_BITS, HALVES, build_halves, main_verdict
from .lanes import as_bits, as_number, low_bytes, low_halves, places_of, repeated
from .lines import (
    MIN_TOP_WIDTH,
    Lines,
    cuts_at,
    table_width,
)
from .ranges import ALLOW, DENY, NONE

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
    shift = bits + 1 | HALVES if main else bits
    filters = _filter(every, pairs, shift & ~HALVES, NONE, top_lines(shift))
    lines = _lines(every, pairs, cuts, shift, main, top_lines(shift))
    return Area.of((lines,), (filters,)), shift, shape


def part4(
    words: Iterable[int], shift: int, main: int, top: range, before: int
) -> tuple[array[int], array[int]]:
    """Return some lines of a top table, followed by the lines below them, and the filter of the first.

    words: start words of the addresses that these lines (`top`) are for. before: the verdict before the
    first address. main: of the halves, if the lines are halves. Lines are numbered from the first one on.
    """
    begin = top.start << (shift & ~HALVES) + 4
    # The first start is not one of this part: it says what holds before the others.
    every = array("Q", [before << 2, *(word - begin for word in words)])
    pairs = low_bytes(every).translate(_PAIRS)
    bits = (shift & ~HALVES) - bool(shift & HALVES)
    cuts = cuts_at(every, 1, len(every), bits + 4) if len(every) > 1 else [1]
    filters = _filter(every[1:], pairs[1:], shift & ~HALVES, before, len(top))
    return _lines(every, bytes([main]) + pairs[1:], cuts, shift, main, len(top)), filters


def top_lines(shift: int) -> int:
    """Return the number of lines of a top table; shift: `header.v4_shift`."""
    return 1 << 32 - (shift & ~HALVES)


def _lines(
    words: array[int], pairs: bytes, cuts: list[int], shift: int, main: int, count: int
) -> array[int]:
    """Return `count` lines of a top table and those below; words[cut] is the first of a line or half."""
    halved = bool(shift & HALVES)
    bits = (shift & ~HALVES) - halved
    key_bits = HALF_BITS if halved else bits
    size = len(words)
    keys = low_halves(as_number(words) & repeated((1 << key_bits + 4) - 1, 8, size), size)
    buckets = [words[cut] >> bits + 4 for cut in cuts[:-1]]
    if halved:
        return build_halves(pairs, main, keys, cuts, buckets, 2 * count, bits).area
    lines = Lines()
    lines.table(keys, cuts, buckets, count, bits)
    return lines.area


def _filter(words: array[int], pairs: bytes, shift: int, before: int, count: int) -> array[int]:
    """Return the filter of `count` lines: a bit for each block of addresses, 1 if any of them is listed.

    pairs: `after << 2 | verdict` of each start word; 0 if nothing is listed from there on. before: the
    verdict before the first of them.
    """
    bits = shift - BLOCK_BITS
    end = count << shift
    marks = bytearray(count << BLOCK_BITS)
    blocks = low_halves(as_number(words) >> bits + 4, len(words))
    for block in compress(blocks, pairs) if NONE in pairs else blocks:
        marks[block] = 1
    if before:
        first = words[0] >> 4 if words else end
        more = first + (1 << bits) - 1 >> bits
        marks[:more] = b"\1" * more
    # Mark the blocks of each range after the one in which it begins.
    for place in places_of(1, pairs.translate(_LISTED_AFTER)):
        begin = blocks[place]
        last = (words[place + 1] >> 4 if place + 1 < len(words) else end) - 1
        more = (last >> bits) - begin
        if more:
            marks[begin + 1 : begin + 1 + more] = b"\1" * more
    return as_bits(marks)
