# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Frames of a scan that never crosses a wire, and ports on which nothing listens."""

from __future__ import annotations

import struct
import typing as t

from packetwatch_core._base.errors import Unreadable

SYN, ACK = 0x02, 0x10

_TCP = 6
_KINDS = {4: 0x0800, 6: 0x86DD}
_SOURCE_PORT = 40000
_LISTEN = "0A"
_MAC = bytes(6)


def frame(source: bytes, target: bytes, port: int, flags: int = SYN) -> bytes:
    """A TCP segment without data in an Ethernet frame; addresses of 4 or 16 bytes."""
    family = 4 if len(source) == 4 else 6
    segment = struct.pack("!HHIIBBHHH", _SOURCE_PORT, port, 1, 0, 5 << 4, flags, 64240, 0, 0)
    pseudo = source + target + struct.pack("!HH", _TCP, len(segment))
    segment = segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]
    if family == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 7, 0, 64, _TCP, 0)
        check = struct.pack("!H", _checksum(head + source + target))
        head = head[:10] + check + source + target
    else:
        head = struct.pack("!IHBB", 6 << 28, len(segment), _TCP, 64) + source + target
    return (_MAC + _MAC + struct.pack("!H", _KINDS[family]) + head + segment).ljust(60, b"\0")


def _checksum(data: bytes) -> int:
    """The checksum of RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def listening() -> set[int]:
    """TCP ports on which something listens; raises `Unreadable`."""
    found = set()
    for name in ("tcp", "tcp6"):
        path = f"/proc/net/{name}"
        try:
            with open(path, encoding="ascii") as file:
                rows = [line.split() for line in file]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Unreadable(f"cannot read {path}: {error.strerror}") from error
        found |= {int(row[1].rpartition(":")[2], 16) for row in rows[1:] if row[3] == _LISTEN}
    return found


def closed_ports(
    count: int, published: t.Sequence[int], seen_open: t.Callable[[int], bool]
) -> list[int]:
    """At most `count` ports, from the highest down, that the program counts as closed."""
    taken = listening()
    found: list[int] = []
    for port in range(65535, 0, -1):
        if len(found) == count:
            break
        is_published = published[port >> 6] >> (port & 63) & 1
        if port not in taken and not is_published and not seen_open(port):
            found.append(port)
    return found
