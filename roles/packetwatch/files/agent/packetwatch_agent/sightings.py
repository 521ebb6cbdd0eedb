# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this host has seen, as a stream of lines for the fleet process: probes, its own bans, their ends."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._bans.bans import Ban, Source
from packetwatch_core._base.address import format_prefix, from_mapped
from packetwatch_core._kernel import abi

from .control.wire import encode
from .events import Event

if t.TYPE_CHECKING:
    from .control.follow import Lines

_SECOND = 1_000_000_000


class Sightings:
    """Writes nothing unless the stream is followed. docs/fleet-protocol.md describes the lines."""

    def __init__(self) -> None:
        self.tap: t.Callable[[Lines], None] | None = None

    def probe(self, event: Event) -> None:
        """Write a source and a closed port that is new for it, unless the probe has none."""
        if self.tap and event.dport:
            address = format_prefix(from_mapped(event.saddr, 128))
            self.tap([encode({"probe": [address, event.dport]})])

    def scan(self, event: Event) -> None:
        """Write a scan that led to a ban. Bans above the ban rate are left out: they mean a flood."""
        if self.tap and event.banned and not event.flags & abi.EVENT_IN_OVERFLOW:
            ports, left = sorted(set(event.ports)), seconds_left(event.expires)
            ban = [name_of(event.source), ports, left, event.evidence]
            self.tap([encode({"ban": ban})])

    def end(self, bans: t.Iterable[Ban]) -> None:
        """Write which sources are free again, of bans that have ended."""
        if self.tap:
            own = [
                ban for ban in bans if ban.origin != abi.ORIGIN_FLEET and ban.table != "overflow"
            ]
            if own:
                self.tap([encode({"end": [name_of(ban.source) for ban in own]})])


def name_of(source: Source) -> str:
    """The source as text from which it can be read again: a single IPv6 address has its length."""
    return source.text if source.prefix.family == 4 else source.cidr


def seconds_left(expires: int) -> float | None:
    """Seconds until a ban ends; None: it does not."""
    return round(max(expires - time.monotonic_ns(), 0) / _SECOND, 3) if expires else None
