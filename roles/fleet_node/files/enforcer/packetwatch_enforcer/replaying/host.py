# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host of a recording: what its fleet process would have reported, and when."""

from __future__ import annotations

import typing as t

from packetwatch_core._bans.recorded import Line, number_of, parse_time, text_of
from packetwatch_core._base.errors import InvalidInput
from packetwatch_fleet.reports import Reports
from packetwatch_fleet.sources import Sources

SEEN, BANS = "seen", "bans"
# Seconds between two reports of bans (packetwatch_fleet.host.witness).
_BANS = 0.5


class ReplayedHost:
    """Collects reports as `packetwatch_fleet.host.witness` does. Times are Unix seconds. batch: between two of ``seen``."""

    def __init__(self, sources: Sources, batch: float) -> None:
        self.reports = Reports(sources)
        self.addresses: dict[str, None] = {}
        """Addresses of the host, as far as probes have gone there."""
        self._intervals = {SEEN: batch, BANS: _BANS}
        self._last: dict[str, float] = {}
        self._waiting: set[str] = set()

    def take(self, line: Line, now: float) -> tuple[str, float] | None:
        """Take a line; return which report it changes and when that is due, unless that is known already."""
        kind = self.reports.take(_item_of(line), now)
        if not kind or kind in self._waiting:
            return None
        self._waiting.add(kind)
        last = self._last.get(kind)
        return kind, now if last is None else max(now, last + self._intervals[kind])

    def report(self, kind: str, now: float) -> bytes:
        """The value that the host writes now."""
        self._waiting.discard(kind)
        self._last[kind] = now
        return self.reports.bans(now, 0.0) if kind == BANS else self.reports.seen(now, 0.0)


def _item_of(line: Line) -> dict[str, t.Any] | None:
    """The item of the agent's stream that stands for a line."""
    fields = line.fields
    prefix, origin = text_of(fields, "packetwatch.prefix"), text_of(fields, "packetwatch.origin")
    if line.action == "probe":
        port = number_of(fields, "destination.port")
        # Probes without a port are not in the stream.
        return {"probe": [text_of(fields, "source.ip"), port]} if port else None
    if line.action == "ban" and origin == "scan" and not fields.get("packetwatch.overflow"):
        end = parse_time(fields.get("packetwatch.expires"))
        if end is None:
            raise InvalidInput("a ban without an end")
        seconds = (end - line.time) / 1e9
        ports, evidence = fields.get("packetwatch.ports", []), fields.get("packetwatch.evidence")
        return {"ban": [prefix, ports, seconds, evidence]}
    if line.action in ("expiry", "lift") and origin != "fleet":
        return {"end": [prefix]}
    return None
