# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Elements to places that lie anywhere in an array, by the system's own scatter input: readv(2).

A store by Python takes three times as long, most of it for numbers that become objects and numbers again.
"""

from __future__ import annotations

import ctypes
import os
from array import array

from ._lanes import as_number, longs, repeated

_PIPE = 1 << 16  # bytes that a pipe holds
_MOST = 1024  # IOV_MAX of Linux


def scatter(target: array[int], places: array[int], data: memoryview) -> None:
    """Put elements to these places of a target, counted in elements; data has as many."""
    count = len(places)
    if not count:
        return
    size = data.nbytes // count
    begin, length = target.buffer_info()
    if max(places) >= length * target.itemsize // size:
        raise IndexError("a place is outside of the target")
    entries = array("Q", [size]) * (2 * count)
    entries[::2] = longs(as_number(places) * size + repeated(begin, 8, count), count)
    readv = ctypes.CDLL(None).readv
    data = data.cast("B")
    reader, writer = os.pipe()
    try:
        for first in range(0, count, _PIPE // size):
            last = min(first + _PIPE // size, count)
            os.write(writer, data[first * size : last * size])
            for at in range(first, last, _MOST):
                some = min(_MOST, last - at)
                entry = ctypes.c_void_p(entries.buffer_info()[0] + 16 * at)
                got = readv(reader, entry, some)
                if got != some * size:
                    raise OSError(f"readv(2) has read {got} bytes instead of {some * size}")
    finally:
        os.close(reader)
        os.close(writer)
