# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The metrics: their names, what they mean, and their text in Prometheus' exposition format.

docs/metrics.md describes them for readers; a test holds it against `CATALOGUE`.
"""

from __future__ import annotations

import os
import time
import typing as t

from packetwatch_core._kernel import abi
from packetwatch_core._kernel.counters import add_up, connections, packets
from packetwatch_core._kernel.pins import specs

from . import __version__

Labels = dict[str, str]
Sample = tuple[Labels, float]
Values = dict[str, list[Sample]]

COUNTER, GAUGE = "counter", "gauge"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

CATALOGUE = {
    "packetwatch_build_info": (GAUGE, "Version of the agent and number of its ABI, always 1."),
    "packetwatch_attached": (
        GAUGE,
        "1 if our program sits on the interface, in the mode that the kernel tells, else 0.",
    ),
    "packetwatch_lists_in_kernel": (
        GAUGE,
        "1 if the tables read back from the kernel are those compiled from confirmed state.",
    ),
    "packetwatch_lists_verified_timestamp_seconds": (
        GAUGE,
        "When confirmed state was last compiled and compared with the kernel.",
    ),
    "packetwatch_entries_declared": (GAUGE, "Entries of the declared lists that count now."),
    "packetwatch_feed_entries_left_out": (
        GAUGE,
        "Entries of feeds that would hit a connected network or a protected address.",
    ),
    "packetwatch_feeds_broken": (GAUGE, "Feeds that are damaged on disk, and left out as a whole."),
    "packetwatch_ranges_in_kernel": (GAUGE, "Address ranges in the compiled tables, by family."),
    "packetwatch_tables_used_bytes": (GAUGE, "Kernel memory that the live tables need."),
    "packetwatch_tables_capacity_bytes": (
        GAUGE,
        "Kernel memory that is set aside for them: larger tables need the program loaded anew.",
    ),
    "packetwatch_generation_info": (GAUGE, "Digest of all that decides a verdict, always 1."),
    "packetwatch_confirmed_state": (GAUGE, "Number of the confirmed state."),
    "packetwatch_panic": (GAUGE, "1 while somebody has everything pass."),
    "packetwatch_change_pending": (GAUGE, "1 while a change is live that is not confirmed."),
    "packetwatch_apply_timestamp_seconds": (GAUGE, "When tables last went live, or failed to."),
    "packetwatch_apply_success": (GAUGE, "1 if the last apply of confirmed state succeeded."),
    "packetwatch_drift": (
        GAUGE,
        "Things that are not as they were confirmed, as far as the agent sees.",
    ),
    "packetwatch_repairs_total": (
        COUNTER,
        "Times that root has mended such things, or failed to, since boot.",
    ),
    "packetwatch_repair_timestamp_seconds": (GAUGE, "When root last tried to."),
    "packetwatch_interface_receive_discards_total": (
        COUNTER,
        "Packets that the card or the kernel discarded and that no filter has seen, as a rule.",
    ),
    "packetwatch_packets_total": (COUNTER, "Packets by verdict, reason and family."),
    "packetwatch_connections_total": (
        COUNTER,
        "New connections (SYN without ACK) that no list and no ban has dropped.",
    ),
    "packetwatch_scans_total": (COUNTER, "Sources that have crossed the scan threshold."),
    "packetwatch_bans_total": (
        COUNTER,
        "Bans made: by the program since it was loaded, others since the agent's start.",
    ),
    "packetwatch_bans_overflow_total": (
        COUNTER,
        "Short bans made above the rate that the table of scan bans takes.",
    ),
    "packetwatch_bans_failed_total": (COUNTER, "Bans that the program could not write."),
    "packetwatch_bans_active": (GAUGE, "Bans that hit now, by origin."),
    "packetwatch_bans_expired_total": (COUNTER, "Bans that ended at their time."),
    "packetwatch_bans_lifted_total": (COUNTER, "Bans that ended before their time."),
    "packetwatch_protected_addresses": (GAUGE, "Addresses that are never banned, by origin."),
    "packetwatch_map_entries": (GAUGE, "Entries of a map when somebody looked last."),
    "packetwatch_map_capacity_entries": (GAUGE, "Entries that a map has room for."),
    "packetwatch_tracks_evicted_estimate": (
        GAUGE,
        "Sources that may have been forgotten for want of room, an estimate.",
    ),
    "packetwatch_first_ports_evicted_total": (
        COUNTER,
        "Sources whose only port was forgotten before its time, for want of room.",
    ),
    "packetwatch_tracks_inserted_total": (COUNTER, "Sources that have hit a second port."),
    "packetwatch_tracks_failed_total": (COUNTER, "Sources that could not be counted."),
    "packetwatch_events_total": (COUNTER, "Events written to the ring."),
    "packetwatch_events_suppressed_total": (COUNTER, "Events held back by the rate limits."),
    "packetwatch_events_lost_total": (COUNTER, "Events lost because the ring was full."),
    "packetwatch_ring_backlog_bytes": (GAUGE, "Bytes in the ring that wait for the agent."),
    "packetwatch_agent_records_total": (
        COUNTER,
        "Records read from the ring since the agent's start, by type.",
    ),
    "packetwatch_episodes_total": (
        COUNTER,
        "Episodes that the agent has told: of scans without a ban, of what monitoring let pass.",
    ),
    "packetwatch_agent_suppressed_total": (
        COUNTER,
        "Events of whose kind there were too many at once for the agent to tell, by kind.",
    ),
    "packetwatch_heartbeat_last_success_timestamp_seconds": (
        GAUGE,
        "When a heartbeat was last received, 0 if none was since the agent's start.",
    ),
    "packetwatch_heartbeat_failures_total": (COUNTER, "Heartbeats that could not be sent."),
    "packetwatch_agent_last_save_timestamp_seconds": (
        GAUGE,
        "When the bans were last written to disk, 0 if not since the agent's start.",
    ),
    "packetwatch_agent_start_time_seconds": (GAUGE, "When the agent started."),
    "packetwatch_agent_resident_memory_bytes": (GAUGE, "Memory of the agent's process."),
    "packetwatch_agent_cpu_seconds_total": (COUNTER, "CPU time of the agent's process."),
}

_SIMPLE = {
    "scans": "packetwatch_scans_total",
    "bans_overflow": "packetwatch_bans_overflow_total",
    "bans_failed": "packetwatch_bans_failed_total",
    "firsts_evicted": "packetwatch_first_ports_evicted_total",
    "tracks_inserted": "packetwatch_tracks_inserted_total",
    "tracks_failed": "packetwatch_tracks_failed_total",
    "events": "packetwatch_events_total",
    "events_suppressed": "packetwatch_events_suppressed_total",
    "events_lost": "packetwatch_events_lost_total",
}


def by_label(label: str, numbers: t.Mapping[str, float]) -> list[Sample]:
    """Samples that differ in one label."""
    return [({label: value}, number) for value, number in numbers.items()]


def of_counters(value: bytes) -> Values:
    """Values of the program's counters, `struct pw_counters` of all CPUs one after the other."""
    found = add_up(value)
    values: Values = {name: [({}, found[field])] for field, name in _SIMPLE.items()}
    values["packetwatch_packets_total"] = [
        ({"verdict": verdict, "reason": reason, "family": family}, number)
        for verdict, reason, family, number in packets(found)
    ]
    values["packetwatch_connections_total"] = by_label("family", connections(found))
    values["packetwatch_bans_total"] = [({"origin": "scan"}, found["bans"])]
    return values


def of_maps(
    entries: t.Mapping[str, int],
    capacity: t.Mapping[str, int],
    tracks: float | None,
    values: Values,
) -> Values:
    """How full the maps are. The table of tracks tells no evictions: what was inserted, without
    those that a scan took out, and has no room, must have been pushed out."""
    room = specs()["tracks"].max_entries
    found = dict(entries) | ({} if tracks is None else {"tracks": tracks})
    inserted, scans = (
        values[name][0][1]
        for name in ("packetwatch_tracks_inserted_total", "packetwatch_scans_total")
    )
    return {
        "packetwatch_map_entries": by_label("map", found),
        "packetwatch_map_capacity_entries": by_label("map", {**capacity, "tracks": room}),
        "packetwatch_tracks_evicted_estimate": [({}, max(inserted - scans - room, 0))],
    }


def of_build() -> Values:
    """Which agent this is."""
    return {"packetwatch_build_info": [({"version": __version__, "abi": str(abi.ABI)}, 1)]}


def of_process(started: float) -> Values:
    """Values of the agent's own process; `started` in seconds since 1970."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return {
        "packetwatch_agent_start_time_seconds": [({}, started)],
        "packetwatch_agent_resident_memory_bytes": [({}, pages * os.sysconf("SC_PAGESIZE"))],
        "packetwatch_agent_cpu_seconds_total": [({}, time.process_time())],
    }


def render(values: Values) -> str:
    """The text that Prometheus reads, in the order of `CATALOGUE`."""
    lines = []
    for name, (kind, help_text) in CATALOGUE.items():
        samples = values.get(name)
        if samples:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
