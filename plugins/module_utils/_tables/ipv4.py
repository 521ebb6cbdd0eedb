# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The IPv4 area of docs/tables.md: a top table, whose lines or halves hold what is left of the addresses."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import compress

from .area import Area
from .ipv4_halves import HALF_BITS, HALVES, build_halves, main_verdict
from .lanes import as_bits, as_number, low_bytes, low_halves, places_of, repeated
from .lines import LEAST_TOP, Lines, cuts_at, table_width
from .ranges import LAST4, NONE

BLOCK_BITS = 6
"""Bits of an address, behind its top line's number, that say which bit of the filter tells of it."""
_SAID = bytes(word & 15 for word in range(256))
_GOES_ON = bytes(word >> 2 & 3 != 0 for word in range(256))


def build4(words: Sequence[int]) -> tuple[Area, int]:
    """Return the area and the top table's shift for start words, as _ranges has them."""
    width, cuts = table_width(words, 0, len(words), 32, LEAST_TOP)
    bits = 32 - width
    every = array("Q", words)
    count = len(every)
    said = low_bytes(every).translate(_SAID)
    main = main_verdict(said) if bits <= HALF_BITS + 1 else NONE
    if main and bits > HALF_BITS:
        bits = HALF_BITS
        cuts = cuts_at(words, 0, count, bits + 4)
    shift = bits + 1 if main else bits
    filters = _filter(every, said, shift - BLOCK_BITS)
    key_bits = HALF_BITS if main else bits
    keys = low_halves(as_number(every) & repeated((1 << key_bits + 4) - 1, 8, count), count)
    buckets = [words[cut] >> bits + 4 for cut in cuts[:-1]]
    if main:
        lines = build_halves(said, main, keys, cuts, buckets, bits)
        return Area.of(lines.area, filters), shift | HALVES
    lines = Lines()
    lines.table(keys, cuts, buckets, width, bits)
    return Area.of(lines.area, filters), shift


def _filter(words: array[int], said: bytes, shift: int) -> array[int]:
    """Return a bit for each block of 2^shift addresses: whether anything in it is listed.

    said: the lowest four bits of each start word; 0 if nothing is listed from there on.
    """
    marks = bytearray(1 << 32 - shift)
    blocks = low_halves(as_number(words) >> shift + 4, len(words))
    for block in compress(blocks, said) if NONE in said else blocks:
        marks[block] = 1
    # What a range has behind the block that it begins in.
    for place in places_of(1, said.translate(_GOES_ON)):
        begin = blocks[place]
        last = (words[place + 1] >> 4) - 1 if place + 1 < len(words) else LAST4
        behind = (last >> shift) - begin
        if behind:
            marks[begin + 1 : begin + 1 + behind] = b"\1" * behind
    return as_bits(marks)
