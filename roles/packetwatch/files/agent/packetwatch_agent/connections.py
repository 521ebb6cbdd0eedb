# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections a batch at a time: from the ring's memory to lines, about a million a second.

A flood of SYNs keeps the agent busy with this alone. So it makes no object for a record, and makes
the text that many lines share only once.
"""

from __future__ import annotations

import functools
import socket
import typing as t

from .community import community_id
from .events import CONNECTIONS
from .output import ECS_VERSION, timestamp

_SECOND = 1_000_000_000
MAX_TEXTS = 4096
_HEAD = (
    f',"ecs.version":"{ECS_VERSION}","event.action":"connection","event.kind":"event"'
    ',"event.category":["network"],"event.type":["connection","start"],"event.sequence":'
)


class Texts:
    """Addresses of one family as text; remembers the last few thousand."""

    def __init__(self, family: int) -> None:
        self.skipped = 12 if family == 4 else 0
        """Bytes before the address: IPv4 addresses are mapped into IPv6."""
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
        """Forget all if there are too many. Called between two batches."""
        if len(self.known) > MAX_TEXTS:
            self.known.clear()


class Form(t.NamedTuple):
    """How lines of one kind are written; the first three fields are those of `Texts`."""

    known: dict[bytes, str]
    convert: t.Callable[[bytes], str]
    skipped: int
    tail: str


def write(
    run: memoryview, forms: t.Mapping[int, Form | None], offset: int, with_id: bool
) -> list[str]:
    """The lines of a run of records of `abi.EVENT_SHORT` bytes.

    forms: by the number of a kind; None: no lines. offset: nanoseconds from the records' clock to
    the wall clock. with_id: whether lines have the flow's community ID.
    """
    lines: list[str] = []
    append = lines.append
    began, second = 0, ""
    for moment, sequence, number, saddr, daddr, sport, dport in CONNECTIONS.iter_unpack(run):
        form = forms[number]
        if form is None:
            continue
        known, convert, skipped, tail = form
        # `Texts.__getitem__`, without the cost of a call.
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
