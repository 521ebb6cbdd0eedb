# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The same arithmetic on a million numbers at once: as lanes of one long number.

Python adds, shifts and masks long numbers at the speed of memory, and single ones a hundred times slower.
(Idea: SIMD within a register; Lamport, CACM 18(8), 1975.) Whoever shifts must mask what comes from the
neighbour, and whoever subtracts must know that no lane becomes negative.
"""

from __future__ import annotations

import sys
from array import array

_MARK = 0x80
_LOW_HALF = 0 if sys.byteorder == "little" else 1


def as_number(lanes: array[int] | memoryview) -> int:
    """Return an array as one number."""
    return int.from_bytes(lanes.tobytes(), sys.byteorder)


def repeated(lane: int, size: int, count: int) -> int:
    """Return a number that has the same in all of its lanes, which are of so many bytes."""
    return int.from_bytes(lane.to_bytes(size, sys.byteorder) * count, sys.byteorder)


def longs(lanes: int, count: int) -> array[int]:
    """Return lanes of 64 bits as an array."""
    return array("Q", lanes.to_bytes(8 * count, sys.byteorder))


def low_halves(lanes: int, count: int, code: str = "I") -> array[int]:
    """Return the lower halves of lanes, which are twice as large as the array's elements."""
    halves = array(code)
    halves.frombytes(lanes.to_bytes(2 * halves.itemsize * count, sys.byteorder))
    return halves[_LOW_HALF::2]


def low_bytes(part: array[int]) -> bytes:
    """Return the lowest byte of each number."""
    place = 0 if sys.byteorder == "little" else part.itemsize - 1
    return part.tobytes()[place :: part.itemsize]


def as_bits(marks: bytearray) -> array[int]:
    """Return numbers of 64 bits, of which each is one of these bytes, all 0 or 1; the first one lowest."""
    bits = 0
    for bit in range(8):
        bits |= int.from_bytes(marks[bit::8], "little") << bit
    found = array("Q", bits.to_bytes(len(marks) // 8, "little"))
    if sys.byteorder == "big":
        found.byteswap()
    return found


def widened(part: array[int]) -> array[int]:
    """Return an array of twice the length, in which the numbers are the lower halves of lanes."""
    wide = array(part.typecode, bytes(2 * part.itemsize * len(part)))
    wide[_LOW_HALF::2] = part
    return wide


def zero_lanes(lanes: int, size: int, count: int) -> list[int]:
    """Return which of so many lanes, of so many bytes each, are zero."""
    return places_of(0, _marked(lanes, size, count))


def _marked(lanes: int, size: int, count: int) -> bytes:
    """Return a byte for each of so many lanes, of so many bytes each: `_MARK`, or 0 if it is zero."""
    bits = 8 * size
    highest = repeated(1 << bits - 1, size, count)
    others = repeated((1 << bits - 1) - 1, size, count)
    # The highest bit becomes 1 if any of a lane's bits is: from the others by a carry.
    marked = ((lanes & others) + others | lanes) & highest
    place = size - 1 if sys.byteorder == "little" else 0
    return marked.to_bytes(size * count, sys.byteorder)[place::size]


def unlike_lanes(one: array[int], other: array[int]) -> list[int]:
    """Return where two arrays of that length and type differ."""
    return places_of(_MARK, _marked(as_number(one) ^ as_number(other), one.itemsize, len(one)))


def places_of(value: int, data: bytes) -> list[int]:
    """Return where a byte of that value is."""
    found = []
    at = data.find(value)
    while at >= 0:
        found.append(at)
        at = data.find(value, at + 1)
    return found
