# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host reports: values of its own three keys, which are overwritten. No input, no output."""

from __future__ import annotations

import base64
import json
import socket
import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.number import MAX_TIME, is_a, is_number

from .pages import EVIDENCE, VERSION
from .sources import Sources

# Bans and pairs of a report, ports of a ban. A value has at most 16 kB.
MAX_BANS, MAX_PAIRS, MAX_PORTS = 128, 1000, 8
_MAX_PORT = 65535


class OwnBan(t.NamedTuple):
    """A ban that the host has made itself. Times are monotonic."""

    until: float
    made: float
    ports: tuple[int, ...]
    evidence: str


class Reports:
    """Collects what the agent's stream says. Items that are not understood count as lost."""

    def __init__(self, sources: Sources) -> None:
        self.lost = 0
        """Probes that no report has, since the start."""
        self._sources = sources
        self._bans: dict[str, OwnBan] = {}
        self._pairs: dict[bytes, None] = {}
        self._pairs6: dict[bytes, None] = {}
        self._number = 0
        self._reported = 0

    @property
    def has_seen(self) -> bool:
        """Whether there is anything new to report."""
        return bool(self._pairs or self._pairs6 or self.lost > self._reported)

    def clear_bans(self) -> None:
        self._bans.clear()

    def take(self, item: t.Any, now: float) -> str:
        """Take an item of the stream; return the report that it changes: ``seen``, ``bans`` or nothing."""
        if not isinstance(item, dict):
            return ""
        try:
            if "probe" in item:
                return self._probe(*item["probe"][:2])
            if "ban" in item:
                return self.ban(*item["ban"][:4], now=now)
            if "end" in item:
                return self._end(item["end"])
        except (InvalidInput, KeyError, OSError, TypeError, ValueError):
            self.lost += 1
        return ""

    def ban(
        self, source: str, ports: t.Iterable[int], seconds: float, evidence: str, *, now: float
    ) -> str:
        if evidence not in EVIDENCE or not is_number(seconds, MAX_TIME) or not seconds:
            raise ValueError
        kept = tuple(port for port in ports if _is_port(port))[:MAX_PORTS]
        source = self._source(source)
        # The newest one is the last.
        self._bans.pop(source, None)
        self._bans[source] = OwnBan(now + seconds, now, kept, evidence)
        return "bans"

    def miss(self, count: int) -> None:
        """The stream has left out items."""
        self.lost += count

    def bans(self, now: float, offset: float) -> bytes:
        """The newest bans in force. offset: the store's time less the monotonic one."""
        self._bans = {source: ban for source, ban in self._bans.items() if ban.until > now}
        rows = [
            [
                source,
                round(ban.until + offset, 1),
                round(ban.made + offset, 1),
                ban.ports,
                ban.evidence,
            ]
            for source, ban in list(self._bans.items())[-MAX_BANS:]
        ]
        return _value(t=round(now + offset, 1), bans=rows)

    def seen(self, now: float, offset: float) -> bytes:
        """All new pairs of a source and a port; the next report begins anew."""
        self._number += 1
        value = _value(
            n=self._number,
            t=round(now + offset, 1),
            lost=self.lost,
            p=_packed(self._pairs),
            p6=_packed(self._pairs6),
        )
        self._pairs.clear()
        self._pairs6.clear()
        self._reported = self.lost
        return value

    def _source(self, text: t.Any) -> str:
        if not isinstance(text, str):
            raise TypeError
        return self._sources.of(text)

    def _probe(self, address: str, port: int) -> str:
        if not (isinstance(address, str) and _is_port(port)):
            raise ValueError
        number = port.to_bytes(2, "big")
        if len(self._pairs) + len(self._pairs6) >= MAX_PAIRS:
            self.lost += 1
        elif ":" in address:
            self._pairs6[socket.inet_pton(socket.AF_INET6, address)[:8] + number] = None
        else:
            self._pairs[socket.inet_pton(socket.AF_INET, address) + number] = None
        return "seen"

    def _end(self, sources: t.Iterable[str]) -> str:
        changed = False
        for source in sources:
            changed |= self._bans.pop(self._source(source), None) is not None
        return "bans" if changed else ""


def _is_port(value: t.Any) -> bool:
    return is_a(value, int) and 0 < value <= _MAX_PORT


def status(now: float, **fields: t.Any) -> bytes:
    """The value of a host's status."""
    return _value(t=round(now, 1), **fields)


def _packed(pairs: t.Iterable[bytes]) -> str:
    return base64.b64encode(b"".join(pairs)).decode()


def _value(**fields: t.Any) -> bytes:
    return json.dumps({"v": VERSION} | fields, separators=(",", ":")).encode()
