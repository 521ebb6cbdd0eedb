# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The IPv6 area of docs/tables.md: tables below tables, until a line has up to four starts."""

from __future__ import annotations

from array import array
from itertools import pairwise

from ._lines import TABLE, WORDS, Lines, table_width

BITS = 128
TOP = 10
"""Bits of an address that are in no record, as the first table has decided them."""
WIDE = 1
"""Lowest bits of a record, by which its line is known."""
LOW_BITS = 55
"""Bits of an address in the second half of a record, above its flags."""
FLAG_BITS = 9

_RECORDS = 4
_RECORD_WORDS = WORDS // _RECORDS
_CROWD = 3
_CHEAP = 16
_NARROWEST = 3  # so that 40 tables reach the last bit, whatever the addresses
_MOST_SKIPPED = 63
_HIGH_MASK = (1 << 63) - 1
_LOW_MASK = (1 << 64) - (1 << FLAG_BITS)
_FLAGS = [
    WIDE | before << 3 | (mark & 3) << 5 | mark >> 2 << 7
    for mark in range(16)
    for before in range(4)
]
"""Low bits of a record, by `mark << 2 | before`."""


def build6(words: list[int]) -> array[int]:
    """Return the area (unpadded) for start words, as _ranges has them. Lookups begin with line 0."""
    builder = _Builder(words)
    builder.below(builder.lines.reserve(1), 0, len(words), 0, 0)
    return builder.lines.area


class _Builder:
    """Writes lines, in the order of the words."""

    def __init__(self, words: list[int]) -> None:
        self.lines = Lines()
        self._words = words
        self._records = _records(words)

    def table(self, first: int, cuts: list[int], state: int, at: int, width: int) -> None:
        """Fill a table's lines, by so many bits behind the first ones (at).

        words[cut] is the first one of its bucket; state holds before the table.
        """
        area, words, records = self.lines.area, self._words, self._records
        shift = BITS - at - width + 4
        mask = (1 << width) - 1
        filled = 0  # the first line that is not written
        for begin, end in pairwise(cuts):
            bucket = words[begin] >> shift & mask
            if state and filled < bucket:
                self.lines.say(first + filled, first + bucket, state)
            filled = bucket + 1
            count = end - begin
            if count <= _RECORDS:
                last = end * _RECORD_WORDS
                own = records[begin * _RECORD_WORDS : last]
                if count < _RECORDS:
                    own += records[last - _RECORD_WORDS : last] * (_RECORDS - count)
                place = (first + bucket) * WORDS
                area[place : place + WORDS] = own
            else:
                self.below(first + bucket, begin, end, state, at + width)
            state = words[end - 1] >> 2 & 3
        if state:
            self.lines.say(first + filled, first + (1 << width), state)

    def below(self, line: int, begin: int, end: int, state: int, at: int) -> None:
        """Let a line lead to a table of words[begin:end], whose first bits (at) are equal."""
        words = self._words
        one, other = words[begin], words[end - 1]
        skipped = min(BITS + 4 - at - (one ^ other).bit_length(), _MOST_SKIPPED)
        left = BITS - at - skipped
        least = min(max(_NARROWEST, TOP - at - skipped), left)
        width, cuts = table_width(words, begin, end, left, least, _CROWD, _CHEAP)
        first = self.lines.reserve(1 << width)
        area = self.lines.area
        place = line * WORDS
        after = other >> 2 & 3
        prefix = one >> left + 4 & (1 << skipped) - 1
        area[place] = first << 4 | TABLE
        area[place + 1] = width | skipped << 8 | state << 16 | after << 18
        area[place + 2 : place + 4] = array("I", array("Q", [prefix]).tobytes())
        self.table(first, cuts, state, at + skipped, width)


def _records(words: list[int]) -> array[int]:
    """Return a record for each start, as little words."""
    marks = [word & 15 for word in words]
    befores = [0, *[mark >> 2 for mark in marks]]
    pairs = array("Q", bytes(16 * len(words)))
    pairs[0::2] = array(
        "Q",
        [
            word << FLAG_BITS - 4 & _LOW_MASK | _FLAGS[mark << 2 | before]
            for word, mark, before in zip(words, marks, befores)
        ],
    )
    pairs[1::2] = array("Q", [word >> LOW_BITS + 4 & _HIGH_MASK for word in words])
    return array("I", pairs.tobytes())
