# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From recorded lines to what the detection gets, and to what a recording cannot tell."""

from __future__ import annotations

import collections
import typing as t

from packetwatch_core._bans.recorded import Line, number_of, text_of
from packetwatch_core._base.address import Prefix, format_prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.kinds import nanoseconds

from .window import Probe, Window

if t.TYPE_CHECKING:
    from .detector import Ban, Detector

_HALF = 64
_TCP = "tcp"
_TCP_KINDS = ("syn", "stealth", "ack")


class Player:
    """Hands recorded lines to a detector.

    A probe line is written for a new probe only. If a source repeats it within the window of the
    recording, only a connection line says so. recorded_window: that window in seconds. shared: IPv6 prefixes
    whose addresses are sources of their own.
    """

    def __init__(
        self, detector: Detector, recorded_window: float, shared: t.Sequence[Prefix] = ()
    ) -> None:
        self._detector = detector
        self._recorded_window = nanoseconds(recorded_window)
        self._closed = Window(self._recorded_window, 1)
        self._shared = shared
        self._singles: set[str] = set()
        self.bans: list[Ban] = []
        self.protected: set[str] = set()
        """Sources whose scans led to no ban, because the host protected them."""
        self.actions: collections.Counter[str] = collections.Counter()
        self.hosts: set[str] = set()
        self.interfaces: set[str] = set()
        self.first = self.last = 0
        self.suppressed = self.lost = self.probes_lost = self.hidden = self.damaged = 0
        self.scan_bans = 0
        """Bans of scans that the host has made itself."""
        self.other_bans = 0

    def feed(self, line: Line) -> None:
        """Take the next line."""
        self.first = self.first or line.time
        self.last = line.time
        if line.host:
            self.hosts.add(line.host)
        self.actions[line.action] += 1
        try:
            self._take(line)
        except InvalidInput:
            self.damaged += 1

    def _take(self, line: Line) -> None:
        fields = line.fields
        if line.action == "probe":
            kind = text_of(fields, "packetwatch.kind")
            source = self._source_of_scan(fields)
            probe = _probe_of(fields, _TCP if kind in _TCP_KINDS else kind)
            self._closed.touch(source, probe, line.time, self._recorded_window)
            self._detect(line, source, probe, kind)
        elif line.action == "connection":
            self._connection(line)
        elif line.action in ("ban", "scan"):
            self._scan(line)
        elif not line.action:
            self.suppressed += number_of(fields, "packetwatch.suppressed")
            self.lost += number_of(fields, "packetwatch.lost")
            self.probes_lost += number_of(fields, "packetwatch.probes_lost")

    def _connection(self, line: Line) -> None:
        if line.fields.get("packetwatch.opaque"):
            self.hidden += 1
            return
        source = self._source_of(text_of(line.fields, "source.ip"))
        probe = _probe_of(line.fields, _TCP)
        policy = self._detector.policy(_interface_of(line))
        if policy.scan_counts == "closed":
            # The first packet of a closed port has a probe line too.
            if not self._closed.has(source, probe, line.time):
                return
            self._closed.touch(source, probe, line.time, self._recorded_window)
        self._detect(line, source, probe, "syn")

    def _scan(self, line: Line) -> None:
        fields = line.fields
        if text_of(fields, "packetwatch.reason") == "protected":
            self.protected.add(self._source_of_scan(fields))
        if fields.get("packetwatch.opaque"):
            self.hidden += 1
        if line.action == "ban":
            is_scan = text_of(fields, "packetwatch.origin") == "scan"
            self.scan_bans += is_scan
            self.other_bans += not is_scan

    def _detect(self, line: Line, source: str, probe: Probe, kind: str) -> None:
        interface = _interface_of(line)
        self.interfaces.add(interface)
        ban = self._detector.probe(line.time, source, probe, kind, interface)
        if ban:
            self.bans.append(ban)

    def _source_of_scan(self, fields: t.Mapping[str, t.Any]) -> str:
        """The source in a line that names it as a prefix."""
        prefix = parse_prefix(text_of(fields, "packetwatch.prefix"))
        if prefix.family == 6 and prefix.is_host:
            self._singles.add(format_prefix(prefix))
        return format_prefix(prefix)

    def _source_of(self, address: str) -> str:
        """The source that is banned for an address, as far as it is known."""
        prefix = parse_prefix(address)
        text = format_prefix(prefix)
        if prefix.family == 4 or text in self._singles or self._is_shared(prefix):
            return text
        return format_prefix(Prefix(6, prefix.value >> _HALF << _HALF, _HALF))

    def _is_shared(self, host: Prefix) -> bool:
        return any(one.value <= host.value <= one.last for one in self._shared)


def _interface_of(line: Line) -> str:
    return text_of(line.fields, "observer.ingress.interface.name")


def _probe_of(fields: t.Mapping[str, t.Any], protocol: str) -> Probe:
    target, port = text_of(fields, "destination.ip"), number_of(fields, "destination.port")
    if not target or not 0 <= port <= 65535:
        raise InvalidInput("a line without a destination")
    return Probe(target, port, protocol)
