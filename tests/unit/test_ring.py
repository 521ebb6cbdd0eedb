# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ring, read through its memory: runs of records of the same size, and what ends a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from unit.fake_ring import BUSY, DISCARDED, SIZE, Memory

from packetwatch_core._kernel.ring import HEADER, RingBuffer


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.close()


def ring_of(memory: Any) -> RingBuffer:
    return RingBuffer(memory)


def shape(ring: RingBuffer, limit: int = 1000) -> list[tuple[int, int]]:
    return [(size, count) for size, count, dummy in ring.runs(limit)]


def test_records_of_the_same_size_are_one_run(memory: Memory) -> None:
    for number in range(30):
        memory.add(bytes([number]) * 16)
    for dummy in range(2):
        memory.add(b"x" * 24)
    memory.add(b"y" * 16)
    ring = ring_of(memory)
    assert shape(ring) == [(16, 30), (24, 2), (16, 1)]
    assert ring.read(1000)[5] == bytes([5]) * 16
    ring.release()
    assert ring.backlog() == 0
    assert ring.read(10) == []
    ring.close()


@pytest.mark.parametrize("odd", range(20))
def test_a_run_ends_before_a_record_that_differs_wherever_it_is(memory: Memory, odd: int) -> None:
    sizes = [40 if number == odd else 16 for number in range(20)]
    for size in sizes:
        memory.add(b"z" * size)
    ring = ring_of(memory)
    assert [len(record) for record in ring.read(1000)] == sizes
    ring.close()


def test_what_is_still_written_and_what_was_given_up(memory: Memory) -> None:
    memory.add(b"a" * 16)
    memory.add(b"b" * 16, DISCARDED)
    memory.add(b"c" * 16)
    memory.add(b"d" * 16, BUSY)
    memory.add(b"e" * 16)
    ring = ring_of(memory)
    assert [record[:1] for record in ring.read(1000)] == [b"a", b"c"]
    ring.release()
    assert ring.backlog() == 2 * (HEADER + 16)
    assert ring.read(1000) == []
    ring.close()


def test_the_limit_and_what_was_not_released(memory: Memory) -> None:
    for number in range(20):
        memory.add(bytes([number]) * 16)
    ring = ring_of(memory)
    assert shape(ring, 7) == [(16, 7)]
    assert [record[0] for record in ring.read(7)] == list(range(7))
    ring.release()
    assert [record[0] for record in ring.read(100)] == list(range(7, 20))
    ring.close()


def test_runs_go_on_over_the_end_of_the_ring() -> None:
    memory = Memory(start=SIZE * 5 - 100 * 8)
    for number in range(60):
        memory.add(bytes([number]) * 20)
    ring = ring_of(memory)
    assert shape(ring) == [(20, 60)]
    assert [record[0] for record in ring.read(100)] == list(range(60))
    ring.close()
    memory.close()
