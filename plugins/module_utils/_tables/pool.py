# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""More numbers than Python handles well as objects: kept packed, and sorted by the C library.

A list's numbers as objects lie in memory in the order in which they were read. Once such are sorted,
every pass over them waits for memory. So they become objects when they are in order, or never.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from itertools import repeat
from operator import itemgetter
from struct import iter_unpack
from typing import NamedTuple, cast

from .lanes import as_number, repeated, zero_lanes

_AT_ONCE = 1 << 16
_MANY = 8  # one of so many
_number = cast(Callable[[bytes, str], int], int.from_bytes)


class Packing(NamedTuple):
    """How numbers are kept: so many bytes each, the highest first, so that order is that of the bytes."""

    size: int
    pack: Callable[[Iterable[int]], bytes]
    unpack: Callable[[bytes | bytearray], MutableSequence[int]]
    leads: Callable[[bytes | bytearray], array[int]]
    """The first bits of each, in the order of this machine's bytes."""


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
    """Numbers in any order, with repetitions."""

    def __init__(self, packing: Packing) -> None:
        self.packing = packing
        self._data = bytearray()
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._data) // self.packing.size

    def __iter__(self) -> Iterator[int]:
        return iter(self.packing.unpack(self._data))

    def extend(self, numbers: Iterable[int]) -> None:
        """Take over some numbers."""
        self.take(self.packing.pack(numbers))

    def take(self, data: bytes | bytearray) -> None:
        """Take over some numbers that are packed."""
        self._data += data
        self._is_sorted = False

    def unite(self, other: Pool) -> None:
        """Take over all numbers of another pool of that packing."""
        self.take(other._data)

    def sorted(self) -> MutableSequence[int]:
        """Return all numbers, sorted. If they are objects, these lie in memory in that order."""
        self._sort()
        numbers = self.packing.unpack(self._data)
        return numbers if self._is_sorted else sorted(numbers)

    def apart(self) -> bytearray | None:
        """Return all numbers, sorted and packed, if each is more than one above the one before.

        Nothing if they are not, or if that cannot be told quickly.
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
        """Return the places of all numbers that may be at most one above the number before.

        Nothing while what is packed is not sorted, or where so many are close to each other that it
        is quicker to look at all.
        """
        if not self._is_sorted:
            return None
        size = self.packing.size
        found: list[int] = []
        for begin in range(0, len(self) - 1, _AT_ONCE):
            leads = self.packing.leads(self._data[begin * size : (begin + _AT_ONCE + 1) * size])
            count, width = len(leads) - 1, leads.itemsize
            # They ascend, so no lane borrows from its neighbour.
            apart = as_number(leads[1:]) - as_number(leads[:-1])
            more = repeated((1 << 8 * width) - 2, width, count)
            found += [begin + at + 1 for at in zero_lanes(apart & more, width, count)]
            if len(found) * _MANY > begin + count:
                return None
        return found

    def _sort(self) -> None:
        if not self._is_sorted:
            self._is_sorted = _sort(self._data, self.packing.size)


def _sort(data: bytearray, size: int) -> bool:
    """Sort elements of so many bytes by their bytes; False where the C library cannot.

    Linux's qsort_r(3) hands its last argument to the function that compares, as the third one; memcmp(3)
    takes the size there. Controllers may be other systems, whose qsort_r is another one.
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
