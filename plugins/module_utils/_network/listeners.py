# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The ports that services of this host have, read from the kernel over sock_diag.

Any user may read them. Of TCP, the kernel lists only listening sockets, however many connections there are.
Layouts: linux/inet_diag.h.
"""

from __future__ import annotations

import itertools
import socket
import struct
import sys
import time
import typing as t

from .._base.errors import Unreadable
from .._kernel import abi, netlink

if t.TYPE_CHECKING:
    from .._kernel.libbpf import Map

_MONOTONIC_COARSE = 6
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_LISTEN = 1 << 10
# The states of UDP sockets, with and without a peer.
_UDP_STATES = 1 << 1 | 1 << 7
# inet_diag_req_v2: family, protocol, states; all else is zero.
_REQUEST = struct.Struct("=BBxxI48x")
# Of inet_diag_msg: the local port and the local address.
_REPLY = struct.Struct("!4xH2x16s")
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
    found: set[int] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as channel:
            channel.settimeout(10)
            for family, (protocol, states) in itertools.product(_FAMILIES, wanted):
                request = _REQUEST.pack(family, protocol, states)
                for kind, dummy, body in netlink.dump(
                    channel, _SOCK_DIAG_BY_FAMILY, request, family
                ):
                    if kind == _SOCK_DIAG_BY_FAMILY:
                        port, address = _REPLY.unpack_from(body)
                        if not _is_loopback(family, address):
                            found.add(port)
    except netlink.BROKEN as error:
        raise Unreadable(
            f"cannot read the listening sockets: {error}; the unit or container must allow AF_NETLINK "
            "sockets, and the kernel needs the module tcp_diag, and udp_diag if scan_kinds has udp"
        ) from error
    return found


def _is_loopback(family: int, address: bytes) -> bool:
    if family == socket.AF_INET:
        return address[0] == 127
    return address == _LOOPBACK_6 or address.startswith(_LOOPBACK_MAPPED)


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
