# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Arithmetic on a million numbers at once: they are the lanes of one long Python integer.

Python adds, shifts and masks one long integer at the speed of memory; a loop over single numbers is a
hundred times slower. (Idea: SIMD within a register; Lamport, CACM 18(8), 1975.) After a shift, mask the
bits that came from the neighbouring lane. Subtract only if no lane becomes negative.
"""

from __future__ import annotations

import sys
from array import array

_NONZERO = 0x80
_LOW_HALF = 0 if sys.byteorder == "little" else 1


def as_number(lanes: array[int] | memoryview) -> int:
    """Return an array as one number, with a lane for each element."""
    return int.from_bytes(lanes.tobytes(), sys.byteorder)


def repeated(lane: int, size: int, count: int) -> int:
    """Return a number of `count` lanes, each `size` bytes long, that all hold the value `lane`."""
    return int.from_bytes(lane.to_bytes(size, sys.byteorder) * count, sys.byteorder)


def longs(lanes: int, count: int) -> array[int]:
    """Return `count` lanes of 64 bits as an array."""
    return array("Q", lanes.to_bytes(8 * count, sys.byteorder))


def low_halves(lanes: int, count: int, code: str = "I") -> array[int]:
    """Return the lower half of each of `count` lanes as an array of type `code`.

    A lane is twice as large as an element of that array.
    """
    halves = array(code)
    halves.frombytes(lanes.to_bytes(2 * halves.itemsize * count, sys.byteorder))
    return halves[_LOW_HALF::2]


def low_bytes(part: array[int]) -> bytes:
    """Return the lowest byte of each number."""
    place = 0 if sys.byteorder == "little" else part.itemsize - 1
    return part.tobytes()[place :: part.itemsize]


def as_bits(marks: bytearray) -> array[int]:
    """Return a bitmap as numbers of 64 bits: a bit for each byte, which is 0 or 1; lowest bit first."""
    bits = 0
    for bit in range(8):
        bits |= int.from_bytes(marks[bit::8], "little") << bit
    found = array("Q", bits.to_bytes(len(marks) // 8, "little"))
    if sys.byteorder == "big":
        found.byteswap()
    return found


def widened(part: array[int]) -> array[int]:
    """Return an array of twice the length whose lanes (pairs of elements) hold the numbers."""
    wide = array(part.typecode, bytes(2 * part.itemsize * len(part)))
    wide[_LOW_HALF::2] = part
    return wide


def zero_lanes(lanes: int, size: int, count: int) -> list[int]:
    """Return the indexes of the zero lanes among `count` lanes of `size` bytes."""
    return places_of(0, _marked(lanes, size, count))


def _marked(lanes: int, size: int, count: int) -> bytes:
    """Return a byte for each of `count` lanes of `size` bytes: 0 if the lane is 0, else `_NONZERO`."""
    bits = 8 * size
    highest = repeated(1 << bits - 1, size, count)
    lower = repeated((1 << bits - 1) - 1, size, count)
    # Adding `lower` carries into a lane's highest bit exactly if one of its lower bits is set.
    marked = ((lanes & lower) + lower | lanes) & highest
    place = size - 1 if sys.byteorder == "little" else 0
    return marked.to_bytes(size * count, sys.byteorder)[place::size]


def differing_lanes(one: array[int], other: array[int]) -> list[int]:
    """Return the indexes at which two arrays of the same length and type differ."""
    return places_of(_NONZERO, _marked(as_number(one) ^ as_number(other), one.itemsize, len(one)))


def places_of(value: int, data: bytes) -> list[int]:
    """Return the indexes of all bytes that have this value."""
    found = []
    at = data.find(value)
    while at >= 0:
        found.append(at)
        at = data.find(value, at + 1)
    return found
