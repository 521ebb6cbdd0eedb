# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The IPv6 area of docs/tables.md: a walk for the next 26 bits, and more where they do not decide.

A *block* is all addresses that a walk cannot tell from each other: those that are equal up to the end
of its chunk.
"""

from __future__ import annotations

from array import array
from itertools import pairwise

from ._errors import TooLarge
from ._lines import CHUNK, LEAST_TOP, Lines, cuts_at, table_width

BITS = 128
BRANCH = 1
PRESENT = 1 << 7
STEPS = 48
"""Lines that a lookup visits at most."""

_LONG = (1 << 64) - 1
_CHUNK_MASK = (1 << CHUNK) - 1
_TABLES = 5  # at most below each other in one walk, as each decides 5 of 26 bits
_PLAIN = (0, 5, 10)  # marks of starts behind which the same holds as at them
_FLAGS = [
    PRESENT | before << 1 | (mark & 3) << 3 | mark >> 2 << 5
    for mark in range(16)
    for before in range(4)
]
"""Low bits of a record for one start, by `mark << 2 | before`."""


def build6(words: list[int]) -> tuple[array[int], int]:
    """Return the area (unpadded) and the top table's width for start words, as _ranges has them."""
    width = _top_width(words)
    lines = Lines()
    first = lines.reserve(1 << width)
    blocks = _Blocks(lines, words, 0, width, 0)
    cuts = cuts_at(blocks.firsts, 0, len(blocks.firsts), BITS - width + 4)
    buckets = [blocks.firsts[cut] >> BITS - width + 4 for cut in cuts[:-1]]
    lines.table(first, blocks.keys, cuts, buckets, width, CHUNK, blocks.records)
    return lines.area, width


def _top_width(words: list[int]) -> int:
    """The width that suits the words, unless its chunk ends amid crowds.

    Blocks should have one start or many, as each that has two costs as much as one with many. Crowds
    lie under prefixes of 32 bits, as registries hand them out: there the chunk of the narrowest table
    ends.
    """
    width = table_width(words, 0, len(words), BITS, LEAST_TOP)[0]
    blocks = _count_blocks(words, width + CHUNK)
    if blocks * 10 < len(words) * 9 and _count_blocks(words, LEAST_TOP + CHUNK) * 8 <= blocks:
        return LEAST_TOP
    return width


def _count_blocks(words: list[int], bits: int) -> int:
    return len(cuts_at(words, 0, len(words), BITS - bits + 4)) - 1


class _Blocks:
    """Start words by their blocks: a key and a record each; walks below where one has several."""

    def __init__(
        self, lines: Lines, words: list[int], state: int, consumed: int, depth: int
    ) -> None:
        shift = BITS - consumed - CHUNK + 4  # of words
        if shift <= 4:
            self.firsts = words
            up = 4 - shift
            self.keys = array(
                "I", [(word >> 4 << up & _CHUNK_MASK) << 4 | word & 15 for word in words]
            )
            self.records = b""
            return
        cuts = cuts_at(words, 0, len(words), shift)
        single = len(cuts) > len(words)
        self.firsts = words if single else [words[cut] for cut in cuts[:-1]]
        marks = [word & 15 for word in words]
        befores = [state, *[mark >> 2 for mark in marks]]
        records = array("Q", bytes(16 * len(self.firsts)))
        if not single:
            befores = [befores[cut] for cut in cuts[:-1]]
            marks = [marks[cut - 1] for cut in cuts[1:]]
        self.keys = array(
            "I",
            [
                (word >> shift & _CHUNK_MASK) << 4 | mark
                for word, mark in zip(self.firsts, marks)
            ],
        )
        _write_records(records, self.firsts, marks, befores, BITS - consumed - CHUNK)
        depth += _lines_of(len(self.firsts))
        if not single:
            for number, (begin, end) in enumerate(pairwise(cuts)):
                if end - begin > 1:
                    below = lines.reserve(1)
                    _write_walk(
                        lines, below, words[begin:end], befores[number], consumed + CHUNK, depth
                    )
                    records[2 * number] = below
                    records[2 * number + 1] = BRANCH
        self.records = records.tobytes()


def _write_walk(
    lines: Lines, line: int, words: list[int], state: int, consumed: int, depth: int
) -> None:
    """Let a line lead to words whose first bits are equal."""
    if depth + _lines_of(len(words)) > STEPS:
        raise TooLarge("the IPv6 lists nest too deeply for the tables: use shorter lists")
    blocks = _Blocks(lines, words, state, consumed, depth)
    lines.walk(line, blocks.keys, state, CHUNK, blocks.records)


def _lines_of(keys: int) -> int:
    """How many lines a walk to so many keys visits at most."""
    found = 1
    reach = 15
    while reach < keys:
        found, reach = found + 1, reach * 16
    return found + (_TABLES if keys > 128 else 0)


def _write_records(
    records: array[int], words: list[int], marks: list[int], befores: list[int], left: int
) -> None:
    """Write records for blocks of one start each; none where its key says it all.

    left: how many bits of the address a record holds, leftmost in its 128.
    """
    high_mask = _LONG & ~((1 << max(64 - left, 0)) - 1)
    low_mask = _LONG & ~((1 << min(128 - left, 64)) - 1)
    records[0::2] = array("Q", _moved(words, 60 - left, high_mask))
    rests = _moved(words, 124 - left, low_mask)
    records[1::2] = array(
        "Q",
        [rest | _FLAGS[mark << 2 | before] for rest, mark, before in zip(rests, marks, befores)],
    )
    for number, mark in enumerate(marks):
        if mark in _PLAIN and not records[2 * number] and not rests[number]:
            records[2 * number + 1] = 0


def _moved(words: list[int], up: int, mask: int) -> list[int]:
    """Words shifted up, or down if that is negative, and masked."""
    if up < 0:
        return [word >> -up & mask for word in words]
    return [word << up & mask for word in words]
