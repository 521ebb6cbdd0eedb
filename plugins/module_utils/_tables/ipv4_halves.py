# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The top table of long IPv4 lists (docs/tables.md): two halves a line, each with up to 15 hosts.

The arrays are in this machine's byte order. Hosts with the XDP program are little-endian, as the format
requires (docs/tables.md).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from .area import WORDS
from .lanes import as_number, low_halves, places_of
from .lines import KEYS, Lines
from .ranges import ALLOW, DENY, NONE

HALF_BITS = 15
"""Bits of an address in a half's numbers, and in the keys of lines that halves lead to."""
HALVES = 32
"""Added to `header.v4_shift` if the lines of the top table are halves."""
LINKED = 1 << 31
"""Set in the second word of a half whose first word is the number of a line to go on with."""

_HALF_WORDS = WORDS // 2
_NUMBERS = WORDS
_SIZE = 2  # bytes of a number
_HALF_SIZE = _NUMBERS * _SIZE
_EMPTY = bytes(_HALF_SIZE)
_MAIN_RATIO = 32  # halves suit if at most one in so many starts has another verdict
_Span = tuple[int, int, int]


def main_verdict(pairs: bytes) -> int:
    """Return the verdict that nearly all starts share, as single hosts in unlisted space.

    NONE if there is no such verdict. pairs: `after << 2 | verdict` of each start word.
    """
    verdict = max((ALLOW, DENY), key=pairs.count)
    others = len(pairs) - pairs.count(verdict)
    return verdict if are_few(others, len(pairs)) else NONE


def are_few(others: int, starts: int) -> bool:
    """Return whether halves suit so many starts, of which `others` do not have the main verdict."""
    return others * _MAIN_RATIO <= starts


def build_halves(
    pairs: bytes,
    main: int,
    keys: array[int],
    cuts: list[int],
    buckets: Sequence[int],
    count: int,
    bits: int,
) -> Lines:
    """Return `count` halves of a top table, and the lines that they lead to.

    pairs, main: as in `main_verdict`. keys: of lines (lines.py), but always with `HALF_BITS`.
    keys[cut] is the first key of a half, `buckets` has the number of each half. bits: of an address,
    after those that number its half. A key before the first half says what holds before it.
    """
    data, linked, uniform = _place_hosts(pairs, main, keys, cuts, buckets, count)
    lines = Lines()
    lines.area.frombytes(data)
    del data  # frees memory before the lines are added
    for half, begin, end in linked:
        line = lines.reserve(1)
        _link(lines, half, half + 1, line)
        lines.write(keys, line, begin, end, bits)
    leaves = {verdict: _leaf(lines, verdict) for verdict in sorted({span[2] for span in uniform})}
    for begin, end, verdict in uniform:
        _link(lines, begin, end, leaves[verdict])
    return lines


class _Top(NamedTuple):
    """A top table of halves, before it has any lines below it."""

    data: bytearray
    """All halves; those in `linked` and `uniform` are empty."""
    linked: list[_Span]
    """(half, begin, end) of each half that cannot hold keys[begin:end]."""
    uniform: list[_Span]
    """(begin, end, verdict) of halves, from begin to before end, that lie within one range."""


def _place_hosts(
    pairs: bytes, main: int, keys: array[int], cuts: list[int], buckets: Sequence[int], count: int
) -> _Top:
    """Return a table of `count` halves with all hosts that fit; the other arguments: `build_halves`."""
    head = main.to_bytes(_SIZE, sys.byteorder)
    others = iter(places_of(1, pairs.translate(bytes(word != main for word in range(256)))))
    other = next(others, len(pairs))  # index of the next start that halves cannot hold
    lows = low_halves(as_number(keys) >> 4, len(keys), "H").tobytes()
    top = _Top(bytearray(), [], [])
    data = top.data
    filled = 0  # halves below this one are written
    state = keys[cuts[0] - 1] >> 2 & 3 if cuts[0] else NONE
    for half, (begin, end) in zip(buckets, pairwise(cuts)):
        if filled < half:
            data += bytes((half - filled) * _HALF_SIZE)
            if state:
                top.uniform.append((filled, half, state))
        filled = half + 1
        used = end - begin
        if state or used > KEYS or other < end:
            top.linked.append((half, begin, end))
            state = keys[end - 1] >> 2 & 3
            data += _EMPTY
            while other < end:
                other = next(others, len(pairs))
            continue
        hosts = lows[begin * _SIZE : end * _SIZE]
        data += head
        data += hosts
        # Unused numbers repeat the first one: zero would be an address.
        data += hosts[:_SIZE] * (KEYS - used)
    data += bytes((count - filled) * _HALF_SIZE)
    if state and filled < count:
        top.uniform.append((filled, count, state))
    return top


def _link(lines: Lines, begin: int, end: int, line: int) -> None:
    """Make the halves from begin to before end lead to a line."""
    for word, value in enumerate((line, LINKED)):
        lines.area[begin * _HALF_WORDS + word : end * _HALF_WORDS : _HALF_WORDS] = array(
            "I", [value]
        ) * (end - begin)


def _leaf(lines: Lines, state: int) -> int:
    """Append a line that gives all addresses the same verdict; return its number."""
    line = lines.reserve(1)
    lines.set_verdict(line, line + 1, state)
    return line


def half_of(main: int, lows: Sequence[int]) -> bytes:
    """Return a half with the hosts of these lowest bits, up to 15 in ascending order."""
    if not lows:
        return _EMPTY
    return array("H", [main, *lows, *[lows[0]] * (KEYS - len(lows))]).tobytes()


class Halves:
    """Reads a top table of halves; words: the area's, of 32 bits."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._numbers = words.cast("B").cast("H")

    def line_of(self, half: int) -> int | None:
        """Return the number of the line that a half leads to; None if it holds hosts itself."""
        line, flags = self._words[half * _HALF_WORDS : half * _HALF_WORDS + 2].tolist()
        return line if flags & LINKED else None

    def hosts_of(self, half: int) -> tuple[int, list[int]]:
        """Return the verdict of a half's hosts, and their lowest `HALF_BITS` bits, ascending."""
        place = half * _NUMBERS
        verdict, *lows = self._numbers[place : place + _NUMBERS].tolist()
        return verdict, list(dict.fromkeys(lows)) if verdict else []
