# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events, episodes and the ends of bans as JSON lines with ECS names (docs/events.md)."""

from __future__ import annotations

import json
import time
import typing as t

from packetwatch_core._bans.bans import Ban, Source
from packetwatch_core._bans.facts import evidence_of
from packetwatch_core._kernel import abi

from . import connections
from .community import TCP, community_id
from .events import Episode, Event, Kind
from .output import ECS_VERSION, Value, encode, timestamp

_TCP = ("tcp", TCP)
# Transport and protocol of the kinds of scans whose probes are not TCP's, if they have ports.
_TRANSPORTS = {"udp": ("udp", 17), "sctp": ("sctp", 132), "proto": None, "slow": None}


class Lines:
    """Writes events as lines. `names` returns the name of the interface with an ifindex."""

    def __init__(
        self, host: str, names: t.Callable[[int], str], with_community_id: bool = False
    ) -> None:
        self._host = host
        self._names = names
        self._with_id = with_community_id
        self._texts = {family: connections.Texts(family) for family in (4, 6)}
        self._offset = 0
        self.set_clock()

    def set_clock(self) -> None:
        """Read both clocks again: the wall clock may have been set."""
        self._offset = time.time_ns() - time.monotonic_ns()

    def form(self, kind: Kind) -> connections.Form:
        """The form in which `connections` writes connections of a kind."""
        name = self._names(kind.ifindex)
        ingress = f',"observer.ingress.interface.name":{json.dumps(name)}' if name else ""
        tail = (
            f',"network.type":"ipv{kind.family}","network.transport":"tcp"'
            f',"host.name":{json.dumps(self._host)}{ingress}}}'
        )
        texts = self._texts[kind.family]
        texts.trim()
        return connections.Form(texts.known, texts.convert, texts.skipped, tail)

    def connections(
        self, run: memoryview, forms: t.Mapping[int, connections.Form | None]
    ) -> list[str]:
        """Lines for the connections in a run of records; those without a form get none."""
        return connections.write(run, forms, self._offset, self._with_id)

    def connection(self, event: Event) -> str:
        """A new connection that has no form, one record at a time."""
        fields: dict[str, Value] = {
            "event.sequence": event.sequence,
            **self._flow(event),
            "packetwatch.opaque": bool(event.flags & abi.EVENT_OPAQUE) or None,
        }
        return self._line("connection", event, fields, ["connection", "start"])

    def would_drop(self, event: Event) -> str:
        """A packet that passed only because of monitor mode: the first of an episode."""
        fields: dict[str, Value] = {
            "event.sequence": event.sequence,
            **self._flow(event),
            "packetwatch.reason": event.reason,
        }
        return self._line("would_drop", event, fields, ["allowed"])

    def probe(self, event: Event) -> str:
        """A new probe that counts towards a scan."""
        fields: dict[str, Value] = {
            **self._flow(event),
            "packetwatch.prefix": _prefix_text(event.source),
            "packetwatch.kind": event.kind,
        }
        return self._line("probe", event, fields, ["info"])

    def episode(self, episode: Episode) -> str:
        """The end of an episode of more than one event."""
        first = episode.first
        is_scan = first.type == abi.EVENT_BAN
        fields: dict[str, Value] = {
            "event.start": timestamp(first.time + self._offset),
            "event.end": timestamp(episode.last + self._offset),
            "event.duration": episode.last - first.time,
            **self._source(first),
            "packetwatch.reason": first.reason,
            "packetwatch.events": episode.events,
        }
        if is_scan:
            fields |= {
                "packetwatch.prefix": _prefix_text(first.source),
                "packetwatch.origin": "scan",
                "packetwatch.ports": sorted(episode.ports),
                "packetwatch.ports_count": episode.ports_count,
            }
        head = self._head(
            "scan_end" if is_scan else "would_drop_end",
            time.time_ns(),
            kind="event",
            category="intrusion_detection" if is_scan else "network",
            types=["info"],
        )
        return encode(head | fields | self._ingress(first.ifindex))

    def scan(self, event: Event) -> str:
        """A scan, with the ban that it led to or the reason why there is none."""
        fields: dict[str, Value] = {
            "event.sequence": event.sequence or None,
            **self._flow(event),
            "packetwatch.prefix": _prefix_text(event.source),
            "packetwatch.origin": "scan",
            "packetwatch.kind": event.kind,
            "packetwatch.reason": event.reason,
            "packetwatch.ports": sorted(set(event.ports)),
            "packetwatch.ports_count": event.distinct,
            "packetwatch.opaque": bool(event.flags & abi.EVENT_OPAQUE) or None,
        }
        if event.banned:
            fields["packetwatch.expires"] = self._moment(event.expires)
            fields["packetwatch.evidence"] = event.evidence
            fields["packetwatch.overflow"] = bool(event.flags & abi.EVENT_IN_OVERFLOW) or None
        head = self._head(
            "ban" if event.banned else "scan",
            event.time + self._offset,
            kind="alert",
            category="intrusion_detection",
            types=["denied"] if event.banned else ["info"],
        )
        return encode(head | fields | self._ingress(event.ifindex))

    def ban(self, ban: Ban, reason: str, rule: str = "") -> str:
        """A ban that was made by hand, or by the fleet because of a rule."""
        return self._of_ban("ban", ban, reason, ban.since + self._offset, ["denied"], rule)

    def expiry(self, ban: Ban) -> str:
        """The end of a ban at its time."""
        return self._of_ban("expiry", ban, "expired", time.time_ns(), ["info"])

    def lift(self, ban: Ban, reason: str) -> str:
        """The end of a ban before its time."""
        return self._of_ban("lift", ban, reason, time.time_ns(), ["info"])

    def _of_ban(
        self, action: str, ban: Ban, reason: str, wall: int, types: list[str], rule: str = ""
    ) -> str:
        prefix = ban.source.prefix
        fields: dict[str, Value] = {
            "source.ip": ban.source.text.partition("/")[0],
            "network.type": f"ipv{prefix.family}",
            "packetwatch.prefix": _prefix_text(ban.source),
            "packetwatch.origin": ban.origin_name,
            "packetwatch.kind": ban.kind or None,
            "packetwatch.evidence": evidence_of(ban),
            "packetwatch.reason": reason,
            "packetwatch.rule": rule or None,
            "packetwatch.expires": self._moment(ban.expires),
            "packetwatch.ports_count": ban.ports or None,
            "packetwatch.dropped": ban.dropped,
        }
        head = self._head(action, wall, kind="event", category="network", types=types)
        return encode(head | fields | self._ingress(ban.ifindex))

    def _line(self, action: str, event: Event, fields: dict[str, Value], types: list[str]) -> str:
        wall = event.time + self._offset
        head = self._head(action, wall, kind="event", category="network", types=types)
        return encode(head | fields | self._ingress(event.ifindex))

    def _head(
        self, action: str, wall: int, kind: str, category: str, types: list[str]
    ) -> dict[str, Value]:
        return {
            "@timestamp": timestamp(wall),
            "ecs.version": ECS_VERSION,
            "event.action": action,
            "event.kind": kind,
            "event.category": [category],
            "event.type": types,
            "host.name": self._host,
        }

    def _ingress(self, ifindex: int) -> dict[str, Value]:
        name = self._names(ifindex) if ifindex else ""
        return {"observer.ingress.interface.name": name} if name else {}

    def _moment(self, monotonic: int) -> str | None:
        """When a ban ends; None: never."""
        return timestamp(monotonic + self._offset) if monotonic else None

    def _source(self, event: Event) -> dict[str, Value]:
        """The source, unless the packet's VLAN tags hid it."""
        if event.reason == "vlan":
            return {}
        return {
            "source.ip": self._texts[event.family][event.saddr],
            "network.type": f"ipv{event.family}",
        }

    def _flow(self, event: Event) -> dict[str, Value]:
        """Source and destination; what the packet hid is left out."""
        if event.reason == "vlan":
            return {}
        texts = self._texts[event.family]
        source, destination = event.saddr[texts.skipped :], event.daddr[texts.skipped :]
        transport, protocol = _transport(event) or (None, 0)
        return {
            "source.ip": texts[event.saddr],
            "source.port": event.sport or None,
            "destination.ip": texts[event.daddr],
            "destination.port": event.dport or None,
            "network.type": f"ipv{event.family}",
            "network.transport": transport,
            "network.community_id": community_id(
                source, destination, event.sport, event.dport, protocol
            )
            if self._with_id and transport and not event.flags & abi.EVENT_OPAQUE
            else None,
        }


def _transport(event: Event) -> tuple[str, int] | None:
    """Name and number of the protocol with the event's ports; None if it has none."""
    if event.type == abi.EVENT_WOULD_DROP and not event.sport + event.dport:
        return None
    return _TRANSPORTS.get(event.kind, _TCP)


def _prefix_text(source: Source) -> str:
    """The source with its prefix length, also if it is a single address."""
    return source.cidr
