# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real enforcers: scans over hosts with real kernels, and what a thousand simulated hosts cost an enforcer."""

from __future__ import annotations

import base64
import collections
import contextlib
import heapq
import json
import random
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from fleet.enforcing import ENFORCING, Enforcer
from fleet.host_process import until
from fleet.servers import FleetNodes, fleet_nodes

from bench.fleet_hosts import VERSION, Fleet, KernelHost, address, forking
from packetwatch_core._node.gateway import encoded
from packetwatch_core._node.keys import BANS, HOSTS
from packetwatch_enforcer.watcher import REPORTS
from packetwatch_fleet.store.interface import Follower, Put
from packetwatch_fleet.store.plugins import open_store

K = 5
"""Hosts that the rule sweep wants."""
PORT = 2222
_PATIENCE = 60.0
# Seconds between two probes of a simulated scan, and between two scans.
_PROBE, _SCAN = 0.25, 2.0
_PROBED = 12
# Seconds after the last report in which decisions still come.
_LAST = 2.0


@contextlib.contextmanager
def enforced(folder: Path, nodes: FleetNodes) -> Iterator[list[Enforcer]]:
    """Two enforcers, at different nodes."""
    found = [
        Enforcer(folder, nodes, name, ENFORCING, node=node)
        for node, name in enumerate(("e1", "e2"))
    ]
    try:
        until(lambda: all(one.follows for one in found), _PATIENCE)
        yield found
    finally:
        for one in found:
            one.kill()


# Scans over hosts with kernels


def sweep(hosts: Sequence[KernelHost], source: str, everywhere: Sequence[KernelHost]) -> float:
    """Let a source try one port of each host; return the seconds from the last packet to the last kernel of all."""
    for host in hosts:
        host.scan(source, [PORT])
    began = time.monotonic()
    until(lambda: all(host.has(source) for host in everywhere), _PATIENCE, pause=0.002)
    return time.monotonic() - began


def sweeps(fleet: Fleet, number: int) -> list[float]:
    """The seconds of so many scans, each over other hosts."""
    with enforced(fleet.folder, fleet.nodes):
        # The first one waits for the streams to begin.
        found = [
            sweep(
                [fleet.real[(at + one) % len(fleet.real)] for one in range(K)],
                address("203.0", 256 * 113 + at + 1),
                fleet.real,
            )
            for at in range(number + 1)
        ]
    return found[1:]


# A thousand hosts


class Load(NamedTuple):
    """hosts report new sources, `rate` a minute each, or as in a flood that reaches the limit of every host."""

    hosts: int
    seconds: int
    flood: int = 0
    """Forged sources of each host in a second."""
    rates: tuple[int, int] = (50, 500)


class Cost(NamedTuple):
    """Of the enforcer: the part of a processor, the resident memory in MB, the seconds from the K-th report on."""

    cpu: float
    memory: float
    delays: list[float]
    missed: int
    pairs: int


def thousand(folder: Path, load: Load) -> Cost:
    """Let simulated hosts report to three nodes, and an enforcer decide."""
    with contextlib.ExitStack() as open_:
        nodes = open_.enter_context(fleet_nodes(VERSION, 3))
        enforcer = Enforcer(folder, nodes, "e1", ENFORCING)
        open_.callback(enforcer.kill)
        until(lambda: bool(enforcer.follows), _PATIENCE)
        ours, theirs = forking.Pipe()
        with nodes.nodes[1].namespace.entered():
            child = forking.Process(target=_report, args=(nodes, load, theirs), daemon=True)
            child.start()
        open_.callback(child.kill)
        assert ours.poll(_PATIENCE)
        ours.recv()
        began, used = time.monotonic(), enforcer.cpu()
        memory = 0
        banned: dict[str, float] = {}
        with nodes.nodes[2].namespace.entered():
            for now in _banned(_follower(nodes, folder), banned):
                memory = max(memory, enforcer.resident())
                if now > began + load.seconds + _LAST:
                    break
        cpu = (enforcer.cpu() - used) / (time.monotonic() - began)
        assert ours.poll(_PATIENCE)
        truth, pairs = ours.recv()
        delays = [banned[source] - then for source, then in truth.items() if source in banned]
        return Cost(cpu, memory / 1024, sorted(delays), len(truth) - len(delays), pairs)


def _follower(nodes: FleetNodes, folder: Path) -> Follower:
    """Follows the decisions, at the third node."""
    password = folder / "e2.password"
    password.write_text(nodes.service_credentials("e2").password)
    variables = {
        "PW_FLEET_ENDPOINTS": "localhost=127.0.0.1:2379",
        "PW_FLEET_ACCOUNT": "e2",
        "PW_FLEET_PASSWORD_FILE": str(password),
        "PW_FLEET_CA": str(nodes.nodes[2].config / "nodes-ca.pem"),
        "PW_FLEET_CERTIFICATE": str(nodes.nodes[2].config / "inner.pem"),
    }
    store = open_store("etcd", variables)
    assert store
    return store.follow(BANS)


def _banned(follower: Follower, banned: dict[str, float]) -> Iterator[float]:
    """Note when each source was first banned; yield the time twice a second at least."""
    while True:
        left = follower.deadline() - time.monotonic()
        select.select([follower], [], [], min(max(left, 0.0), 0.5))
        now = time.monotonic()
        for change in follower.step():
            if isinstance(change, Put):
                for row in json.loads(change.value)["bans"]:
                    banned.setdefault(row[0], now)
        yield now


def _report(nodes: FleetNodes, load: Load, result: Connection) -> None:
    """Report as all hosts, at etcd itself. Sends when it begins, and at the end when each scan reached its K-th host."""
    chance = random.Random(7)
    connections = _Connections(nodes, 16)
    rate = [chance.uniform(*load.rates) / 60 for _host in range(load.hosts)]
    names = [encoded(f"{HOSTS}h{host:04}/seen") for host in range(load.hosts)]
    pending = [bytearray() for _host in range(load.hosts)]
    number = [0] * load.hosts
    result.send("begins")
    start = time.monotonic()
    offset = time.time() - start
    # As an enforcer wants it.
    interval = max(1.0, load.hosts / REPORTS)
    due = [(start + interval * chance.random(), host) for host in range(load.hosts)]
    heapq.heapify(due)
    probes = collections.deque(_probes(chance, load, start))
    truth: dict[str, float] = {}
    pairs = 0
    todo: collections.deque[tuple[int, bytes]] = collections.deque()
    while (now := time.monotonic()) < start + load.seconds:
        while probes and probes[0][0] <= now:
            _then, host, source, at = probes.popleft()
            pending[host] += socket.inet_aton(source) + struct.pack("!H", PORT)
            if at == K - 1:
                truth[source] = now
        while due and due[0][0] <= now:
            _then, host = heapq.heappop(due)
            heapq.heappush(due, (now + interval, host))
            new = int(rate[host] * interval + chance.random()) + round(load.flood * interval)
            pending[host] += chance.randbytes(6 * new)
            if pending[host]:
                todo.append((host, bytes(pending[host][: 6 * 1000])))
                pairs += len(pending[host]) // 6
                pending[host].clear()
        while todo and connections.is_free:
            host, packed = todo.popleft()
            number[host] += 1
            value = {"v": 1, "n": number[host], "t": round(now + offset, 1), "lost": 0}
            text = json.dumps(value | {"p": base64.b64encode(packed).decode(), "p6": ""})
            connections.put(names[host], encoded(text))
        connections.wait(0.005)
    result.send((truth, pairs))


def _probes(chance: random.Random, load: Load, start: float) -> list[tuple[float, int, str, int]]:
    """Time, host, source and number of each probe of all scans."""
    found = []
    then, scan = start + 2, 0
    while then < start + load.seconds - _PROBED * _PROBE - 2:
        hosts = chance.sample(range(load.hosts), _PROBED)
        source = address("203.0", 256 * 113 + scan + 1)
        found += [(then + at * _PROBE, host, source, at) for at, host in enumerate(hosts)]
        then, scan = then + _SCAN, scan + 1
    return sorted(found)


class _Connections:
    """Writes at a node's etcd, one at a time on each connection: the answer is only waited for."""

    def __init__(self, nodes: FleetNodes, count: int) -> None:
        gateway = nodes.at_etcd("root", 1)
        gateway.login()
        self._token = gateway.token
        config = nodes.nodes[1].config
        tls = ssl.create_default_context(cafile=str(config / "nodes-ca.pem"))
        tls.load_cert_chain(str(config / "etcd.pem"))
        self._poll = select.epoll()
        self._all: dict[int, Any] = {}
        self._free: collections.deque[Any] = collections.deque()
        for _connection in range(count):
            plain = socket.create_connection(("127.0.0.1", 2379))
            one = tls.wrap_socket(plain, server_hostname="localhost")
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setblocking(False)
            self._all[one.fileno()] = one
            self._free.append(one)
            self._poll.register(one, select.EPOLLIN)

    @property
    def is_free(self) -> bool:
        return bool(self._free)

    def put(self, key: str, value: str) -> None:
        body = f'{{"key":"{key}","value":"{value}"}}'
        head = f"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nAuthorization: {self._token}\r\nContent-Length: {len(body)}\r\n\r\n"
        one = self._free.popleft()
        one.setblocking(True)
        one.sendall((head + body).encode())
        one.setblocking(False)

    def wait(self, seconds: float) -> None:
        for number, _event in self._poll.poll(seconds):
            one = self._all[number]
            try:
                data = one.recv(65536)
            except ssl.SSLWantReadError:
                # A ticket for a later session.
                continue
            assert data.startswith(b"HTTP/1.1 200"), data[:300]
            self._free.append(one)
