# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The table of first ports (first_ports.h): find or remove a source in it."""

from __future__ import annotations

import struct
import typing as t

from . import abi

if t.TYPE_CHECKING:
    from .libbpf import Map

_WORD = (1 << 64) - 1
_MULTIPLIER = 0xBF58476D1CE4E5B9
_HALF = (1 << 32) - 1


def _mix(value: int, word: int) -> int:
    value = (value ^ word) * _MULTIPLIER & _WORD
    return value ^ value >> 32


def address_hash(address: bytes, seed: int) -> int:
    """Return the hash of 16 bytes, equal to that of pw_address_hash in C."""
    one, two, three, four = struct.unpack("=4I", address)
    return _mix(_mix(seed, one << 32 | two), three << 32 | four)


def hash_of(key: bytes, seed: int) -> int:
    """Return the hash of a source (struct pw_source), equal to that of pw_first_set in C."""
    length, address = abi.SOURCE.struct.unpack(key)
    return _mix(_mix(address_hash(address, seed), length), seed)


class Firsts:
    """The table in the map "firsts2"; the map "shared" holds the seed of its hash."""

    def __init__(self, firsts: Map, shared: Map) -> None:
        self._firsts = firsts
        self._shared = shared

    def hits(self, key: bytes) -> list[int]:
        """Return the entries of a source (struct pw_source), each in the format of a track's slot."""
        _wanted, ways, mine = self._find(key)
        return [ways[way][1] >> 32 << 32 | ways[way][0] & _HALF for way in mine]

    def forget(self, key: bytes) -> None:
        """Remove a source. An entry that the program writes to the same set meanwhile may be lost."""
        wanted, ways, mine = self._find(key)
        for way in mine:
            ways[way] = (0, 0)
        numbers = [number for pair in ways for number in pair]
        if mine:
            self._firsts.update(_index(wanted), abi.FIRSTS.pack(way=numbers))

    def _find(self, key: bytes) -> tuple[int, list[tuple[int, int]], list[int]]:
        """Return the source's hash, the ways of its set, and the indexes of the source's own ways."""
        wanted = hash_of(key, abi.SHARED.unpack(self._shared.lookup(bytes(4)) or b"")["seed"])
        numbers = abi.FIRSTS.unpack(self._firsts.lookup(_index(wanted)) or b"")["way"]
        ways = list(zip(numbers[0::2], numbers[1::2]))
        mine = [
            way
            for way, (who, when) in enumerate(ways)
            if who and not (who ^ wanted) >> 32 and not (when ^ wanted >> 16) & _HALF
        ]
        return wanted, ways, mine


def _index(wanted: int) -> bytes:
    return struct.pack("=I", wanted % abi.FIRST_SETS)
