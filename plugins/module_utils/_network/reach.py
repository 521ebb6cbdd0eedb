# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Checks that protected addresses can still reach the host: the loaded program runs on test packets.

It is the real program with its real tables, so it gives the verdict that a real packet will get. It also
counts and logs the test packets.
"""

from __future__ import annotations

import struct
import typing as t

from .._base.address import format_prefix, from_mapped
from .._base.errors import LoadFailed, some_of
from .._kernel.abi import NET_PROTECTED
from . import protect

if t.TYPE_CHECKING:
    from .._kernel.programs import Program
    from .protect import Network, Protection

_PASS = 2
_MAPPED = b"\0" * 10 + b"\xff\xff"
_SYN = 2
_CLIENT_PORT = 50000
_TCP = 6
_MAX_EXAMPLES = 5
_LOOPBACK_NET = (104, _MAPPED + b"\x7f\0\0\0")


def unreached(
    program: Program | None,
    ifindexes: t.Mapping[str, int],
    protection: Protection,
    network: Network,
    ports: t.Collection[int],
) -> list[str]:
    """Return which sources could not open a connection to the SSH ports, as "ADDRESS on INTERFACE".

    program: the loaded one; None if there is none. ifindexes: by the names of the interfaces to check. protection: the protected addresses are the sources
    to check, without the host's loopback addresses. ports: of the SSH server.
    """
    sources = sorted(_sources(protection))
    failed = []
    for name, ifindex in sorted(ifindexes.items() if program else ()):
        for source in sources:
            target = _target(source, ifindex, network)
            if program and target and not _pass(program, ifindex, source, target, ports):
                failed.append(f"{format_prefix(from_mapped(source, 128))} on {name}")
    return failed


def check(failed: list[str]) -> None:
    """Raise LoadFailed if `unreached` returned any source."""
    if failed:
        raise LoadFailed(
            "the filter would not let protected addresses open a connection to the SSH server: "
            f"{some_of(failed, _MAX_EXAMPLES)}; the host has reverted the change; allow these addresses first"
        )


def _sources(protection: Protection) -> set[bytes]:
    hosts = {key for key, origin in protection.hosts.items() if origin != protect.LOOPBACK}
    nets = {
        address
        for (length, address), flags in protection.nets.items()
        if flags & NET_PROTECTED and (length, address) != _LOOPBACK_NET
    }
    return hosts | nets


def _target(source: bytes, ifindex: int, network: Network) -> bytes | None:
    """Return an address of this host in the source's family, if possible one of that interface.

    None if the host has no address of the family.
    """
    size = 4 if source.startswith(_MAPPED) else 16
    own = [address for address in network.addresses if len(address.address) == size]
    own.sort(key=lambda address: address.ifindex != ifindex)
    return own[0].address if own else None


def _pass(
    program: Program, ifindex: int, source: bytes, target: bytes, ports: t.Collection[int]
) -> bool:
    return all(
        program.test_run(syn(source, target, port), ifindex)[0] == _PASS for port in sorted(ports)
    )


def syn(source: bytes, target: bytes, port: int) -> bytes:
    """Return an Ethernet frame with a TCP SYN; source: 16 bytes, target: 4 bytes for IPv4, or 16."""
    tcp = struct.pack("!HHIIBBH", _CLIENT_PORT, port, 1, 0, 5 << 4, _SYN, 64240)
    if len(target) == 4:
        addresses = source[12:] + target
        pseudo = addresses + struct.pack("!BBH", 0, _TCP, len(tcp) + 4)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 24 + len(tcp), 0, 0, 64, _TCP, 0)
        checked = head[:10] + struct.pack("!H", _checksum(head + addresses))
        packet, kind = checked + addresses, 0x0800
    else:
        addresses = source + target
        pseudo = addresses + struct.pack("!II", len(tcp) + 4, _TCP)
        packet = struct.pack("!IHBB", 6 << 28, len(tcp) + 4, _TCP, 64) + addresses
        kind = 0x86DD
    tcp += struct.pack("!HH", _checksum(pseudo + tcp), 0)
    return (bytes(12) + struct.pack("!H", kind) + packet + tcp).ljust(60, b"\0")


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
