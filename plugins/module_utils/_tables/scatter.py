# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Write elements to arbitrary indexes of an array, by the kernel's scatter input, readv(2).

A Python loop takes three times as long, mostly because it turns each number into an object and back.
"""

from __future__ import annotations

import ctypes
import os
from array import array

from .lanes import as_number, longs, repeated

_MAX_VECTORS = 1024  # IOV_MAX of Linux


def scatter(target: array[int], places: array[int], data: memoryview) -> None:
    """Write the n-th element of data to the n-th place of target.

    places: indexes into target, counted in elements of data; data has one element for each. Raises
    IndexError if one is outside of target.
    """
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
        os.set_blocking(writer, False)
        done = 0
        while done < count:
            # A pipe may take less: the kernel shrinks the pipes of users who own many (pipe(7)).
            some = min(count - done, _MAX_VECTORS)
            written = os.write(writer, data[done * size : (done + some) * size])
            some, rest = divmod(written, size)
            entry = ctypes.c_void_p(entries.buffer_info()[0] + 16 * done)
            got = readv(reader, entry, some)
            if rest or got != written:
                raise OSError(f"readv(2) read {got} of {written} bytes")
            done += some
    finally:
        os.close(reader)
        os.close(writer)
