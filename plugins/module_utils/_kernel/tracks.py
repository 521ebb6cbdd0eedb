# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Tracks of an earlier version, in the map ``tracks``, become tracks of this one in ``tracks2``.

Their slots had ``(ns >> 10) << 16 | port``, without the destination.
"""

from __future__ import annotations

import typing as t

from . import abi
from .first_ports import address_hash

if t.TYPE_CHECKING:
    from .libbpf import Map

_FORMER_SHIFT = 10
_V4 = b"\0" * 10 + b"\xff\xff"
_LOOPBACK = (_V4 + b"\x7f", b"\0" * 15 + b"\x01")
_LINK_LOCAL = b"\xfe\x80"


def adopt(former: Map, maps: t.Mapping[str, Map]) -> None:
    """Write the tracks of an earlier version to the map ``tracks2``.

    Each port counts as one of the host's address of the same kind. If there are several, a port of
    another one may count twice until the former time has left the window.
    """
    seed = abi.SHARED.unpack(maps["shared"].lookup(bytes(4)) or b"")["seed"]
    local = sorted(maps["local"].keys())
    own = [address for address in local if not address.startswith(_LOOPBACK)]
    for key, value in former.each():
        track = abi.TRACK.unpack(value)
        kind = _kind(abi.SOURCE.unpack(key)["addr"])
        target = next((address for address in own if _kind(address) == kind), None)
        tag = 0 if target is None else address_hash(target, seed) >> 49
        slots = [_slot(slot, tag) for slot in track["slot"]]
        maps["tracks2"].update(key, abi.TRACK.pack(slot=slots, claimed=track["claimed"]))


def _slot(former: int, tag: int) -> int:
    when = former >> 16 << _FORMER_SHIFT >> abi.TIME_SHIFT
    return (when & 0xFFFFFFFF) << 32 | tag << 16 | former & 0xFFFF if former else 0


def _kind(address: bytes) -> bytes:
    """IPv4, link-local, or all other IPv6."""
    return next((kind for kind in (_V4, _LINK_LOCAL) if address.startswith(kind)), b"")
