# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The top table of long IPv4 lists (docs/tables.md): two halves a line, each with up to 15 hosts.

All arrays are in this machine's order of bytes, which is that of the hosts that packets come to: little-endian.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import pairwise

from .area import WORDS
from .lanes import as_number, low_halves, places_of
from .lines import KEYS, Lines
from .ranges import ALLOW, DENY, NONE

HALF_BITS = 15
"""Bits of an address that a half's numbers hold, and the keys of lines behind halves."""
HALVES = 32
"""Added to the top table's shift if its lines are halves."""
LONG = 1 << 31
"""Set in the second word of a half whose first one is the number of a line."""

_HALF_WORDS = WORDS // 2
_NUMBERS = WORDS
_SIZE = 2  # bytes of a number
_HALF_SIZE = _NUMBERS * _SIZE
_EMPTY = bytes(_HALF_SIZE)
_FEW = 32  # one of so many
_Span = tuple[int, int, int]


def main_verdict(said: bytes) -> int:
    """Return the verdict of which nearly all starts are, as hosts amid nothing; NONE if there is no such one.

    said: the lowest four bits of each start word.
    """
    verdict = max((ALLOW, DENY), key=said.count)
    others = len(said) - said.count(verdict)
    return verdict if others * _FEW <= len(said) else NONE


def build_halves(
    said: bytes, main: int, keys: array[int], cuts: list[int], buckets: Sequence[int], bits: int
) -> Lines:
    """Return a table of halves, of which so many bits are left, and lines behind it, for starts.

    said, main: as above; keys: as lines have them, but always with `HALF_BITS`.
    """
    head = main.to_bytes(_SIZE, sys.byteorder)
    others = iter(places_of(1, said.translate(bytes(word != main for word in range(256)))))
    other = next(others, len(said))  # a half has no room for such ones
    lows = low_halves(as_number(keys) >> 4, len(keys), "H").tobytes()
    top = bytearray()
    long: list[_Span] = []
    whole: list[_Span] = []
    filled = 0
    state = NONE
    for half, (begin, end) in zip(buckets, pairwise(cuts)):
        if filled < half:
            top += bytes((half - filled) * _HALF_SIZE)
            if state:
                whole.append((filled, half, state))
        filled = half + 1
        used = end - begin
        if state or used > KEYS or other < end:
            long.append((half, begin, end))
            state = keys[end - 1] >> 2 & 3
            top += _EMPTY
            while other < end:
                other = next(others, len(said))
            continue
        hosts = lows[begin * _SIZE : end * _SIZE]
        top += head
        top += hosts
        # The first one again where there is none: as zero would be an address.
        top += hosts[:_SIZE] * (KEYS - used)
    top += bytes(((1 << 32 - bits) - filled) * _HALF_SIZE)
    if state and filled < 1 << 32 - bits:
        whole.append((filled, 1 << 32 - bits, state))

    lines = Lines()
    lines.area.frombytes(top)
    del top
    for half, begin, end in long:
        line = lines.reserve(1)
        lines.area[half * _HALF_WORDS : half * _HALF_WORDS + 2] = array("I", [line, LONG])
        lines.lead(keys, line, begin, end, bits)
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
