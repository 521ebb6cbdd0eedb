# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A ring buffer in a file, which can be mapped like the kernel's."""

from __future__ import annotations

import mmap
import os
import struct
from types import SimpleNamespace

SIZE = 16 * mmap.PAGESIZE
_DATA = 2 * mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Memory:
    """Has the kernel's layout; the second mapping of the data is a copy."""

    def __init__(self, start: int = 0) -> None:
        self.fd = os.memfd_create("ring")
        self.info = SimpleNamespace(max_entries=SIZE)
        os.truncate(self.fd, _DATA + 2 * SIZE)
        self._at = start
        for page in (0, 1):
            os.pwrite(self.fd, struct.pack("=Q", start), page * mmap.PAGESIZE)

    def close(self) -> None:
        os.close(self.fd)

    def add(self, record: bytes, flags: int = 0) -> None:
        data = struct.pack("=II", len(record) | flags, 77) + record
        data = data.ljust((len(data) + 7) & ~7, b"\xee")
        for number, byte in enumerate(data):
            at = (self._at + number) % SIZE
            for copy in (0, SIZE):
                os.pwrite(self.fd, bytes([byte]), _DATA + copy + at)
        self._at += len(data)
        os.pwrite(self.fd, struct.pack("=Q", self._at), mmap.PAGESIZE)
