# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds packets layer by layer; arguments are written as given, even if they are wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from socket import AF_INET, AF_INET6, inet_pton

TCP = 6
UDP = 17
SCTP = 132
ICMP6 = 58

HOP_BY_HOP = 0
ROUTING = 43
FRAGMENT = 44
AUTHENTICATION = 51
NO_NEXT_HEADER = 59
DESTINATION = 60

FIN, SYN, RST, PUSH, ACK, URGENT = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
ECE, CWR = 0x40, 0x80
MORE_FRAGMENTS = 0x2000

IPV4 = 0x0800
VLAN = 0x8100
IPV6 = 0x86DD
VLAN_S = 0x88A8

HOST4, PEER4 = "10.77.0.1", "10.77.0.2"
HOST6, PEER6 = "fd77::1", "fd77::2"
_LEAST = 60


def checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(
    kind: int,
    payload: bytes,
    tags: Sequence[int] = (),
    target: bytes = bytes(6),
    source: bytes = b"\x02\0\0\0\0\x02",
) -> bytes:
    """Return a frame, padded to the minimum length; tags: EtherTypes of VLAN tags, outermost first."""
    header = target + source
    for tag in tags:
        header += struct.pack("!HH", tag, 7)
    return (header + struct.pack("!H", kind) + payload).ljust(_LEAST, b"\0")


def tcp(source: int, target: int, flags: int = SYN, options: bytes = b"") -> bytes:
    """Return a TCP header without data, and without a checksum yet."""
    words = 5 + len(options) // 4
    return struct.pack("!HHIIBBHHH", source, target, 1, 0, words << 4, flags, 64240, 0, 0) + options


def udp(source: int, target: int, data: bytes = b"") -> bytes:
    """Return a UDP datagram without a checksum."""
    return struct.pack("!HHHH", source, target, 8 + len(data), 0) + data


def sctp(source: int, target: int, chunk: int = 1) -> bytes:
    """Return an SCTP packet with one chunk (1: INIT), without a checksum."""
    return struct.pack("!HHII BBHIIHHI", source, target, 0, 0, chunk, 0, 20, 7, 1500, 1, 1, 7)


def ipv4(
    source: str,
    target: str,
    payload: bytes,
    protocol: int = TCP,
    *,
    options: bytes = b"",
    fragment: int = 0,
    total: int | None = None,
    version: int = 4,
    words: int | None = None,
) -> bytes:
    """Return an IPv4 packet; fragment: flags and offset as one field; total, words (ihl): if given, wrong values."""
    addresses = inet_pton(AF_INET, source) + inet_pton(AF_INET, target)
    words = 5 + len(options) // 4 if words is None else words
    length = 20 + len(options) + len(payload) if total is None else total
    head = struct.pack("!BBHHHBBH", version << 4 | words, 0, length, 7, fragment, 64, protocol, 0)
    check = checksum(head + addresses + options)
    if protocol == TCP and not fragment:
        payload = _filled(payload, addresses)
    return head[:10] + struct.pack("!H", check) + addresses + options + payload


def ipv6(
    source: str,
    target: str,
    payload: bytes,
    next_header: int = TCP,
    length: int | None = None,
    hop_limit: int = 64,
) -> bytes:
    """Return an IPv6 packet."""
    addresses = inet_pton(AF_INET6, source) + inet_pton(AF_INET6, target)
    length = len(payload) if length is None else length
    if next_header == TCP:
        payload = _filled(payload, addresses)
    return struct.pack("!IHBB", 6 << 28, length, next_header, hop_limit) + addresses + payload


def _filled(segment: bytes, addresses: bytes) -> bytes:
    """Return the TCP segment with its checksum, if it is complete."""
    if len(segment) < 20 or segment[16:18] != b"\0\0":
        return segment
    pseudo = addresses + struct.pack("!HH", TCP, len(segment))
    return segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]


def options(next_header: int, size: int = 8) -> bytes:
    """Return an extension header for options (hop-by-hop, destination) that holds only padding."""
    padding = size - 2
    filler = b""
    while padding > 0:
        part = min(padding, 257)
        filler += b"\0" if part == 1 else bytes((1, part - 2)) + bytes(part - 2)
        padding -= part
    return bytes((next_header, size // 8 - 1)) + filler


def routing(next_header: int) -> bytes:
    """Return a routing header with no segments left."""
    return bytes((next_header, 0, 4, 0)) + bytes(4)


def fragment6(next_header: int, offset: int = 0, more: bool = True) -> bytes:
    """Return a fragment header; offset in units of 8 bytes."""
    return struct.pack("!BBHI", next_header, 0, offset << 3 | more, 7)


def authentication(next_header: int, size: int = 24) -> bytes:
    """Return an authentication header of `size` bytes."""
    return bytes((next_header, size // 4 - 2)) + bytes(size - 2)


def chain(kinds: Iterable[int], last: int) -> bytes:
    """Return extension headers of these kinds, of minimum size, before an upper layer `last`."""
    kinds = list(kinds)
    makers = {
        HOP_BY_HOP: options,
        DESTINATION: options,
        ROUTING: routing,
        FRAGMENT: fragment6,
        AUTHENTICATION: authentication,
    }
    return b"".join(
        makers[kind](following) for kind, following in zip(kinds, [*kinds[1:], last], strict=True)
    )


def syn4(
    source: str, port: int, target: str = HOST4, flags: int = SYN, tags: Sequence[int] = ()
) -> bytes:
    """Return a frame with a SYN, or with other flags, to a port."""
    return ethernet(IPV4, ipv4(source, target, tcp(40000, port, flags)), tags)


def syn6(
    source: str,
    port: int,
    target: str = HOST6,
    flags: int = SYN,
    tags: Sequence[int] = (),
    kinds: Sequence[int] = (),
) -> bytes:
    """Return the same as syn4 for IPv6, after extension headers of these kinds."""
    segment = tcp(40000, port, flags)
    if not kinds:
        return ethernet(IPV6, ipv6(source, target, segment), tags)
    addresses = inet_pton(AF_INET6, source) + inet_pton(AF_INET6, target)
    payload = chain(kinds, TCP) + _filled(segment, addresses)
    return ethernet(IPV6, ipv6(source, target, payload, kinds[0]), tags)


def udp4(source: str, target: str = HOST4, tags: Sequence[int] = ()) -> bytes:
    """Return a frame that detection ignores."""
    return ethernet(IPV4, ipv4(source, target, struct.pack("!HHHH", 53, 53, 8, 0), UDP), tags)


def udp6(source: str, target: str = HOST6, tags: Sequence[int] = ()) -> bytes:
    """Return the same as udp4 for IPv6."""
    return ethernet(IPV6, ipv6(source, target, struct.pack("!HHHH", 53, 53, 8, 0), UDP), tags)
