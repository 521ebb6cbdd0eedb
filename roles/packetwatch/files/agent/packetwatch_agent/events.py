# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events from the ring's records, and episodes of them.

`abi.EVENT` has the layout of a record. Whatever else reads a record uses the readers of this file.
"""

from __future__ import annotations

import array
import collections
import struct
import sys
import typing as t

from packetwatch_core._bans.bans import Source
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.ring import HEADER, stride

_WOULD = {
    abi.WOULD_DENY: "deny",
    abi.WOULD_VLAN: "vlan",
    abi.WOULD_BOGUS: "bogus",
    abi.WOULD_CLOSED: "closed",
}
_UNBANNED = abi.EVENT_MONITOR | abi.EVENT_PROTECTED
_EPISODE_PORTS = 64
_LENGTHS = (32, 64, 128)


class Event(t.NamedTuple):
    """A record of the ring, `struct pw_event`; times are CLOCK_MONOTONIC ns.

    All fields but `distinct` have their names from there.
    """

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
    """`count` in the struct, but tuples have a method of that name."""
    ports: tuple[int, ...] = ()

    @property
    def source(self) -> Source:
        """The source of a scan or probe: that of its ban, or of the ban that it may lead to."""
        return Source(64, self.saddr[:8] + bytes(8)) if self.plen == 64 else Source(128, self.saddr)

    @property
    def reason(self) -> str:
        """Why the program wrote the event.

        For a scan without a ban: why there is none. For a packet that passed only because of
        monitor mode: what would have dropped it.
        """
        if self.type == abi.EVENT_WOULD_DROP:
            return _WOULD.get(self.distinct, "ban")
        if self.flags & abi.EVENT_PROTECTED:
            return "protected"
        return "monitor" if self.flags & abi.EVENT_MONITOR else "scan"

    @property
    def kind(self) -> str:
        """The kind of the probe that completed the scan."""
        return abi.kind_of(self.flags)

    @property
    def evidence(self) -> str:
        """What the ban of a scan rests on, as `facts.evidence_of` says it."""
        return "answer" if self.flags & abi.EVENT_ANSWER else "syn"

    @property
    def banned(self) -> bool:
        """Whether the scan led to a ban."""
        return not self.flags & _UNBANNED


_FIELDS = ["count" if name == "distinct" else name for name in Event._fields if name != "ports"]
_SHORT = abi.EVENT.reader(*_FIELDS, "listed")


def decode(record: bytes) -> Event | None:
    """The event in a record; None if this version does not know such a record."""
    if len(record) < abi.EVENT_SHORT:
        return None
    *fields, listed = _SHORT.unpack_from(record)
    event = Event(*fields)
    if event.family not in (4, 6):
        return None
    if event.type in (abi.EVENT_CONNECTION, abi.EVENT_WOULD_DROP):
        return event
    if event.type not in (abi.EVENT_BAN, abi.EVENT_PROBE) or event.plen not in _LENGTHS:
        return None
    if event.type == abi.EVENT_PROBE:
        return event
    if len(record) < abi.EVENT_SHORT + 2 * listed:
        return None
    return event._replace(ports=struct.unpack_from(f"={listed}H", record, abi.EVENT_SHORT))


class Kind(t.NamedTuple):
    """What many records have in common: eight adjacent bytes of each, read as one number."""

    ifindex: int
    type: int
    family: int
    flags: int
    plen: int

    @property
    def is_connection(self) -> bool:
        """Whether `connections.write` can write the records."""
        return self.type == abi.EVENT_CONNECTION and not self.flags and self.family in (4, 6)

    @property
    def is_probe(self) -> bool:
        return self.type == abi.EVENT_PROBE and self.family in (4, 6) and self.plen in _LENGTHS


# For runs of records of `abi.EVENT_SHORT` bytes, straight from the ring's memory. The third field is
# the number of the record's kind.
CONNECTIONS = abi.EVENT.reader(
    *("time", "sequence", (Kind._fields[0], "Q"), "saddr", "daddr", "sport", "dport"),
    before=HEADER,
    size=stride(abi.EVENT_SHORT),
)
# Where a record has what `control.talkers` counts.
TYPE = abi.EVENT.offset("type")
SOURCE = abi.EVENT.part("saddr")
PORT = abi.EVENT.part("dport")

_KIND_AT = abi.EVENT.offset(Kind._fields[0])
_KIND = abi.EVENT.reader(*Kind._fields, before=-_KIND_AT, size=8)
_KIND_WORD = (HEADER + _KIND_AT) // 8
_WORDS = stride(abi.EVENT_SHORT) // 8


def count_kinds(run: memoryview) -> dict[Kind, tuple[int, int]]:
    """The kinds in a run of records of `abi.EVENT_SHORT` bytes: the number and the count of each."""
    return {
        Kind(*_KIND.unpack(number.to_bytes(8, sys.byteorder))): (number, count)
        for number, count in collections.Counter(_kind_numbers(run)).items()
    }


def pick(run: memoryview, number: int) -> t.Iterator[Event]:
    """The events of the kind with this number in such a run."""
    for index, found in enumerate(_kind_numbers(run)):
        if found == number:
            at = index * stride(abi.EVENT_SHORT) + HEADER
            event = decode(bytes(run[at : at + abi.EVENT_SHORT]))
            if event:
                yield event


def _kind_numbers(run: memoryview) -> list[int]:
    return run.cast("Q")[_KIND_WORD::_WORDS].tolist()


class Episode:
    """Events of one source and kind that belong together. A thousand of them may be in memory."""

    __slots__ = ("events", "first", "last", "ports", "ports_count", "window")

    def __init__(self, first: Event, window: int) -> None:
        # Its ports as a tuple of objects would take kilobytes.
        self.first = first._replace(ports=())
        self.window = window
        self.last = first.time
        self.events = 0
        self.ports_count = 0
        self.ports: array.array[int] = array.array("H")
        self.add(first)

    def add(self, event: Event) -> None:
        """Count one more event, the first included."""
        self.last = max(self.last, event.time)
        self.events += 1
        self.ports_count += event.distinct
        for port in event.ports:
            if len(self.ports) < _EPISODE_PORTS and port not in self.ports:
                self.ports.append(port)
