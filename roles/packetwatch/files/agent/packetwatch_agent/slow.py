# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scans that are slower than the program's window: the agent counts new probes for hours."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._kernel import abi

from .events import Event
from .metrics import COUNTER, GAUGE, Rows, Values, by_label
from .output import Output, Trouble
from .part import Part
from .probes import Probes, slot_of

if t.TYPE_CHECKING:
    from packetwatch_core._bans.bans import Source

    from .confirmed import Confirmed

_SECOND = 1_000_000_000
_PROBE_PORT = (1 << 16) - 1
_PROBE_TARGET = (1 << 15) - 1
_TCP = ("syn", "stealth", "ack")


class Slow(Part):
    """Bans a source at slow_scan_ports distinct probes within slow_scan_window.

    impose: bans the source of a scan on an interface, and returns the scan with what became of it; None if
    the source is already banned. report: logs it. What is counted ends with the process.
    """

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_scans_total": (
            COUNTER,
            "Sources that have crossed the scan threshold, by kind.",
        ),
        "packetwatch_slow_sources": (
            GAUGE,
            "Sources whose probes the agent counts for slow scans, by number of probes.",
        ),
        "packetwatch_slow_sources_evicted_total": (
            COUNTER,
            "Sources that the agent has evicted within slow_scan_window because there was no room.",
        ),
    }

    def __init__(
        self,
        confirmed: Confirmed,
        names: t.Callable[[int], str],
        impose: t.Callable[[Event, str], Event | None],
        report: t.Callable[[Event], None],
        output: Output,
    ) -> None:
        self._confirmed = confirmed
        self._names = names
        self._impose = impose
        self._report = report
        self._trouble = Trouble(output)
        self._probes = Probes()
        self._scans = 0

    def values(self) -> Values:
        probes = self._probes
        return {
            "packetwatch_scans_total": [({"kind": "slow"}, self._scans)],
            "packetwatch_slow_sources": by_label(
                "probes", {"one": probes.firsts, "several": probes.tracks}
            ),
            "packetwatch_slow_sources_evicted_total": [({}, probes.evicted)],
        }

    def probe(self, event: Event) -> None:
        """Count a new probe."""
        interface = self._names(event.ifindex)
        policy = self._confirmed.policy(interface)
        if not policy.slow_scan_ports:
            return
        # A port of another protocol is another probe.
        protocol = "tcp" if event.kind in _TCP else event.kind
        probe = (hash((event.daddr, protocol)) & _PROBE_TARGET) << 16 | event.dport
        slot = slot_of(event.time // _SECOND, probe)
        slots = self._probes.add(event.source.key, slot, int(policy.slow_scan_window))
        if len(slots) >= policy.slow_scan_ports:
            self.forget(event.source)
            self._complete(_scan_of(event, slots), interface)

    def scan(self, event: Event) -> None:
        """Forget the source of a scan: its probes have been counted."""
        self.forget(event.source)

    def forget(self, source: Source) -> None:
        self._probes.forget(source.key)

    def _complete(self, scan: Event, interface: str) -> None:
        try:
            judged = self._impose(scan, interface)
        except PacketwatchError as error:
            self._trouble.log(f"a slow scan leads to no ban: {error}")
            return
        self._trouble.log("")
        if judged:
            self._scans += 1
            self._report(judged)


def _scan_of(probe: Event, slots: t.Sequence[int]) -> Event:
    """The scan that a probe has completed. The program has not written it, so it has no sequence."""
    return probe._replace(
        type=abi.EVENT_BAN,
        sequence=0,
        flags=abi.kind_flags("slow"),
        distinct=len(slots),
        ports=tuple(sorted({slot & _PROBE_PORT for slot in slots})),
    )
