# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which source the kernel bans for an address: every host must find the same one."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.address import BITS, Prefix, format_prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput

_HALF = 64


class Sources:
    """Addresses as sources of bans. shared: IPv6 prefixes whose sources are banned singly."""

    def __init__(self, shared: t.Sequence[Prefix] = ()) -> None:
        self._shared = shared

    def of(self, text: str) -> str:
        """``192.0.2.7``, ``2001:db8::/64``, or ``2001:db8::7`` in a shared prefix; raises `InvalidInput`."""
        prefix = parse_prefix(text)
        if prefix.family == 6 and prefix.is_host and not self._is_shared(prefix):
            prefix = Prefix(6, prefix.value >> _HALF << _HALF, _HALF)
        if not (prefix.is_host or (prefix.family == 6 and prefix.length == _HALF)):
            raise InvalidInput(f"{text} is a network: bans are on single addresses or an IPv6 /64")
        return format_prefix(prefix)

    def _is_shared(self, host: Prefix) -> bool:
        return any(one.family == 6 and one.value <= host.value <= one.last for one in self._shared)


def packed(source: str) -> bytes:
    """The bytes of a source: 4 of IPv4, 8 of a /64, 16 of a single IPv6 address. Raises `InvalidInput`."""
    prefix = parse_prefix(source)
    if prefix.family == 6 and prefix.length == _HALF:
        return (prefix.value >> _HALF).to_bytes(8, "big")
    return prefix.value.to_bytes(BITS[prefix.family] // 8, "big")


def unpacked(data: bytes) -> str:
    """The source of bytes as `packed` makes them."""
    value = int.from_bytes(data, "big")
    if len(data) == 8:
        return format_prefix(Prefix(6, value << _HALF, _HALF))
    return format_prefix(Prefix(4, value, 32) if len(data) == 4 else Prefix(6, value, 128))


def network_of(start: bytes) -> str:
    """The /24 or /48 that begins with 3 or 6 bytes."""
    family, bits = (4, 32) if len(start) == 3 else (6, 128)
    length = 8 * len(start)
    return format_prefix(Prefix(family, int.from_bytes(start, "big") << (bits - length), length))
