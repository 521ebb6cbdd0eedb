# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records of the ring and what happens to bans → JSON lines with ECS names (docs/events.md)."""

from __future__ import annotations

import json
import socket
import struct
import time
import typing as t

from packetwatch_core import _abi
from packetwatch_core._bans import Ban, Source

from .output import ECS_VERSION, Value, encode, timestamp

_SHORT = struct.Struct("=QQQIBBBB16s16sHHHH")
_SOURCES = 4096
_UNBANNED = _abi.EVENT_MONITOR | _abi.EVENT_PROTECTED


class Event(t.NamedTuple):
    """A record of the ring, `struct pw_event`; times are CLOCK_MONOTONIC ns."""

    time: int
    sequence: int
    expires: int
    ifindex: int
    type: int
    family: int
    flags: int
    plen: int
    saddr: bytes
    daddr: bytes
    sport: int
    dport: int
    distinct: int
    ports: tuple[int, ...] = ()

    @property
    def source(self) -> Source:
        """Who was banned."""
        return Source(64, self.saddr[:8] + bytes(8)) if self.plen == 64 else Source(128, self.saddr)

    @property
    def banned(self) -> bool:
        """Whether the scan led to a ban."""
        return not self.flags & _UNBANNED


def decode(record: bytes) -> Event | None:
    """The event in a record; None if the record is none that this version knows."""
    if len(record) < _abi.EVENT_SHORT:
        return None
    fields = _SHORT.unpack_from(record)
    event, listed = Event(*fields[:-1]), fields[-1]
    if event.family not in (4, 6):
        return None
    if event.type == _abi.EVENT_CONNECTION:
        return event
    if event.type != _abi.EVENT_BAN or event.plen not in (32, 64, 128):
        return None
    if len(record) < _abi.EVENT_SHORT + 2 * listed:
        return None
    return event._replace(ports=struct.unpack_from(f"={listed}H", record, _abi.EVENT_SHORT))


class Lines:
    """Writes events as lines. `names` maps an ifindex to the interface's name."""

    def __init__(self, host: str, names: t.Callable[[int], str]) -> None:
        self._host = host
        self._names = names
        self._texts: dict[bytes, str] = {}
        self._tail = f',"network.transport":"tcp","host.name":{json.dumps(host)}'
        self._offset = 0
        self.set_clock()

    def set_clock(self) -> None:
        """Look at both clocks anew: wall-clock time may have been set."""
        self._offset = time.time_ns() - time.monotonic_ns()

    def connection(self, event: Event) -> str:
        """A new connection: by hand, since this is written a million times."""
        name = self._names(event.ifindex)
        ingress = f',"observer.ingress.interface.name":{json.dumps(name)}' if name else ""
        source = self._address(event.saddr, event.family)
        destination = self._address(event.daddr, event.family)
        ports = ("", "")
        if event.sport or event.dport:
            ports = (f',"source.port":{event.sport}', f',"destination.port":{event.dport}')
        opaque = ',"packetwatch.opaque":true' if event.flags & _abi.EVENT_OPAQUE else ""
        return (
            f'{{"@timestamp":"{timestamp(event.time + self._offset)}","ecs.version":"{ECS_VERSION}"'
            ',"event.action":"connection","event.kind":"event","event.category":["network"]'
            f',"event.type":["connection","start"],"event.sequence":{event.sequence}'
            f',"source.ip":"{source}"{ports[0]},"destination.ip":"{destination}"{ports[1]}'
            f',"network.type":"ipv{event.family}"{self._tail}{ingress}{opaque}}}'
        )

    def scan(self, event: Event) -> str:
        """A scan: with the ban that it led to, or with why there is none."""
        reason = "scan"
        if event.flags & _abi.EVENT_PROTECTED:
            reason = "protected"
        elif event.flags & _abi.EVENT_MONITOR:
            reason = "monitor"
        fields: dict[str, Value] = {
            "event.sequence": event.sequence,
            "source.ip": self._address(event.saddr, event.family),
            "source.port": event.sport or None,
            "destination.ip": self._address(event.daddr, event.family),
            "destination.port": event.dport or None,
            "network.type": f"ipv{event.family}",
            "network.transport": "tcp",
            "packetwatch.prefix": _prefix_text(event.source),
            "packetwatch.origin": "scan",
            "packetwatch.reason": reason,
            "packetwatch.ports": sorted(set(event.ports)),
            "packetwatch.ports_count": event.distinct,
            "packetwatch.opaque": bool(event.flags & _abi.EVENT_OPAQUE) or None,
        }
        if event.banned:
            fields["packetwatch.expires"] = self._moment(event.expires)
            fields["packetwatch.overflow"] = bool(event.flags & _abi.EVENT_IN_OVERFLOW) or None
        head = self._head(
            "ban" if event.banned else "scan",
            event.time + self._offset,
            kind="alert",
            category="intrusion_detection",
            types=["denied"] if event.banned else ["info"],
        )
        return encode(head | fields | self._ingress(event.ifindex))

    def ban(self, ban: Ban, reason: str) -> str:
        """A ban that was not made by the program: by hand or by the fleet."""
        return self._of_ban("ban", ban, reason, ban.since + self._offset, ["denied"])

    def expiry(self, ban: Ban) -> str:
        """The end of a ban at its time."""
        return self._of_ban("expiry", ban, "expired", time.time_ns(), ["info"])

    def lift(self, ban: Ban, reason: str) -> str:
        """The end of a ban before its time."""
        return self._of_ban("lift", ban, reason, time.time_ns(), ["info"])

    def _of_ban(self, action: str, ban: Ban, reason: str, wall: int, types: list[str]) -> str:
        prefix = ban.source.prefix
        fields: dict[str, Value] = {
            "source.ip": ban.source.text.partition("/")[0],
            "network.type": f"ipv{prefix.family}",
            "packetwatch.prefix": _prefix_text(ban.source),
            "packetwatch.origin": ban.origin_name,
            "packetwatch.reason": reason,
            "packetwatch.expires": self._moment(ban.expires),
            "packetwatch.ports_count": ban.ports or None,
            "packetwatch.dropped": ban.dropped,
        }
        head = self._head(action, wall, kind="event", category="network", types=types)
        return encode(head | fields | self._ingress(ban.ifindex))

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

    def _address(self, address: bytes, family: int) -> str:
        text = self._texts.get(address)
        if text is None:
            if len(self._texts) >= _SOURCES:
                self._texts.clear()
            if family == 4:
                text = socket.inet_ntop(socket.AF_INET, address[12:])
            else:
                text = socket.inet_ntop(socket.AF_INET6, address)
            self._texts[address] = text
        return text


def _prefix_text(source: Source) -> str:
    """With its length, hosts too."""
    prefix = source.prefix
    text = source.text
    return text if "/" in text else f"{text}/{prefix.length}"
