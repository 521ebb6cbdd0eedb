# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Reads a BPF ring buffer through its mapped memory, without wake-ups or a callback per record.

Layout (kernel/bpf/ringbuf.c): a page with the consumer's position (writable), a page with the
producer's position (read-only), then the data. The data is mapped twice in a row, so that no record is
split.
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
# Lengths to compare in the first step; each step compares twice as many as the one before.
_FIRST_STEP = 8


def stride(size: int) -> int:
    """Return the bytes that a record of `size` bytes takes in the ring: header, record, padding to 8."""
    return (size + HEADER + 7) & ~7


def split(run: memoryview, size: int, every: int = 1) -> list[bytes]:
    """Return the records of a run, which have `size` bytes each: all, or one of `every` so many."""
    return [bytes(run[at : at + size]) for at in range(HEADER, len(run), stride(size) * every)]


class RingBuffer:
    """The ring buffer of ``ring_map``, for one reader at a time.

    The kernel keeps the consumer's position with the map, so a new reader goes on where the last one
    stopped.
    """

    def __init__(self, ring_map: Map) -> None:
        page = mmap.PAGESIZE
        size = ring_map.info.max_entries
        self._mask = size - 1
        self._consumer_map = mmap.mmap(ring_map.fd, page, offset=0)
        self._producer_map = mmap.mmap(
            ring_map.fd, page + 2 * size, prot=mmap.PROT_READ, offset=page
        )
        # A cast view reads and writes 8 bytes in one access; struct does so byte by byte.
        self._consumer = memoryview(self._consumer_map)[:8].cast("Q")
        self._producer = memoryview(self._producer_map)[:8].cast("Q")
        self._data = memoryview(self._producer_map)[page:]
        self._words = self._data.cast("I")
        self._read_up_to = self._consumer[0]

    def runs(self, limit: int) -> t.Iterator[tuple[int, int, memoryview]]:
        """Yield up to ``limit`` records in order, as runs of records of the same size.

        A run is (record size in bytes, number of records, memory). In the memory each record takes
        `stride(size)` bytes: a header of `HEADER` bytes, the record, padding. The memory is valid until
        the next run; call `release` once all runs have been processed.
        """
        position, end = self._consumer[0], self._producer[0]
        while position < end and limit:
            at = position & self._mask
            (length,) = _LENGTH.unpack_from(self._data, at)
            if length & _BUSY:
                break
            size = length & ~_DISCARDED
            step = stride(size)
            if length & _DISCARDED:
                position = self._read_up_to = position + step
                continue
            count = self._same_length(at, length, step, min(limit, (end - position) // step))
            limit -= count
            with self._data[at : at + count * step] as run:
                yield size, count, run
            position += count * step
            self._read_up_to = position

    def read(self, limit: int) -> list[bytes]:
        """Return up to ``limit`` records in order; call `release` once they have been processed."""
        found: list[bytes] = []
        for size, dummy, run in self.runs(limit):
            found += split(run, size)
        return found

    def release(self) -> None:
        """Give the memory of all read records back to the kernel.

        If a reader dies before it calls this, the next one reads the same records again.
        """
        self._consumer[0] = self._read_up_to

    def backlog(self) -> int:
        """Return the number of bytes that have not been released."""
        return self._producer[0] - self._consumer[0]

    def close(self) -> None:
        for view in (self._consumer, self._producer, self._words, self._data):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()

    def _same_length(self, at: int, length: int, stride: int, limit: int) -> int:
        """Return how many records from ``at`` on (at least 1) are complete and of the same length."""
        count, step = 1, _FIRST_STEP
        while count < limit:
            step = min(step, limit - count)
            first = (at + count * stride) // 4
            lengths = self._words[first : first + step * stride // 4 : stride // 4].tolist()
            if lengths.count(length) < step:
                return count + next(i for i, found in enumerate(lengths) if found != length)
            count += step
            step *= 2
        return count
