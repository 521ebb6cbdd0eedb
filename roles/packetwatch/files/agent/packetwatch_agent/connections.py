# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections by the batch: from the ring's memory to lines, about a million a second.

In a flood this is the agent's whole work, so nothing is made that is not needed: fields are unpacked
without an object for the record, and what is alike in many lines becomes text once.
"""

from __future__ import annotations

import collections
import functools
import socket
import struct
import sys
import typing as t

from packetwatch_core._kernel import abi
from packetwatch_core._kernel.ring import HEADER

from .community import community_id
from .output import ECS_VERSION, timestamp

_SECOND = 1_000_000_000
# Behind the ring's header: time, sequence, the number of the kind, saddr, daddr, sport, dport.
_RECORD = struct.Struct("=8xQQ8xQ16s16sHH4x")
_WORDS = (HEADER + abi.EVENT_SHORT) // 8
_KIND_WORD = 4
_KIND = struct.Struct("=IBBBB")
_REMEMBERED = 4096
_HEAD = (
    f',"ecs.version":"{ECS_VERSION}","event.action":"connection","event.kind":"event"'
    ',"event.category":["network"],"event.type":["connection","start"],"event.sequence":'
)


class Kind(t.NamedTuple):
    """What many records have in common: eight bytes of each, read as one number."""

    ifindex: int
    type: int
    family: int
    flags: int
    plen: int


def count_kinds(run: memoryview) -> dict[Kind, tuple[int, int]]:
    """The kinds in a run of records of `EVENT_SHORT` bytes: the number that stands for it, how often."""
    numbers = run.cast("Q")[_KIND_WORD::_WORDS].tolist()
    return {
        Kind(*_KIND.unpack(number.to_bytes(8, sys.byteorder))): (number, count)
        for number, count in collections.Counter(numbers).items()
    }


class Texts:
    """Addresses of one family as text; remembers a few thousand."""

    def __init__(self, family: int) -> None:
        self.skipped = 12 if family == 4 else 0
        """Bytes before the address: IPv4 is mapped."""
        self.convert: t.Callable[[bytes], str] = socket.inet_ntoa
        if family == 6:
            self.convert = functools.partial(socket.inet_ntop, socket.AF_INET6)
        self.known: dict[bytes, str] = {}

    def __getitem__(self, address: bytes) -> str:
        self.trim()
        text = self.known.get(address)
        if text is None:
            text = self.known[address] = self.convert(address[self.skipped :])
        return text

    def trim(self) -> None:
        """Forget all once they are too many, between two batches."""
        if len(self.known) > _REMEMBERED:
            self.known.clear()


class Form(t.NamedTuple):
    """How lines of one kind are written; the first three are those of `Texts`."""

    known: dict[bytes, str]
    convert: t.Callable[[bytes], str]
    skipped: int
    tail: str


def write(
    run: memoryview, forms: t.Mapping[int, Form | None], offset: int, with_id: bool
) -> list[str]:
    """The lines of a run, without those whose form is None. `offset`: from the record's clock to the
    wall's; `with_id`: whether flows get their community ID."""
    lines: list[str] = []
    append = lines.append
    began, second = 0, ""
    for moment, sequence, number, saddr, daddr, sport, dport in _RECORD.iter_unpack(run):
        form = forms[number]
        if form is None:
            continue
        known, convert, skipped, tail = form
        # As `Texts`, without a call.
        source = known.get(saddr)
        if source is None:
            source = known[saddr] = convert(saddr[skipped:])
        destination = known.get(daddr)
        if destination is None:
            destination = known[daddr] = convert(daddr[skipped:])
        past = moment - began
        if not 0 <= past < _SECOND:
            wall = moment + offset
            past = wall % _SECOND
            began, second = moment - past, timestamp(wall)[:20]
        if with_id:
            tail = _id(saddr, daddr, sport, dport, skipped) + tail
        append(
            f'{{"@timestamp":"{second}{past // 1000:06d}Z"{_HEAD}{sequence}'
            f',"source.ip":"{source}","source.port":{sport}'
            f',"destination.ip":"{destination}","destination.port":{dport}{tail}'
        )
    return lines


def _id(saddr: bytes, daddr: bytes, sport: int, dport: int, skipped: int) -> str:
    name = community_id(saddr[skipped:], daddr[skipped:], sport, dport)
    return f',"network.community_id":"{name}"'
