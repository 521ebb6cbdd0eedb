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

from .lanes import as_number, longs, repeated

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
        os.set_blocking(writer, False)
        done = 0
        while done < count:
            # Only as many as the pipe takes, which is less for users that have many.
            some = min(count - done, _MOST)
            written = os.write(writer, data[done * size : (done + some) * size])
            some, rest = divmod(written, size)
            entry = ctypes.c_void_p(entries.buffer_info()[0] + 16 * done)
            got = readv(reader, entry, some)
            if rest or got != written:
                raise OSError(f"readv(2) has read {got} bytes of {written}")
            done += some
    finally:
        os.close(reader)
        os.close(writer)
