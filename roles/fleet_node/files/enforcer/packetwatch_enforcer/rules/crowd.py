# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``crowd``: many sources of one network try closed ports. It proposes the network, and bans nothing."""

from __future__ import annotations

import typing as t

from packetwatch_fleet.observed import HostBan, Pair
from packetwatch_fleet.sources import network_of

from .interface import Found, Hosts, Proposal
from .table import Table

_FIRSTS, _MOST = 1 << 18, 20_000
# Networks that were proposed within the window.
_MAX_PROPOSED = 1000
_SHOWN = 8


class Crowd:
    """`sources` sources of one /24 or /48 have tried closed ports within `window` seconds."""

    name = "crowd"

    def __init__(self, thresholds: t.Mapping[str, float], hosts: Hosts) -> None:
        self._window = thresholds["window"]
        self._table = Table(16, self._window, round(thresholds["sources"]), _FIRSTS, _MOST)
        self._proposed: dict[bytes, float] = {}

    def seen(self, host: int, pairs: t.Sequence[Pair], now: float) -> t.Iterator[Found]:
        for network, found in self._table.add(_members(pairs), 0, now):
            self._table.forget(network)
            if network in self._proposed:
                continue
            if len(self._proposed) < _MAX_PROPOSED:
                self._proposed[network] = now
            ports = tuple(dict.fromkeys(one.note for one in found))[:_SHOWN]
            text = network_of(network)
            why = (
                f"{len(found)} sources of {text} have tried closed ports within {self._window:g} s"
            )
            yield Proposal(network, len(found), ports, why)

    def bans(self, host: int, bans: t.Sequence[HostBan], now: float) -> t.Iterator[Found]:
        yield from ()

    def tick(self, now: float) -> t.Iterator[Found]:
        self._table.expire(now)
        oldest = now - self._window
        self._proposed = {
            network: then for network, then in self._proposed.items() if then > oldest
        }
        yield from ()

    def forget(self, source: bytes) -> None:
        """Do nothing: a source is not a crowd."""

    def values(self) -> t.Mapping[str, float]:
        return {
            "entries": self._table.entries,
            "lost": self._table.lost,
            "proposed": len(self._proposed),
        }


def _members(pairs: t.Iterable[Pair]) -> t.Iterator[tuple[bytes, int]]:
    """The network of each source, with the rest of the source and the port as the sighting."""
    for source, port in pairs:
        if len(source) == 4:
            yield source[:3], source[3] << 16 | port
        else:
            yield source[:6], (source[6] << 8 | source[7]) << 16 | port
