# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""BPF maps in memory, with the part of the kernel's behaviour that the library uses."""

from __future__ import annotations

import mmap
import os
import struct
from types import SimpleNamespace
from typing import Any

from packetwatch_core._kernel import abi

_NO_ROOM = 7


class FakeMap:
    """A hash, or an array of one entry."""

    def __init__(self, name: str, max_entries: int = 1024) -> None:
        self.info = SimpleNamespace(name=name, max_entries=max_entries, flags=0, id=7)
        self.entries: dict[bytes, bytes] = {}
        self.log: list[tuple[str, bytes]] = []
        self.is_frozen = False

    def lookup(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        if key not in self.entries and len(self.entries) >= self.info.max_entries:
            raise OSError(_NO_ROOM, "no room")
        self.log.append(("update", key))
        self.entries[key] = value

    def delete(self, key: bytes) -> bool:
        self.log.append(("delete", key))
        return self.entries.pop(key, None) is not None

    def items(self) -> list[tuple[bytes, bytes]]:
        return list(self.entries.items())

    each = items


class FakeFirsts(FakeMap):
    """The array of first ports, empty at first."""

    def lookup(self, key: bytes) -> bytes | None:
        return self.entries.get(key, bytes(abi.FIRSTS.size))


class FakeTrie(FakeMap):
    """An LPM trie: the longest prefix that matches decides."""

    def lookup(self, key: bytes) -> bytes | None:
        length, address = abi.NET.struct.unpack(key)
        number = int.from_bytes(address, "big")
        for plen in range(length, -1, -1):
            short = (number >> (128 - plen) << (128 - plen)).to_bytes(16, "big")
            value = self.entries.get(abi.NET.struct.pack(plen, short))
            if value is not None:
                return value
        return None


class FakeShared(FakeMap):
    """An array of one entry that can be mapped into memory."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.fd = os.memfd_create(name)
        os.write(self.fd, abi.SHARED.pack(sequence=99).ljust(mmap.PAGESIZE, b"\0"))

    def lookup(self, key: bytes) -> bytes | None:
        return os.pread(self.fd, abi.SHARED.size, 0)

    def write_word(self, index: int, number: int) -> None:
        os.pwrite(self.fd, struct.pack("=Q", number), 8 * index)

    def __del__(self) -> None:
        os.close(self.fd)


def run_maps(**sizes: int) -> dict[str, Any]:
    """Return the maps that the agent uses, empty."""
    maps: dict[str, Any] = {
        name: FakeMap(name, sizes.get(name, 1024))
        for name in ("bans", "scan_bans", "overflow", "hosts", "local", "counters4", "tracks2")
    }
    maps["nets"] = FakeTrie("nets", sizes.get("nets", 1024))
    maps["firsts2"] = FakeFirsts("firsts2")
    maps["shared"] = FakeShared("shared")
    maps["counters4"].entries[bytes(4)] = abi.COUNTERS.pack()
    return maps


def mapped(text: str) -> bytes:
    """Return an IPv4 address as 16 mapped bytes."""
    return bytes(10) + b"\xff\xff" + bytes(int(part) for part in text.split("."))


def u32(number: int) -> bytes:
    return struct.pack("=I", number)
