# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Arithmetic on the lanes of a long number, against the same arithmetic on single numbers."""

from __future__ import annotations

from array import array
from random import Random

import pytest

from packetwatch_core._tables.lanes import (
    as_bits,
    as_number,
    differing_lanes,
    longs,
    low_bytes,
    low_halves,
    places_of,
    repeated,
    zero_lanes,
)

SIZES = {4: "I", 8: "Q"}


@pytest.mark.parametrize("size", SIZES)
def test_zero_lanes_are_found(size: int) -> None:
    random = Random(size)
    # Single bits at all positions, and values that carry from one end of a lane to the other.
    others = [1 << bit for bit in range(8 * size)] + [(1 << 8 * size) - 1, 0xFF]
    for count in (1, 2, 17, 1000):
        for zeros in (0, 1, count // 2, count):
            lanes = [0] * zeros + random.choices(others, k=count - zeros)
            random.shuffle(lanes)
            number = as_number(array(SIZES[size], lanes))
            expected = [at for at, lane in enumerate(lanes) if not lane]
            assert zero_lanes(number, size, count) == expected


def test_lanes_come_back() -> None:
    random = Random(1)
    lanes = array("Q", [random.getrandbits(64) for _number in range(333)])
    assert longs(as_number(lanes), 333) == lanes
    assert low_halves(as_number(lanes), 333).tolist() == [lane & 0xFFFFFFFF for lane in lanes]
    assert as_number(lanes) | repeated(0, 8, 333) == as_number(lanes)
    assert longs(repeated(7 << 40, 8, 5), 5).tolist() == [7 << 40] * 5


def test_bytes_become_bits() -> None:
    random = Random(2)
    marks = bytearray(random.choices((0, 1), k=192))
    numbers = as_bits(marks)
    assert [number >> bit & 1 for number in numbers for bit in range(64)] == list(marks)


def test_bytes_are_found() -> None:
    random = Random(3)
    lanes = array("Q", [random.getrandbits(64) for _number in range(333)])
    lowest = [lane & 0xFF for lane in lanes]
    assert list(low_bytes(lanes)) == lowest
    for value in (0, lowest[0], lowest[-1]):
        expected = [at for at, byte in enumerate(lowest) if byte == value]
        assert places_of(value, bytes(lowest)) == expected


def test_lanes_that_differ_are_found() -> None:
    random = Random(4)
    one = array("I", [random.getrandbits(32) for _number in range(333)])
    for count in (0, 1, 30, 333):
        other = one[:]
        places = sorted(random.sample(range(333), count))
        for place in places:
            other[place] ^= random.choice((1, 1 << 31, 0xFFFFFFFF, random.randrange(1, 1 << 32)))
        assert differing_lanes(one, other) == places
