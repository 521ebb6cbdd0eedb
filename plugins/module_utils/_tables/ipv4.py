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

from .area import Area
from .ipv4_halves import HALF_BITS, HALVES, build_halves, main_verdict
from .lanes import as_bits, as_number, low_bytes, low_halves, places_of, repeated
from .lines import (
    MIN_TOP_WIDTH,
    Lines,
    cuts_at,
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
