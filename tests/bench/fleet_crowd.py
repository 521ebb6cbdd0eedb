# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Simulated hosts, hundreds in a process. A few share a certificate, because gates limit each certificate."""

from __future__ import annotations

import math
import re
import select
import socket
import ssl
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from fleet.following import settings

from bench.fleet_hosts import Fleet, address, forking, page, row
from bench.fleet_rows import COMMITS, ROWS
from packetwatch_core._node.gateway import context
from packetwatch_core._node.keys import BANS, FOLLOWED
from packetwatch_fleet.store.gateway import watch_request
from packetwatch_fleet.store.interface import Relisted
from packetwatch_fleet.store.plugins import open_store

PROCESSES = 2
_PATIENCE = 60.0
_PIECE = 16384
_REVISION = re.compile(rb'"mod_revision":"([0-9]+)"')


def listing(fleet: Fleet, hosts: int, pages: int) -> float:
    """Let so many hosts begin to list at once; return the seconds until the last one has all pages."""
    variables = [settings(fleet.nodes, fleet.names[one % len(fleet.names)]) for one in range(hosts)]
    begin = forking.Barrier(PROCESSES + 1)
    ends = []
    with fleet.nodes.lan.entered():
        for part in range(PROCESSES):
            ours, theirs = forking.Pipe()
            fleet.child(_list, variables[part::PROCESSES], pages, begin, theirs)
            ends.append(ours)
    begin.wait()
    began = time.monotonic()
    last: float = max(_received(end) for end in ends)
    return last - began


def _list(variables: Sequence[dict[str, str]], pages: int, begin: Any, result: Connection) -> None:
    """List with the client that hosts have; send when the last one was ready."""
    stores = [open_store("etcd", one) for one in variables]
    begin.wait()
    followers = {}
    poll = select.epoll()
    for store in stores:
        assert store
        follower = store.follow(*FOLLOWED)
        followers[follower.fileno()] = follower
        poll.register(follower.fileno(), select.EPOLLIN)
    while followers:
        now = time.monotonic()
        due = min(one.deadline() for one in followers.values()) - now
        ready = {number for number, dummy in poll.poll(min(max(due, 0.0), 1.0))}
        late = {number for number, one in followers.items() if one.deadline() <= now}
        for number in ready | late:
            for change in followers[number].step():
                if isinstance(change, Relisted):
                    assert len(change.snapshot.items) == pages
                    poll.unregister(number)
                    followers.pop(number).close()
                    break
    result.send(time.monotonic())


class _Watch(NamedTuple):
    """What a watcher needs: its gate, and what it shows there."""

    gate: tuple[str, int]
    name: str
    tls: ssl.SSLContext
    token: str


def watching(fleet: Fleet, watchers: int, seconds: int) -> list[float]:
    """Write pages while so many watch; return the milliseconds from each write to each watcher."""
    nodes = fleet.nodes
    shown = []
    with nodes.lan.entered():
        for name in fleet.names:
            credentials = nodes.host_credentials(name)
            gateway = nodes.gateway(credentials)
            gateway.login()
            gateway.close()
            shown.append((context(credentials.identity), gateway.token))
    watches = [
        _Watch(
            nodes.gates[one % len(nodes.gates)],
            nodes.nodes[one % len(nodes.gates)].name,
            *shown[one // len(nodes.gates) % len(shown)],
        )
        for one in range(watchers)
    ]
    first = nodes.revision() + 1
    begin = forking.Barrier(PROCESSES + 1)
    ends = []
    with nodes.lan.entered():
        for part in range(PROCESSES):
            ours, theirs = forking.Pipe()
            fleet.child(_watch, watches[part::PROCESSES], first, begin, theirs)
            ends.append(ours)
    begin.wait(_PATIENCE)
    written = _write(fleet, seconds)
    for end in ends:
        end.send(len(written))
    found = [item for end in ends for item in _received(end)]
    # Each watcher has each page once.
    assert len(found) == watchers * len(written)
    return [(seen - written[revision]) * 1000 for revision, seen in found]


def _write(fleet: Fleet, seconds: int) -> dict[int, float]:
    """Write pages of new bans at an even pace; return when each revision was begun."""
    written = {}
    began = time.monotonic()
    for number in range(seconds * COMMITS):
        time.sleep(max(0.0, began + number / COMMITS - time.monotonic()))
        value = page(*(row(address("198.19", number * ROWS + one)) for one in range(ROWS)))
        now = time.monotonic()
        written[fleet.nodes.put(f"bans/e1/watched-{number}", value)] = now
    return written


def _watch(watches: Sequence[_Watch], first: int, begin: Any, parent: Connection) -> None:
    """Send the revision and the time of each page that one of the watchers has received.

    parent: says how many pages there were when all are written.
    """
    poll = select.epoll()
    streams: dict[int, ssl.SSLSocket] = {}
    rests: dict[int, bytes] = {}
    for watch in watches:
        stream = _opened(watch, first)
        streams[stream.fileno()] = stream
        rests[stream.fileno()] = b""
        poll.register(stream, select.EPOLLIN)
    poll.register(parent, select.EPOLLIN)
    found: list[tuple[int, float]] = []
    wanted = math.inf
    begin.wait(_PATIENCE)
    while len(found) < wanted:
        for number, dummy in poll.poll():
            if number == parent.fileno():
                wanted = len(watches) * parent.recv()
                continue
            data = rests[number] + _read(streams[number])
            # Each frame ends with a line break.
            frames, dummy_break, rests[number] = data.rpartition(b"\n")
            now = time.monotonic()
            found += [(int(one), now) for one in _REVISION.findall(frames)]
    parent.send(found)


def _opened(watch: _Watch, first: int) -> ssl.SSLSocket:
    """A stream of all changes of bans, which the store has begun."""
    body = watch_request([BANS], first)
    head = (
        f"POST /v3/watch HTTP/1.1\r\nHost: {watch.name}\r\nContent-Type: application/json\r\n"
        f"Authorization: {watch.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    raw = socket.create_connection(watch.gate, timeout=_PATIENCE)
    stream = watch.tls.wrap_socket(raw, server_hostname=watch.name)
    stream.sendall(head.encode() + body)
    data = b""
    while b'"created":true' not in data:
        piece = stream.recv(_PIECE)
        assert piece, data
        data += piece
    stream.setblocking(False)
    return stream


def _read(stream: ssl.SSLSocket) -> bytes:
    """Everything that has come."""
    data = b""
    while True:
        try:
            piece = stream.recv(_PIECE)
        except ssl.SSLWantReadError:
            return data
        assert piece, "a gate has ended a watch"
        data += piece


def _received(end: Connection) -> Any:
    assert end.poll(_PATIENCE), "simulated hosts do not end"
    return end.recv()
