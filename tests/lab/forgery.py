# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""TCP SYNs with forged sources: a scan, or a flood. Both are bounded in number and time."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

from lab import dial
from lab.errors import LabError
from lab.traffic import MAX_PORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.network import Namespace

# Packets of a flood in a second, and in all: more than an emulated machine can receive.
RATE = 10_000
MAX_PACKETS = 1_000_000
_AT_ONCE = 100
_SOURCES = 0x20010DB8 << 96


def forge(station: Namespace, source: str, address: str, ports: Sequence[int]) -> None:
    """Send a SYN to each of the ports of an address, with a forged source of its family.

    Raises LabError for more than MAX_PORTS.
    """
    if len(ports) > MAX_PORTS:
        raise LabError(f"{len(ports)} forged packets; the maximum is {MAX_PORTS}")
    family = _family(address)
    with _raw(station, family) as raw:
        for port in ports:
            packet = _syn(socket.inet_pton(family, source), socket.inet_pton(family, address), port)
            raw.sendto(packet, (address, 0))


def flood(station: Namespace, address: str, port: int, *, seconds: float) -> int:
    """Send SYNs to one port of an IPv6 address, each from another /64; return their number.

    The flood ends after `seconds`, or after MAX_PACKETS.
    """
    target = socket.inet_pton(socket.AF_INET6, address)
    sent, began = 0, time.monotonic()
    with _raw(station, socket.AF_INET6) as raw:
        while sent < MAX_PACKETS and time.monotonic() < began + seconds:
            for number in range(sent, sent + _AT_ONCE):
                source = (_SOURCES | number << 64 | 1).to_bytes(16, "big")
                raw.sendto(_syn(source, target, port), (address, 0))
            sent += _AT_ONCE
            time.sleep(max(0.0, began + sent / RATE - time.monotonic()))
    return sent


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _raw(station: Namespace, family: socket.AddressFamily) -> socket.socket:
    """A raw socket that sends packets with the IP header that they have (raw(7))."""
    return dial.socket_in(str(station.path), family, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _syn(source: bytes, target: bytes, port: int) -> bytes:
    segment = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 0x02, 1024, 0, 0)
    length = len(segment)
    # The sum over the pseudo-header is the same for both families: RFC 9293, RFC 8200.
    check = _checksum(source + target + struct.pack("!HH", socket.IPPROTO_TCP, length) + segment)
    segment = segment[:16] + struct.pack("!H", check) + segment[18:]
    if len(source) == 16:
        header = struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_TCP, 64)
    else:
        # The kernel fills in the length and the header's checksum.
        header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0)
    return header + source + target + segment


def _checksum(data: bytes) -> int:
    """The sum of RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
