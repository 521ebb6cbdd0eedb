# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Large collections of numbers, kept packed instead of as Python objects, and sorted by the C library.

Number objects lie in memory in the order in which they were made. If they are sorted afterwards, every
pass over them jumps through memory and waits for it. So numbers become objects once they are in order, or
never.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from itertools import repeat
from operator import itemgetter
from struct import iter_unpack
from typing import NamedTuple, cast

from .lanes import as_number, repeated, zero_lanes

_CHUNK = 1 << 16
_NEAR_RATIO = 8  # `near` gives up if more than one in so many numbers is near its neighbour
_number = cast(Callable[[bytes, str], int], int.from_bytes)


class Packing(NamedTuple):
    """How numbers are packed: `size` bytes each, big-endian, so that they sort like their bytes."""

    size: int
    pack: Callable[[Iterable[int]], bytes]
    unpack: Callable[[bytes | bytearray], MutableSequence[int]]
    leads: Callable[[bytes | bytearray], array[int]]
    """The first 32 (IPv4) or 64 bits (IPv6) of each number, in the machine's byte order."""


def _swapped(words: array[int]) -> array[int]:
    if sys.byteorder == "little":
        words.byteswap()
    return words


def _pack4(numbers: Iterable[int]) -> bytes:
    return _swapped(array("I", numbers)).tobytes()


def _unpack4(data: bytes | bytearray) -> array[int]:
    return _swapped(array("I", data))


def _pack6(numbers: Iterable[int]) -> bytes:
    return b"".join([number.to_bytes(16, "big") for number in numbers])


def _unpack6(data: bytes | bytearray) -> list[int]:
    return list(map(_number, map(itemgetter(0), iter_unpack("16s", data)), repeat("big")))


def _leads6(data: bytes | bytearray) -> array[int]:
    return _swapped(array("Q", data)[::2])


IPV4 = Packing(4, _pack4, _unpack4, _unpack4)
IPV6 = Packing(16, _pack6, _unpack6, _leads6)


class Pool:
    """Numbers in any order, with duplicates."""

    def __init__(self, packing: Packing) -> None:
        self.packing = packing
        self._data = bytearray()
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._data) // self.packing.size

    def __iter__(self) -> Iterator[int]:
        return iter(self.packing.unpack(self._data))

    def extend(self, numbers: Iterable[int]) -> None:
        """Add numbers."""
        self.extend_packed(self.packing.pack(numbers))

    def extend_packed(self, data: bytes | bytearray) -> None:
        """Add numbers that are already packed."""
        self._data += data
        self._is_sorted = False

    def unite(self, other: Pool) -> None:
        """Add all numbers of another pool, which has the same packing."""
        self.extend_packed(other._data)

    def sorted(self) -> MutableSequence[int]:
        """Return all numbers, sorted."""
        self._sort()
        numbers = self.packing.unpack(self._data)
        return numbers if self._is_sorted else sorted(numbers)

    def between(self, first: int, last: int, limit: int) -> tuple[int, list[int]]:
        """Return how many numbers are from first to last, and up to `limit` of them, the lowest."""
        low, high = self._rank(first), self._rank(last + 1)
        size = self.packing.size
        some = self._data[low * size : min(high, low + limit) * size]
        return high - low, list(self.packing.unpack(some))

    def _rank(self, number: int) -> int:
        """Return how many numbers are lower; no number is unpacked for that."""
        size = self.packing.size
        if number >> 8 * size:
            return len(self)
        packed = self.packing.pack([number])
        return bisect_left(
            range(len(self)), packed, key=lambda at: bytes(self._data[at * size : (at + 1) * size])
        )

    @property
    def is_searchable(self) -> bool:
        """Whether `between` works: the C library can sort the numbers."""
        self._sort()
        return self._is_sorted

    def isolated(self) -> bytearray | None:
        """Return all numbers, sorted and packed, if no two of them are equal or adjacent.

        None if two are, or if finding out would be slow.
        """
        self._sort()
        places = self.near()
        if places is None:
            return None
        size = self.packing.size
        for place in places:
            one, other = self.packing.unpack(self._data[(place - 1) * size : (place + 1) * size])
            if other - one < 2:
                return None
        return self._data

    def near(self) -> list[int] | None:
        """Return the indexes of the numbers that may equal the number before, or be one above it.

        None if the C library could not sort the numbers, or if so many are near each other that the
        caller does better to compare all of them.
        """
        if not self._is_sorted:
            return None
        size = self.packing.size
        found: list[int] = []
        for begin in range(0, len(self) - 1, _CHUNK):
            leads = self.packing.leads(self._data[begin * size : (begin + _CHUNK + 1) * size])
            count, width = len(leads) - 1, leads.itemsize
            # The numbers ascend, so no lane becomes negative.
            apart = as_number(leads[1:]) - as_number(leads[:-1])
            more = repeated((1 << 8 * width) - 2, width, count)
            found += [begin + at + 1 for at in zero_lanes(apart & more, width, count)]
            if len(found) * _NEAR_RATIO > begin + count:
                return None
        return found

    def _sort(self) -> None:
        if not self._is_sorted:
            self._is_sorted = _sort(self._data, self.packing.size)


def _sort(data: bytearray, size: int) -> bool:
    """Sort elements of `size` bytes in place, by their bytes; False if the C library cannot.

    glibc's qsort_r(3) passes its last argument to the comparison function as the third one, where
    memcmp(3) expects the size. On other systems, which controllers may be, qsort_r takes its arguments in
    another order.
    """
    library = ctypes.CDLL(None)
    if sys.platform != "linux" or not hasattr(library, "qsort_r"):
        return False
    count = len(data) // size
    elements = (ctypes.c_char * len(data)).from_buffer(data)
    library.qsort_r(
        elements,
        ctypes.c_size_t(count),
        ctypes.c_size_t(size),
        library.memcmp,
        ctypes.c_size_t(size),
    )
    return True
