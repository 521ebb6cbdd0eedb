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
    from .libbpf import Map

HEADER = 8
_BUSY = 1 << 31
_DISCARDED = 1 << 30
_LENGTH = struct.Struct("=I")
# How many records are looked at first for being alike; then twice as many each time.
_FIRST_LOOK = 8


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
        self._words = self._data.cast("I")
        self._read_up_to = self._consumer[0]

    def runs(self, limit: int) -> t.Iterator[tuple[int, int, memoryview]]:
        """Up to ``limit`` records in order, as runs of records of one size.

        A run is that size, how many they are, and their memory: `HEADER` bytes and the record,
        padded to 8 bytes, each. It is gone with the next run; `release` them all at the end.
        """
        position, end = self._consumer[0], self._producer[0]
        while position < end and limit:
            at = position & self._mask
            (length,) = _LENGTH.unpack_from(self._data, at)
            if length & _BUSY:
                break
            size = length & ~_DISCARDED
            stride = (size + HEADER + 7) & ~7
            if length & _DISCARDED:
                position = self._read_up_to = position + stride
                continue
            count = self._alike(at, length, stride, min(limit, (end - position) // stride))
            limit -= count
            with self._data[at : at + count * stride] as run:
                yield size, count, run
            position += count * stride
            self._read_up_to = position

    def read(self, limit: int) -> list[bytes]:
        """Up to ``limit`` records in order; `release` them once they are dealt with."""
        found: list[bytes] = []
        for size, count, run in self.runs(limit):
            stride = len(run) // count
            found += [bytes(run[at : at + size]) for at in range(HEADER, len(run), stride)]
        return found

    def release(self) -> None:
        """Give what was read last back to the kernel; a reader that dies before it reads it again."""
        self._consumer[0] = self._read_up_to

    def backlog(self) -> int:
        """Bytes that wait to be read."""
        return self._producer[0] - self._consumer[0]

    def close(self) -> None:
        for view in (self._consumer, self._producer, self._words, self._data):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()

    def _alike(self, at: int, length: int, stride: int, limit: int) -> int:
        """How many records from ``at`` on, one at least, are complete and as long as the first."""
        count, look = 1, _FIRST_LOOK
        while count < limit:
            look = min(look, limit - count)
            first = (at + count * stride) // 4
            lengths = self._words[first : first + look * stride // 4 : stride // 4].tolist()
            if lengths.count(length) < look:
                return count + next(i for i, found in enumerate(lengths) if found != length)
            count += look
            look *= 2
        return count
