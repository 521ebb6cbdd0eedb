# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``sweep`` and ``slow``: a source tries closed ports on several hosts, more than any of them can see alone."""

from __future__ import annotations

import typing as t

from packetwatch_fleet.observed import HostBan, Pair
from packetwatch_fleet.pages import EVIDENCE

from .interface import UNREACHABLE, Decision, Found, Hosts
from .table import Sighting, Table

# Hosts and ports that a decision names.
SHOWN = 8
# Hosts that are told apart: the number of a host and a port are one sighting of 32 bits.
MAX_HOSTS = 1 << 16


class _Scans:
    """What both rules share. shift: as `Table` has it; enough: sightings that are reported."""

    def __init__(
        self, thresholds: t.Mapping[str, float], hosts: Hosts, shift: int, enough: str
    ) -> None:
        self._seconds = thresholds["seconds"]
        self._window = thresholds["window"]
        self._hosts = round(thresholds["hosts"])
        self._fleet = hosts
        self._table = Table(shift, self._window, round(thresholds[enough]))

    def bans(self, host: int, bans: t.Sequence[HostBan], now: float) -> t.Iterator[Found]:
        yield from ()

    def tick(self, now: float) -> t.Iterator[Found]:
        self._table.expire(now)
        yield from ()

    def forget(self, source: bytes) -> None:
        self._table.forget(source)

    def values(self) -> t.Mapping[str, float]:
        return {
            "entries": self._table.entries,
            "lost": self._table.lost,
            UNREACHABLE: len(self._fleet.present()) < self._hosts,
        }


class Sweep(_Scans):
    """A source has tried a closed port on `hosts` hosts within `window` seconds."""

    name = "sweep"

    def __init__(self, thresholds: t.Mapping[str, float], hosts: Hosts) -> None:
        super().__init__(thresholds, hosts, 16, "hosts")

    def seen(self, host: int, pairs: t.Sequence[Pair], now: float) -> t.Iterator[Found]:
        if not 0 <= host < MAX_HOSTS:
            return
        for source, found in self._table.add(pairs, host << 16, now):
            self._table.forget(source)
            ports = _first(one.note for one in found)
            why = f"it has tried closed ports on {len(found)} hosts within {self._window:g} s"
            yield Decision(
                source,
                self._seconds,
                EVIDENCE[0],
                len(found),
                _first(one.kind for one in found),
                ports,
                why,
            )


class Slow(_Scans):
    """A source has tried `probes` different pairs of a host and a closed port, on at least `hosts` hosts, in `window`."""

    name = "slow"

    def __init__(self, thresholds: t.Mapping[str, float], hosts: Hosts) -> None:
        super().__init__(thresholds, hosts, 0, "probes")

    def seen(self, host: int, pairs: t.Sequence[Pair], now: float) -> t.Iterator[Found]:
        if not 0 <= host < MAX_HOSTS:
            return
        for source, found in self._table.add(pairs, host << 16, now):
            hosts = dict.fromkeys(one.kind >> 16 for one in found)
            if len(hosts) >= self._hosts:
                self._table.forget(source)
                yield self._decision(source, found, hosts)

    def _decision(
        self, source: bytes, found: t.Sequence[Sighting], hosts: t.Collection[int]
    ) -> Decision:
        return Decision(
            source,
            self._seconds,
            EVIDENCE[0],
            len(hosts),
            _first(hosts),
            _first(one.kind & 0xFFFF for one in found),
            f"it has tried {len(found)} closed ports on {len(hosts)} hosts within {self._window / 3600:g} h",
        )


def _first(numbers: t.Iterable[int]) -> tuple[int, ...]:
    """The first different ones."""
    return tuple(dict.fromkeys(numbers))[:SHOWN]
