# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""More numbers than a processor's cache holds, sorted in parts that it does hold.

A list's numbers are objects that lie in memory in the order in which they were read. Once they are
sorted, every pass over them waits for memory: for a million IPv6 addresses longer than all that is
done with them. So each batch is sorted as it comes and cut at borders that the first batch has given;
what lies between two borders is kept packed, and becomes objects only when it is sorted. (Idea:
samplesort, Frazer and McKellar, JACM 17(3), 1970.)
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from typing import NamedTuple

_BATCH = 4096
_BUCKETS = 128


class Packing(NamedTuple):
    """How numbers are kept: so many bytes each."""

    size: int
    pack: Callable[[list[int]], bytes]
    unpack: Callable[[bytes], list[int]]


def _pack4(numbers: list[int]) -> bytes:
    return array("I", numbers).tobytes()


def _unpack4(data: bytes) -> list[int]:
    return array("I", data).tolist()


def _pack6(numbers: list[int]) -> bytes:
    return b"".join([number.to_bytes(16, "big") for number in numbers])


def _unpack6(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 16], "big") for at in range(0, len(data), 16)]


IPV4 = Packing(4, _pack4, _unpack4)
IPV6 = Packing(16, _pack6, _unpack6)


class Pool:
    """Numbers in any order, with repetitions."""

    def __init__(self, packing: Packing) -> None:
        self.packing = packing
        self._count = 0
        self._batch: list[int] = []
        self._borders: list[int] = []
        self._buckets: list[bytearray] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        buckets = (self.packing.unpack(bytes(bucket)) for bucket in self._buckets)
        return chain(chain.from_iterable(buckets), self._batch)

    def extend(self, numbers: Iterable[int]) -> None:
        """Take over some numbers."""
        if len(self._batch) >= _BATCH:
            self._put_away()
        before = len(self._batch)
        self._batch += numbers
        self._count += len(self._batch) - before

    def sorted(self) -> list[int]:
        """Return all numbers, sorted, as objects that lie in memory in that order."""
        if self._buckets:
            self._put_away()
        found = sorted(self._batch)
        for bucket in self._buckets:
            numbers = self.packing.unpack(bytes(bucket))
            numbers.sort()
            found += numbers
        return found

    def _put_away(self) -> None:
        batch, self._batch = self._batch, []
        batch.sort()
        if not self._buckets:
            self._borders = batch[:: max(1, len(batch) // _BUCKETS)][1:]
            self._buckets = [bytearray() for _number in range(len(self._borders) + 1)]
        packed = memoryview(self.packing.pack(batch))
        size = self.packing.size
        cuts = [0, *[bisect_left(batch, border) for border in self._borders], len(batch)]
        for bucket, (begin, end) in zip(self._buckets, pairwise(cuts)):
            bucket += packed[begin * size : end * size]
