# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Reading a BPF ring buffer through its memory, without wake-ups and without a callback per record.

Layout: kernel/bpf/ringbuf.c. A page with the consumer's position (writable), a page with the
producer's (read-only), then the data, mapped twice in a row so that no record is split.
"""

from __future__ import annotations

import mmap
import struct
import typing as t

if t.TYPE_CHECKING:
    from ._libbpf import Map

_BUSY = 1 << 31
_DISCARDED = 1 << 30
_HEADER = 8
_LENGTH = struct.Struct("=I")


class RingBuffer:
    """The ring behind ``ring_map``; one reader at a time.

    The consumer's position lives in the kernel with the map: a reader that starts anew goes on
    where the former one stopped.
    """

    def __init__(self, ring_map: Map) -> None:
        page = mmap.PAGESIZE
        size = ring_map.info.max_entries
        self._mask = size - 1
        self._consumer_map = mmap.mmap(ring_map.fd, page, offset=0)
        self._producer_map = mmap.mmap(
            ring_map.fd, page + 2 * size, prot=mmap.PROT_READ, offset=page
        )
        # A cast view reads and writes 8 bytes at once; struct would go byte by byte.
        self._consumer = memoryview(self._consumer_map)[:8].cast("Q")
        self._producer = memoryview(self._producer_map)[:8].cast("Q")
        self._data = memoryview(self._producer_map)[page:]
        self._read_up_to = self._consumer[0]

    def read(self, limit: int) -> list[bytes]:
        """Up to ``limit`` records in order; `release` them once they are dealt with."""
        data, mask, length_of = self._data, self._mask, _LENGTH.unpack_from
        position, end = self._consumer[0], self._producer[0]
        found: list[bytes] = []
        while position < end and len(found) < limit:
            at = position & mask
            (length,) = length_of(data, at)
            if length & _BUSY:
                break
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                found.append(bytes(data[at + _HEADER : at + _HEADER + size]))
            position += (size + _HEADER + 7) & ~7
        self._read_up_to = position
        return found

    def release(self) -> None:
        """Give what was read last back to the kernel; a reader that dies before it reads it again."""
        self._consumer[0] = self._read_up_to

    def backlog(self) -> int:
        """Bytes that wait to be read."""
        return self._producer[0] - self._consumer[0]

    def close(self) -> None:
        for view in (self._consumer, self._producer, self._data):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()
