# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scan of a drill: a source of which nothing is known tries closed ports of this host."""

from __future__ import annotations

import secrets
import typing as t

from packetwatch_core._bans.bans import Source
from packetwatch_core._base.address import format_prefix, from_mapped, mapped, parse_prefix

from .. import why
from . import frames
from .ground import SECOND, Ground
from .red import Red

# RFC 5737; for IPv6 it is 2001:db8::/32 (RFC 3849).
_DOCUMENTATION = ("192.0.2", "198.51.100", "203.0.113")
ATTEMPTS = 256


class Scan(t.NamedTuple):
    """A source, its target and its ports; both addresses as the maps have them."""

    family: int
    text: str
    source: Source
    address: bytes
    target: bytes
    ports: list[int]

    def packet(self, port: int, flags: int = frames.SYN) -> bytes:
        """One packet of it."""
        source, target = (
            address[12:] if self.family == 4 else address for address in (self.address, self.target)
        )
        return frames.frame(source, target, port, flags)

    @property
    def rate_key(self) -> bytes:
        """The key by which the program limits the source's events: IPv6 by /64."""
        return self.address if self.family == 4 else self.address[:8] + bytes(8)


def choose(ground: Ground, family: int, now: int) -> Scan:
    """A scan that the program must notice; raises `Red`. now: CLOCK_MONOTONIC ns."""
    _check_grace(ground, now)
    target = _choose_target(ground, family)
    ports = _choose_ports(ground)
    text, source = _choose_source(ground, family)
    return Scan(family, text, source, mapped(parse_prefix(text)), target, ports)


def _check_grace(ground: Ground, now: int) -> None:
    grace = ground.policy["grace_ns"]
    left = grace - now
    if ground.interface.counts == "closed" and left > 0:
        raise Red(
            f"the host has just booted: nothing counts for the first {grace / SECOND:g} s "
            f"(scan_grace): try again in {left // SECOND + 1} s"
        )


def _choose_target(ground: Ground, family: int) -> bytes:
    """An address of this host, because with scan_counts: closed only SYNs to one count."""
    own = sorted(
        key
        for key, dummy in ground.maps["local"].items()
        if from_mapped(key, 128).family == family and not _is_loopback(key)
    )
    if own:
        return own[0]
    if ground.interface.counts == "any":
        return mapped(parse_prefix("192.0.2.1" if family == 4 else "2001:db8::1"))
    raise Red(
        f"this host has no IPv{family} address that the program knows of: with "
        "scan_counts: closed only packets to one count (try the other family, -4 or -6)"
    )


def _is_loopback(key: bytes) -> bool:
    text = format_prefix(from_mapped(key, 128))
    return text.startswith("127.") or text == "::1"


def _choose_ports(ground: Ground) -> list[int]:
    count = ground.policy["scan_ports"]
    if ground.interface.counts == "any":
        return list(range(65535, 65535 - count, -1))
    found = frames.closed_ports(count, ground.published, ground.was_open)
    if len(found) < count:
        raise Red(f"only {len(found)} ports are closed here, a scan needs {count}")
    return found


def _choose_source(ground: Ground, family: int) -> tuple[str, Source]:
    """A documentation address of which the host knows nothing."""
    for dummy in range(ATTEMPTS):
        if family == 4:
            text = f"{secrets.choice(_DOCUMENTATION)}.{1 + secrets.randbelow(254)}"
        else:
            text = f"2001:db8:{secrets.randbelow(65535) + 1:x}:{secrets.randbelow(65535):x}::7"
        source = ground.bans.source_of(text)
        if _is_unknown(ground, text, source):
            return text, source
    networks = [f"{net}.0/24" for net in _DOCUMENTATION] if family == 4 else ["2001:db8::/32"]
    raise Red(
        "no documentation address is free: lists, bans or protected addresses cover all of "
        f"{', '.join(networks)}; try the other family (-4, -6)"
    )


def _is_unknown(ground: Ground, text: str, source: Source) -> bool:
    found = ground.bans.why(text)
    return (
        why.verdict_of(ground.tables, parse_prefix(text)) == "none"
        and not found.protected
        and not found.bans
        and ground.find_ban(source) is None
        and not ground.is_counted(source)
    )
