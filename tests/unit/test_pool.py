# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packed numbers of both families, sorted, against the sorted list of all numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random

import pytest

from packetwatch_core._tables.pool import IPV4, IPV6, Packing, Pool

PACKINGS = pytest.mark.parametrize(("packing", "bits"), [(IPV4, 32), (IPV6, 128)])
ORDERS: dict[str, Callable[[list[int], Random], None]] = {
    "random": lambda numbers, random: random.shuffle(numbers),
    "ascending": lambda numbers, random: numbers.sort(),
    "descending": lambda numbers, random: numbers.sort(reverse=True),
}


def filled(packing: Packing, numbers: list[int], size: int) -> Pool:
    """Return a pool that got the numbers in portions of this size."""
    pool = Pool(packing)
    for begin in range(0, len(numbers), size):
        pool.extend(numbers[begin : begin + size])
    return pool


@PACKINGS
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [1, 700, 6000, 50_000])
def test_all_numbers_come_back_sorted(packing: Packing, bits: int, order: str, size: int) -> None:
    random = Random(size)
    numbers = [random.getrandbits(bits) for _number in range(30_000)]
    numbers += [0, (1 << bits) - 1, *numbers[:100]]
    ORDERS[order](numbers, random)
    pool = filled(packing, numbers, size)
    assert len(pool) == len(numbers)
    assert list(pool.sorted()) == sorted(numbers)
    assert sorted(pool) == sorted(numbers)


@PACKINGS
def test_a_controller_may_have_another_c_library(
    packing: Packing, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(bits)
    numbers = [random.getrandbits(bits) for _number in range(5000)]
    monkeypatch.setattr(sys, "platform", "darwin")
    pool = filled(packing, numbers, 900)
    assert list(pool.sorted()) == list(pool.sorted()) == sorted(numbers)


@PACKINGS
def test_a_pool_grows_after_it_has_been_sorted(packing: Packing, bits: int) -> None:
    random = Random(bits)
    numbers = [random.getrandbits(bits) for _number in range(20_000)]
    pool = filled(packing, numbers[:10_000], 900)
    assert list(pool.sorted()) == sorted(numbers[:10_000])
    pool.extend(numbers[10_000:])
    assert list(pool.sorted()) == list(pool.sorted()) == sorted(numbers)


@PACKINGS
@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 4095, 4096, 4097, 8193])
def test_equal_numbers_stay_as_many(packing: Packing, bits: int, count: int) -> None:
    pool = filled(packing, [7] * count, 1000)
    assert list(pool.sorted()) == [7] * count
    assert bool(pool) == bool(count)
    assert bits > 3


def test_pools_are_united() -> None:
    one, other = filled(IPV4, list(range(9000, 0, -1)), 500), filled(IPV4, [3, 2], 1)
    one.unite(other)
    one.unite(Pool(IPV4))
    assert list(one.sorted()) == sorted([*range(1, 9001), 2, 3])


@PACKINGS
def test_neighbours_are_found(packing: Packing, bits: int) -> None:
    random = Random(bits)
    numbers = [random.getrandbits(bits - 1) for _number in range(70_000)]
    # Also pairs whose first bits differ, because adding one carries into them.
    numbers += [number | (1 << bits // 2) - 1 for number in numbers[:1000]]
    numbers += [number + random.randrange(3) for number in numbers[:1500] + numbers[-500:]]
    pool = filled(packing, numbers, 7000)
    assert pool.near() is None
    ordered = pool.sorted()
    found = pool.near()
    assert found is not None
    near = [at for at in range(1, len(ordered)) if ordered[at] - ordered[at - 1] < 2]
    assert [at for at in found if ordered[at] - ordered[at - 1] < 2] == near
    assert len(near) > 1000
    assert len(found) < 4000


@PACKINGS
@pytest.mark.parametrize("step", [0, 1])
def test_a_crowd_is_not_looked_through_for_neighbours(
    packing: Packing, bits: int, step: int
) -> None:
    pool = filled(packing, [(1 << bits - 1) + step * at for at in range(70_000)], 7000)
    assert len(pool.sorted()) == 70_000
    assert pool.near() is None
