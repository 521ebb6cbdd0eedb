# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet that is measured: its nodes, hosts with the real agent and program, and hosts with the fleet process alone."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fleet.following import settings
from fleet.host_process import HostProcess, Speaker, until
from fleet.servers import FleetNodes, fleet_nodes
from kernel.controlling import PYTHON, Controlled
from kernel.hosting import OWN, Namespace, Wire
from kernel.packets import syn4

from packetwatch_core._bans.bans import Ban
from packetwatch_core._bans.fleet import FleetBans
from packetwatch_core._node.gateway import below, encoded
from packetwatch_core._node.keys import BANS, HOSTS, KEYS
from packetwatch_fleet.pages import MAX_ROWS
from packetwatch_fleet.store.interface import Change, Put, Relisted
from packetwatch_fleet.store.plugins import open_store

VERSION = "3.4"
NODES, KERNELS = 3, 3
# Seconds between two scans. Each host reports its own bans at most twice a second, and they take turns.
PAUSE = 0.25
# More than the five that make a scan.
_PORTS = range(2001, 2010)
_PATIENCE = 60.0
# Rows of a page that is written again with one more.
_SHORT = 16
_COMPILED = "import packetwatch_agent.__main__, packetwatch_agent.assembly"

forking = multiprocessing.get_context("fork")


class KernelHost:
    """A host of the fleet with the real agent and program. name: in the store."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        wire = Wire()
        fleet.open.callback(wire.close)
        self._host = Controlled(wire, fleet.folder / "cache")
        fleet.open.callback(self._host.close)
        with wire.host.entered():
            self._host.load()
            self._host.start(PW_FLEET="enforce", **fleet.code(self._host))
        fleet.nodes.attach(wire.host)
        variables = {"PW_CONTROL_SOCKET": str(self._host.control)}
        self.process = fleet.process(name, wire.host, variables)
        self.bans = fleet.open.enter_context(self._host.bans())

    def scan(self, source: str, ports: Iterable[int] = _PORTS) -> None:
        """Let a source scan the host. By default, its program bans the source."""
        with self._host.site.wire.host.entered(), self._host.site.program() as program:
            device = socket.if_nametoindex("pw0")
            for port in ports:
                program.test_run(syn4(source, port, OWN), device)

    def has(self, source: str) -> bool:
        """Whether the kernel bans a source for the fleet."""
        return self.fleet_ban(source) is not None

    def fleet_ban(self, source: str) -> Ban | None:
        """The kernel's ban of a source for the fleet."""
        return self.bans.find(self.bans.source_of(source), "bans")

    def host_ban(self, source: str) -> bool:
        """Whether the program has banned a source itself."""
        return self.bans.find(self.bans.source_of(source), "scan_bans") is not None

    def count(self) -> int:
        """How many bans of the fleet the kernel has."""
        return sum(key is not None for key in FleetBans(self.bans).walk())


class Fleet:
    """hosts: names of all hosts that the store knows. real: those with a kernel; all have their processes."""

    def __init__(
        self, folder: Path, open_: contextlib.ExitStack, hosts: int, kernels: int = KERNELS
    ) -> None:
        self.folder = folder
        self.open = open_
        self.names = [f"host-{number}" for number in range(hosts)]
        self.nodes: FleetNodes = open_.enter_context(fleet_nodes(VERSION, NODES))
        self.nodes.add_hosts(*self.names)
        self._processes: list[HostProcess] = []
        self._code: dict[str, str] = {}
        agent = folder / "agents.sock"
        self.child(_speak, agent)
        until(agent.exists)
        self.real = [KernelHost(self, name) for name in self.names[:kernels]]
        for name in self.names[kernels:]:
            namespace = Namespace()
            open_.callback(namespace.close)
            self.nodes.attach(namespace)
            self.process(name, namespace, {"PW_CONTROL_SOCKET": str(agent)})
        until(lambda: all(map(follows, self._processes)), _PATIENCE)

    def process(self, name: str, namespace: Namespace, variables: dict[str, str]) -> HostProcess:
        """Start the fleet process of a host."""
        folder = self.folder / name
        folder.mkdir()
        own = settings(self.nodes, name) | variables | {"PW_FLEET_METRICS_LISTEN": ""}
        found = HostProcess(folder, own, namespace.entered)
        self.open.callback(found.kill)
        self._processes.append(found)
        return found

    def code(self, host: Controlled) -> dict[str, str]:
        """Variables with which all agents use the first one's code, compiled once."""
        if not self._code:
            self._code = {
                "PYTHONPATH": host.environment["PYTHONPATH"],
                "PYTHONPYCACHEPREFIX": str(self.folder / "agent-code"),
                "PYTHONDONTWRITEBYTECODE": "",
            }
            subprocess.run([PYTHON, "-Ps", "-c", _COMPILED], env=self._code, check=True)
        return self._code

    def stop(self) -> None:
        """End all fleet processes."""
        for process in self._processes:
            process.kill()

    def child(self, function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        """Run a function in a process of its own; return what ends it. It is ended with the fleet at the latest."""
        process = forking.Process(target=_alone, args=(function, *arguments), daemon=True)
        process.start()

        def end() -> None:
            process.kill()
            process.join()

        self.open.callback(end)
        return end

    @contextlib.contextmanager
    def decided(self) -> Iterator[None]:
        """Let an enforcer ban for all what one host has banned."""
        node = self.nodes.nodes[0]
        password = self.folder / "e1.password"
        password.write_text(self.nodes.service_credentials("e1").password)
        variables = {
            "PW_FLEET_ENDPOINTS": "localhost=127.0.0.1:2379",
            "PW_FLEET_ACCOUNT": "e1",
            "PW_FLEET_PASSWORD_FILE": str(password),
            "PW_FLEET_CA": str(node.config / "nodes-ca.pem"),
            "PW_FLEET_CERTIFICATE": str(node.config / "etcd.pem"),
        }
        with node.namespace.entered():
            end = self.child(_decide, self.nodes, variables)
        yield
        end()
        self.clear()

    def declare(self, bans: int) -> None:
        """Write so many bans, in full pages."""
        for number in range(0, bans, MAX_ROWS):
            several = range(number, min(number + MAX_ROWS, bans))
            self.nodes.put(
                f"bans/e1/full-{number}", page(*(row(address("198.18", one)) for one in several))
            )

    def clear(self) -> None:
        """Delete all decisions."""
        key, end = below(BANS)
        self.nodes.root()("/v3/kv/deleterange", {"key": key, "range_end": end})


def follows(process: HostProcess) -> bool:
    """Whether a fleet process follows the store."""
    return "following the store at" in process.log.read_text()


def address(network: str, number: int) -> str:
    return f"{network}.{number >> 8}.{number & 255}"


def row(source: str, evidence: str = "answer") -> list[Any]:
    now = time.time()
    return [source, round(now + 600), round(now), "quorum", evidence, 3]


def page(*found: list[Any]) -> str:
    return json.dumps({"v": 1, "bans": found}, separators=(",", ":"))


def _alone(function: Callable[..., None], *arguments: Any) -> None:
    # The bench cleans up; a child of it must not.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    function(*arguments)


def _speak(path: Path) -> None:
    """Serve as the agent of all hosts that have none."""
    speaker = Speaker(path)
    signal.pause()
    speaker.close()


def _decide(nodes: FleetNodes, variables: dict[str, str]) -> None:
    """Do what an enforcer with a quorum of one host would do: each new ban of a host is one of the fleet at once."""
    store = open_store("etcd", variables)
    assert store
    follower, gateway = store.follow(HOSTS), nodes.at_etcd("e1")
    gateway.login()
    known: set[str] = set()
    open_rows: list[list[Any]] = []
    number = 0
    while True:
        left = follower.deadline() - time.monotonic()
        select.select([follower], [], [], min(max(left, 0.0), 1.0))
        for report in _reports(follower.step()):
            new = _new(report, known)
            if not new:
                continue
            if len(open_rows) + len(new) > _SHORT:
                number, open_rows = number + 1, []
            open_rows += new
            value = encoded(page(*open_rows))
            gateway.call("/v3/kv/put", {"key": encoded(f"{KEYS}bans/e1/{number}"), "value": value})


def _reports(changes: Sequence[Change]) -> Iterator[bytes]:
    """What hosts have reported of their own bans."""
    for change in changes:
        if isinstance(change, Relisted):
            for key, (dummy, value) in change.snapshot.items.items():
                if key.endswith("/bans"):
                    yield value
        elif isinstance(change, Put) and change.key.endswith("/bans"):
            yield change.value


def _new(report: bytes, known: set[str]) -> Sequence[list[Any]]:
    """Rows for the sources of a host's report that nobody has decided on yet."""
    rows = json.loads(report)["bans"]
    found = [row(ban[0], ban[4]) for ban in rows if ban[0] not in known]
    known.update(ban[0] for ban in rows)
    return found
