# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How full the maps are, as metrics."""

from __future__ import annotations

import typing as t

from packetwatch_core._kernel.pins import specs

from .counters import Counters
from .guard import Guard
from .keeper import Keeper
from .metrics import GAUGE, Rows, Values, by_label
from .outlook import Outlook
from .part import Part

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map


class Room(Part):
    """Puts together what the other parts know of entries."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_map_entries": (GAUGE, "Entries of a map at the last count."),
        "packetwatch_map_capacity_entries": (GAUGE, "Entries that a map has room for."),
        "packetwatch_tracks_evicted_estimate": (
            GAUGE,
            "Sources that may have been evicted because the table was full, an estimate.",
        ),
    }

    def __init__(
        self,
        maps: t.Mapping[str, Map],
        counters: Counters,
        keeper: Keeper,
        guard: Guard,
        outlook: Outlook,
    ) -> None:
        self._maps = maps
        self._counters = counters
        self._keeper = keeper
        self._guard = guard
        self._outlook = outlook

    def values(self) -> Values:
        protection = self._guard.protection
        entries = self._keeper.entries | {
            "hosts": len(protection.hosts),
            "nets": len(protection.nets),
            "local": len(protection.local),
        }
        capacity = {name: self._maps[name].info.max_entries for name in entries}
        return of_maps(entries, capacity, self._outlook.tracks(), self._counters.values())


def of_maps(
    entries: t.Mapping[str, int],
    capacity: t.Mapping[str, int],
    tracks: float | None,
    counters: Values,
) -> Values:
    """Samples of the maps by name.

    The kernel does not count what the table of tracks evicts. What was inserted, less what scans
    removed and what fits into the table, must have been evicted.
    """
    room = specs()["tracks2"].max_entries
    found = dict(entries) | ({} if tracks is None else {"tracks": tracks})
    inserted, scans = (
        sum(number for dummy, number in counters[name])
        for name in ("packetwatch_tracks_inserted_total", "packetwatch_scans_total")
    )
    return {
        "packetwatch_map_entries": by_label("map", found),
        "packetwatch_map_capacity_entries": by_label("map", {**capacity, "tracks": room}),
        "packetwatch_tracks_evicted_estimate": [({}, max(inserted - scans - room, 0))],
    }
