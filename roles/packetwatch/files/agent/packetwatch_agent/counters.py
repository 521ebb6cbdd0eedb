# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program's counters as metrics."""

from __future__ import annotations

import typing as t

from packetwatch_core._kernel.counters import connections, packets, read_counters, scans

from .metrics import COUNTER, Rows, Values, by_label
from .part import Part

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map

# By the field of `struct pw_counters` that has the number.
_SIMPLE = {
    "bans_overflow": (
        "packetwatch_bans_overflow_total",
        "Short bans made above the rate that the table of scan bans takes.",
    ),
    "bans_failed": ("packetwatch_bans_failed_total", "Bans that the program could not write."),
    "firsts_evicted": (
        "packetwatch_first_ports_evicted_total",
        "Sources whose only port was evicted before its time because the table was full.",
    ),
    "tracks_inserted": (
        "packetwatch_tracks_inserted_total",
        "Sources that have hit a second port.",
    ),
    "tracks_failed": ("packetwatch_tracks_failed_total", "Sources that could not be counted."),
    "events": ("packetwatch_events_total", "Events written to the ring."),
    "events_suppressed": (
        "packetwatch_events_suppressed_total",
        "Events that the rate limits suppressed.",
    ),
    "events_lost": ("packetwatch_events_lost_total", "Events lost because the ring was full."),
    "probes": (
        "packetwatch_probes_total",
        "New probes that the program has reported to the agent.",
    ),
    "probes_lost": (
        "packetwatch_probes_lost_total",
        "New probes that were not reported: above their limit, or the ring was full.",
    ),
}


class Counters(Part):
    """Counts since the program's maps were made."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_packets_total": (COUNTER, "Packets by verdict, reason and family."),
        "packetwatch_connections_total": (
            COUNTER,
            "New connections (SYN without ACK) that no list and no ban has dropped.",
        ),
        "packetwatch_scans_total": (
            COUNTER,
            "Sources that have crossed the scan threshold, by kind.",
        ),
        "packetwatch_bans_total": (
            COUNTER,
            "Bans made: by the program since it was loaded, others since the agent's start.",
        ),
    } | {name: (COUNTER, text) for name, text in _SIMPLE.values()}

    def __init__(self, counters: Map) -> None:
        self._counters = counters

    def values(self) -> Values:
        return of_counters(read_counters(self._counters))


def of_counters(found: dict[str, t.Any]) -> Values:
    """Samples from the sums over all CPUs, by the fields of `struct pw_counters`."""
    values: Values = {name: [({}, found[field])] for field, (name, dummy) in _SIMPLE.items()}
    values["packetwatch_packets_total"] = [
        ({"verdict": verdict, "reason": reason, "family": family}, number)
        for verdict, reason, family, number in packets(found)
    ]
    values["packetwatch_connections_total"] = by_label("family", connections(found))
    values["packetwatch_scans_total"] = by_label("kind", scans(found))
    values["packetwatch_bans_total"] = [({"origin": "scan"}, found["bans"])]
    return values
