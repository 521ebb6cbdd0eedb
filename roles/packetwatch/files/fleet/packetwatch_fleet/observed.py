# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What hosts have reported: `reports` read back, as untrusted text. No input, no output.

Sources are bytes, as `sources.packed` makes them: a report has a thousand of them.
"""

from __future__ import annotations

import binascii
import itertools
import struct
import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.number import MAX_TIME, is_a, is_number

from .pages import EVIDENCE, Refused, read_object
from .reports import MAX_BANS, MAX_PAIRS, MAX_PORTS
from .sources import Sources, packed

MAX_REPORT = 24_576
"""Bytes. The gate lets no more through."""
_PAIR4, _PAIR6 = struct.Struct("!4sH"), struct.Struct("!8sH")
_MAX_NUMBER = 1 << 53

Pair = tuple[bytes, int]
"""A source and a closed port that it has tried."""


class Seen(t.NamedTuple):
    """New pairs of one host. number: of the report, begins anew when the process does. lost: since its start."""

    number: int
    time: float
    lost: int
    pairs: t.Iterable[Pair]
    size: int
    """How many pairs there are."""


class HostBan(t.NamedTuple):
    """A ban that a host has made itself. Times are those of the store."""

    source: bytes
    until: float
    made: float
    ports: tuple[int, ...]
    evidence: str


def read_seen(value: bytes) -> Seen:
    """The report ``seen``; raises `Refused`."""
    found = read_object(value, MAX_REPORT)
    number, time, lost = found.get("n"), found.get("t"), found.get("lost")
    if not (_is_count(number) and _is_time(time) and _is_count(lost)):
        raise Refused("shape")
    pairs4, pairs6 = _packed(found.get("p", ""), _PAIR4), _packed(found.get("p6", ""), _PAIR6)
    count = len(pairs4) // _PAIR4.size + len(pairs6) // _PAIR6.size
    if count > MAX_PAIRS:
        raise Refused("size")
    pairs = itertools.chain(_PAIR4.iter_unpack(pairs4), _PAIR6.iter_unpack(pairs6))
    return Seen(number, time, lost, t.cast("t.Iterator[Pair]", pairs), count)


def read_bans(value: bytes, sources: Sources) -> tuple[list[HostBan], int]:
    """The report ``bans``, and how many of its rows do not count; raises `Refused`."""
    rows = read_object(value, MAX_REPORT).get("bans")
    if not isinstance(rows, list) or len(rows) > MAX_BANS:
        raise Refused("shape")
    found = [ban for row in rows if (ban := _ban(row, sources))]
    return found, len(rows) - len(found)


def read_addresses(value: bytes) -> list[str]:
    """The addresses in the report ``status``; raises `Refused`."""
    addresses = read_object(value, MAX_REPORT).get("addresses")
    if not isinstance(addresses, list):
        raise Refused("shape")
    return [text for text in addresses if isinstance(text, str)]


def _ban(row: t.Any, sources: Sources) -> HostBan | None:
    if not isinstance(row, list) or len(row) < 5 or not isinstance(row[0], str):
        return None
    until, made, ports, evidence = row[1:5]
    if not (is_number(until, MAX_TIME) and is_number(made, MAX_TIME) and evidence in EVIDENCE):
        return None
    if not isinstance(ports, list):
        return None
    try:
        source = packed(sources.of(row[0]))
    except InvalidInput:
        return None
    kept = tuple(port for port in ports[:MAX_PORTS] if is_a(port, int) and 0 < port < 1 << 16)
    return HostBan(source, float(until), float(made), kept, evidence)


def _packed(text: t.Any, form: struct.Struct) -> bytes:
    try:
        data = binascii.a2b_base64(text, strict_mode=True) if text else b""
    except (TypeError, ValueError):
        raise Refused("shape") from None
    if len(data) % form.size:
        raise Refused("shape")
    return data


def _is_time(value: t.Any) -> t.TypeGuard[float]:
    return is_number(value, MAX_TIME)


def _is_count(value: t.Any) -> t.TypeGuard[int]:
    return is_a(value, int) and 0 <= value <= _MAX_NUMBER
