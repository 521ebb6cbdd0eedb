# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The ports that services of this host have, for the program."""

from __future__ import annotations

import itertools
import socket
import struct
import sys
import time
import typing as t

from .._kernel import abi
from .sock_diag import Query, sockets

if t.TYPE_CHECKING:
    from .._kernel.libbpf import Map
    from .sock_diag import Local

_MONOTONIC_COARSE = 6
_LISTEN = 1 << 10
# The states of UDP sockets, with and without a peer.
_UDP_STATES = 1 << 1 | 1 << 7
_U64 = struct.Struct("=Q")
_LOOPBACK_6 = bytes(15) + b"\x01"
_LOOPBACK_MAPPED = bytes(10) + b"\xff\xff\x7f"
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def read_ports(with_udp: bool = False) -> set[int]:
    """Return the ports of all listening TCP sockets, and of UDP sockets, but those on a loopback address.

    Nobody reaches the latter from outside. Raises `Unreadable`.
    """
    wanted = [(socket.IPPROTO_TCP, _LISTEN)]
    if with_udp:
        wanted.append((socket.IPPROTO_UDP, _UDP_STATES))
    queries = (
        Query(family, protocol, states)
        for family, (protocol, states) in itertools.product(_FAMILIES, wanted)
    )
    needed = "tcp_diag, and udp_diag if scan_kinds has udp"
    return {
        found.port
        for found in sockets(queries, "listening sockets", needed)
        if not _is_loopback(found)
    }


def _is_loopback(found: Local) -> bool:
    if found.family == socket.AF_INET:
        return found.address[0] == 127
    return found.address == _LOOPBACK_6 or found.address.startswith(_LOOPBACK_MAPPED)


def clock() -> int:
    """The program's clock in nanoseconds: a tick behind CLOCK_MONOTONIC at most."""
    return time.clock_gettime_ns(_MONOTONIC_COARSE)


def adopt(now: int, maps: t.Mapping[str, Map]) -> None:
    """Let the grace of services begin at `now` if they were there at the last reading.

    For the start of the agent: it does not know when such a service has ended.
    """
    read = abi.SHARED.unpack(maps["shared"].lookup(bytes(4)) or b"")["listeners_read"]
    if read:
        known = (
            (int.from_bytes(key, sys.byteorder), value) for key, value in maps["open_ports"].each()
        )
        write([port for port, value in known if _U64.unpack(value)[0] >= read], now, maps)


def write(ports: t.Collection[int], now: int, maps: t.Mapping[str, Map]) -> None:
    """Write the ports to the map ``open_ports`` as served at `now` (see `clock`)."""
    if ports:
        keys = struct.pack(f"={len(ports)}I", *ports)
        maps["open_ports"].update_many(keys, _U64.pack(now) * len(ports))
    # Afterwards: until then the ports count as served at the last reading.
    maps["shared"].write_word(abi.LISTENERS_READ, now)
