# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The top table of long IPv4 lists (docs/tables.md): two halves a line, each with up to 15 hosts.

All arrays are in the order of bytes of the hosts that packets come to, which is little-endian.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise

from ._area import WORDS
from ._lanes import as_number, low_halves
from ._lines import KEYS, Lines
from ._ranges import ALLOW, DENY, NONE

HALF_BITS = 15
"""Bits of an address that a half's numbers hold, and the keys of lines behind halves."""
HALVES = 32
"""Added to the top table's shift if its lines are halves."""
LONG = 1 << 31
"""Set in the second word of a half whose first one is the number of a line."""

_HALF_WORDS = WORDS // 2
_NUMBERS = WORDS
_FEW = 32  # one of so many
_Span = tuple[int, int, int]


def suits(said: bytes) -> bool:
    """Whether nearly all starts are hosts of one verdict amid nothing: a half has no room for others.

    said: the lowest four bits of each start word.
    """
    others = len(said) - max(said.count(ALLOW), said.count(DENY))
    return others * _FEW <= len(said)


def build_halves(
    said: bytes, keys: array[int], cuts: list[int], buckets: Sequence[int], bits: int
) -> Lines:
    """Return a table of halves, of which so many bits are left, and lines behind it, for starts.

    said: as above; keys: as lines have them, with `HALF_BITS`.
    """
    lows = low_halves(as_number(keys) >> 4, len(keys), "H")
    top = array("H", bytes(_NUMBERS * lows.itemsize << 32 - bits))
    long: list[_Span] = []
    whole: list[_Span] = []
    filled = 0
    state = NONE
    for half, (begin, end) in zip(buckets, pairwise(cuts)):
        if state and filled < half:
            whole.append((filled, half, state))
        filled = half + 1
        verdict = said[begin]
        used = end - begin
        if state or used > KEYS or said.count(verdict, begin, end) < used or not 0 < verdict < 3:
            long.append((half, begin, end))
            state = keys[end - 1] >> 2 & 3
            continue
        place = half * _NUMBERS
        top[place] = verdict
        # The first one again where there is none: as zero would be an address.
        top[place + 1 : place + _NUMBERS] = lows[begin:end] + lows[begin : begin + 1] * (
            KEYS - used
        )
    if state and filled < 1 << 32 - bits:
        whole.append((filled, 1 << 32 - bits, state))

    lines = Lines()
    lines.area.frombytes(memoryview(top).cast("B"))
    del top
    for half, begin, end in long:
        line = lines.reserve(1)
        lines.area[half * _HALF_WORDS : half * _HALF_WORDS + 2] = array("I", [line, LONG])
        lines.lead(keys, line, begin, end, HALF_BITS)
    shared = {state: _leaf(lines, state) for state in sorted({span[2] for span in whole})}
    for begin, end, state in whole:
        for word, value in enumerate((shared[state], LONG)):
            lines.area[begin * _HALF_WORDS + word : end * _HALF_WORDS : _HALF_WORDS] = array(
                "I", [value]
            ) * (end - begin)
    return lines


def _leaf(lines: Lines, state: int) -> int:
    """A line that says the same of all addresses."""
    line = lines.reserve(1)
    lines.say(line, line + 1, state)
    return line


class Halves:
    """Reads the top table of an area, whose words of 32 bits these are."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._numbers = words.cast("B").cast("H")

    def line_of(self, half: int) -> int | None:
        """The line that a half leads to, if it holds no hosts itself."""
        line, is_long = self._words[half * _HALF_WORDS : half * _HALF_WORDS + 2].tolist()
        return line if is_long & LONG else None

    def hosts_of(self, half: int) -> tuple[int, list[int]]:
        """What a half says of addresses, and the lowest bits of these, ascending."""
        place = half * _NUMBERS
        verdict, *lows = self._numbers[place : place + _NUMBERS].tolist()
        return verdict, list(dict.fromkeys(lows)) if verdict else []
