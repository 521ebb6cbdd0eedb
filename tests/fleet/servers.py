# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet's nodes: real etcd behind real gates, with the templates, certificates and accounts of the role.

Each node is a network namespace of its own, so it has its own loopback, and its cable can be pulled. All are
connected to the namespace `nodes.lan`, from which hosts of the tests reach the gates:

    with fleet_nodes("3.5", 3) as nodes, nodes.lan.entered():
        credentials = nodes.host_credentials("host-a")

A thread that has entered the namespace starts processes there too. `attach` connects a host that has a
namespace of its own.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from fleet import software
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from kernel.hosting import Namespace, ip

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._network.endpoints import Endpoint
from packetwatch_core._node.accounts import (
    Account,
    Accounts,
    host_account,
    service_account,
)
from packetwatch_core._node.authority import HOSTS, NODES, Node, Vault
from packetwatch_core._node.gateway import Gateway, Identity, Json, below, encoded
from packetwatch_core._node.keys import KEYS

ROLE = Path(__file__).resolve().parents[2] / "roles/fleet_node"
SERVICES: Mapping[str, tuple[str, ...]] = {
    "api": ("bans/api/", "lifts/", "lists/", "events/api"),
    "e1": ("bans/e1/", "rules/e1"),
    "e2": ("bans/e2/", "rules/e2"),
}
NETWORK, NETWORK6 = "10.79.0.", "fd79::"
_FIRST_NODE, _FIRST_HOST = 11, 30
_PATIENCE = 120.0
_ANY: Json = {"key": encoded(KEYS)}
# What a server leaves when the tests are killed would hold its ports and go on using the disk.
_BOUND = ("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Credentials:
    """What a host or a service shows to a gate. certificate: a file that also has the key."""

    name: str
    password: str
    certificate: Path
    authority: Path

    @property
    def identity(self) -> Identity:
        return Identity(str(self.authority), str(self.certificate))


class Server:
    """A process of a node, with all processes that it starts."""

    def __init__(
        self, namespace: Namespace, argv: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self._namespace = namespace
        self._argv = argv
        self._log = log
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.running
        with self._namespace.entered(), self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_BOUND, *self._argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it as a power cut would; return when it has ended, because the next one needs its ports."""
        if self._process is None:
            return
        first = self._first()
        self._process.kill()
        self._process.wait()
        self._process = None
        if first is not None:
            # A descriptor of a process is readable when it has ended.
            ended = select.select([first], [], [], _PATIENCE)[0]
            os.close(first)
            assert ended, f"{self._argv[0]} does not end"

    def _first(self) -> int | None:
        """A descriptor of the first process in the process namespace, which ends after all others there."""
        assert self._process is not None
        number = self._process.pid
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in Path(f"/proc/{number}/task/{number}/children").read_text().split():
                return os.pidfd_open(int(child))
        return None

    def words(self) -> str:
        """The end of what it has logged."""
        return self._log.read_text(errors="replace")[-2000:]


class FleetNode:
    """One node: its namespace, its files, its etcd and its gate."""

    def __init__(
        self, number: int, folder: Path, programs: tuple[Path, Path], network: str
    ) -> None:
        self.name = f"node{number}"
        self.address = f"{network}{_FIRST_NODE + number}"
        self.peer = f"https://{Endpoint(self.name, self.address, 2380)}"
        self.namespace = Namespace()
        self.folder = folder / self.name
        self.config, self.data, self.runtime = (
            self.folder / part for part in ("config", "data", "runtime")
        )
        for path in (self.config, self.data, self.runtime):
            path.mkdir(parents=True)
        self._programs = programs
        self.etcd: Server
        self.gate: Server

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Render the role's templates for this node. settings: variables of the role."""
        own = {
            "fleet_node_name": self.name,
            "fleet_node_address": self.address,
            "fleet_node_config": str(self.config),
            "fleet_node_data": str(self.data),
            "fleet_node_runtime": str(self.runtime),
            "fleet_node_api_socket": str(self.runtime / "api.sock"),
        }
        variables = _defaults() | dict(settings) | own
        etcd, nginx = self._programs
        settings_of_etcd = [rendered(f"{part}.env.j2", variables) for part in ("etcd", "bootstrap")]
        environment = dict(
            line.split("=", 1)
            for line in "\n".join(settings_of_etcd).splitlines()
            if line and not line.startswith("#")
        )
        self.etcd = Server(
            self.namespace, [str(etcd / "etcd")], self.folder / "etcd.log", environment
        )
        configuration = self.config / "gate.conf"
        configuration.write_text(rendered("gate.conf.j2", variables))
        argv = [str(nginx), "-c", str(configuration), "-p", str(self.runtime), "-e", "stderr"]
        self.gate = Server(self.namespace, argv, self.folder / "gate.log", {})


class FleetNodes:
    """The nodes of a fleet, and what tests do to them. Nodes are numbered from 0."""

    def __init__(
        self,
        version: str,
        count: int,
        folder: Path,
        settings: Mapping[str, Any],
        network: str = NETWORK,
    ) -> None:
        self._network = network
        self._folder = folder
        self._settings = settings
        self._attached = 0
        self._hosts: list[str] = []
        self._etcd = software.etcd(version)
        self.vault = Vault(_run, str(folder / "vault"))
        programs = (self._etcd, software.nginx())
        self.nodes = [FleetNode(number, folder, programs, network) for number in range(count)]
        self.lan = Namespace()
        self._cable()

    # What hosts need

    @property
    def gates(self) -> list[tuple[str, int]]:
        """The address and port of each gate."""
        return [(node.address, 2378) for node in self.nodes]

    @property
    def ca(self) -> Path:
        """The authority that hosts trust for gates."""
        return Path(self.vault.authority(HOSTS))

    def host_credentials(self, name: str) -> Credentials:
        """The credentials of a host, which the store knows from now on."""
        if name not in self._hosts:
            self.add_hosts(name)
        password = Path(self.vault.password("hosts", name)).read_text().strip()
        return Credentials(name, password, Path(self.vault.host(name)), self.ca)

    def add_hosts(self, *names: str) -> None:
        """Add many hosts at once."""
        self._hosts += [name for name in names if name not in self._hosts]
        self.vault.provide(self._members, self._hosts, self._users)
        self.settle_accounts(self._running()[0])

    def remove_hosts(self, *names: str) -> None:
        """Let hosts leave, as the role does."""
        self._hosts = [name for name in self._hosts if name not in names]
        self.settle_accounts(self._running()[0], forget=True)

    def service_credentials(self, name: str) -> Credentials:
        """The credentials of one of `SERVICES`, which reads everything and writes bans, lifts or rules."""
        password = Path(self.vault.password("users", name)).read_text().strip()
        return Credentials(name, password, Path(self.vault.gate(self.nodes[0].name)), self.ca)

    def attach(self, namespace: Namespace, device: str = "fleet0") -> str:
        """Connect a host's namespace to the nodes by a device; return its address."""
        number, self._attached = _FIRST_HOST + self._attached, self._attached + 1
        self._plug_in(namespace, f"host{number}", device, f"{self._network}{number}")
        return f"{self._network}{number}"

    def gateway(self, credentials: Credentials, gate: int = 0, *, timeout: float = 10.0) -> Gateway:
        """A connection through a gate; use it in the namespace `lan`."""
        user = (credentials.name, credentials.password)
        name = self.nodes[gate].name
        address = self.gates[gate]
        return Gateway(address, credentials.identity, user, name=name, timeout=timeout)

    # What decides

    def never(self, *protected: str) -> str:
        """Render the file of what nobody bans."""
        members = {node.name: node.address for node in self.nodes}
        own = {"fleet_node_members": members, "fleet_node_protected": list(filter(None, protected))}
        return rendered("never.j2", own)

    def root(self, node: int = 0) -> Callable[[str, Json], Json]:
        """A function that calls a node's etcd as root, past the gate."""
        gateway = self.at_etcd("root", node)

        def call(path: str, body: Json) -> Json:
            with self.nodes[node].namespace.entered():
                return gateway.call(path, body)

        return call

    def at_etcd(self, user: str, node: int = 0) -> Gateway:
        """A connection past the gate, of root or one of `SERVICES`; use it in the node's namespace."""
        password = Path(self.vault.password("users", user)).read_text().strip()
        return self._connector(node)((user, password))

    def put(self, key: str, value: str, **options: Any) -> int:
        """Write a key below /packetwatch/v1/ as root; return the revision."""
        body = {"key": encoded(KEYS + key), "value": encoded(value), **options}
        return int(self._any()("/v3/kv/put", body)["header"]["revision"])

    def get(self, key: str) -> str | None:
        """Read a key below /packetwatch/v1/ as root."""
        found = self._any()("/v3/kv/range", {"key": encoded(KEYS + key)}).get("kvs", ())
        return base64.b64decode(found[0].get("value", "")).decode() if found else None

    def values(self) -> dict[str, bytes]:
        """Read everything below /packetwatch/v1/ as root: values by their whole keys."""
        key, end = below(KEYS)
        found = self._any()("/v3/kv/range", {"key": key, "range_end": end}).get("kvs", ())
        return {
            base64.b64decode(pair["key"]).decode(): base64.b64decode(pair.get("value", ""))
            for pair in found
        }

    def delete(self, key: str) -> None:
        self._any()("/v3/kv/deleterange", {"key": encoded(KEYS + key)})

    def lease(self, seconds: int) -> str:
        """The ID of a new lease, for `put(..., lease=ID)`."""
        return str(self._any()("/v3/lease/grant", {"TTL": seconds})["ID"])

    def revision(self) -> int:
        """The store's present revision."""
        body = {"key": encoded(KEYS), "count_only": True}
        return int(self._any()("/v3/kv/range", body)["header"]["revision"])

    def compact(self) -> None:
        """Forget everything that was overwritten."""
        self._any()("/v3/kv/compaction", {"revision": self.revision(), "physical": True})

    def leader(self) -> int:
        """The number of the node that leads."""
        ids = {}
        for number, node in enumerate(self.nodes):
            if node.etcd.running:
                found = self.root(number)("/v3/maintenance/status", {})
                ids[found["header"]["member_id"]] = number
                leader = found["leader"]
        return ids[leader]

    def alarm(self, on: bool) -> None:
        """Raise or end the alarm of a full store, in which etcd refuses all writes."""
        call = self._any()
        member = call("/v3/cluster/member/list", {})["members"][0]["ID"]
        action = "ACTIVATE" if on else "DEACTIVATE"
        body = {"action": action, "memberID": member, "alarm": "NOSPACE"}
        call("/v3/maintenance/alarm", body)

    # Faults

    def kill(self, node: int, part: str = "") -> None:
        """Kill a node, or only its `etcd` or its `gate`."""
        for server in self._servers(node, part):
            server.kill()

    def start(self, node: int, part: str = "") -> None:
        """Start what of a node does not run."""
        for server in self._servers(node, part):
            if not server.running:
                server.start()

    def cut(self, node: int) -> None:
        """Let a node lose its peers, while hosts still reach it."""
        self._route(node, "add")

    def join(self, node: int) -> None:
        """Undo `cut`."""
        self._route(node, "delete")

    def unplug(self, node: int) -> None:
        """Pull a node's cable."""
        with self.lan.entered():
            ip(f"link set {self.nodes[node].name} down")

    def plug(self, node: int) -> None:
        """Plug a node's cable in again."""
        with self.lan.entered():
            ip(f"link set {self.nodes[node].name} up")

    def wipe(self) -> None:
        """Lose all data, and begin anew with an empty store that knows the same accounts."""
        self._stop()
        for node in self.nodes:
            shutil.rmtree(node.data / "etcd")
        self.up()

    def backup(self) -> Path:
        """Save the store's present state with etcdctl; return the file."""
        path = self._folder / f"backup-{time.monotonic_ns()}.db"
        self._etcdctl("snapshot", "save", str(path), user=True)
        return path

    def restore(self, backup: Path) -> None:
        """Give all nodes the state of a backup, which makes another cluster of them."""
        self._stop()
        members = ",".join(f"{node.name}={node.peer}" for node in self.nodes)
        for node in self.nodes:
            shutil.rmtree(node.data / "etcd")
            self._etcdctl(
                *("snapshot", "restore", str(backup), "--name", node.name),
                *("--data-dir", str(node.data / "etcd"), "--initial-cluster", members),
                *("--initial-advertise-peer-urls", node.peer),
                *("--initial-cluster-token", "packetwatch-fleet"),
            )
        for number in range(len(self.nodes)):
            self.start(number)
        self.wait()

    def wait(self, *nodes: int) -> None:
        """Wait until nodes answer with the agreement of the others. By default, all nodes."""
        for number in nodes or range(len(self.nodes)):
            self._until(number, functools.partial(self._read, number))

    def _read(self, number: int) -> Json:
        return self.root(number)("/v3/kv/range", _ANY)

    # Life

    def up(self) -> None:
        """Start all nodes, and give the store its accounts."""
        self.vault.provide(self._members, self._hosts, self._users)
        members = {node.peer: node.name for node in self.nodes}
        fixed = {"fleet_node_founders": members, "fleet_node_cluster_state": "new"}
        for node in self.nodes:
            for source, target in (
                (self.vault.etcd(node.name), "etcd.pem"),
                (self.vault.gate(node.name), "gate.pem"),
                (self.vault.inner(node.name), "inner.pem"),
                (self.vault.authority(NODES), "nodes-ca.pem"),
                (self.vault.authority(HOSTS), "hosts-ca.pem"),
            ):
                shutil.copyfile(source, node.config / target)
            node.configure(dict(self._settings) | fixed)
            (node.config / "never").write_text(self.never())
            node.etcd.start()
            node.gate.start()
        self.settle_accounts(self._running()[0], forget=True)

    def close(self) -> None:
        self._stop()
        for namespace in (self.lan, *(node.namespace for node in self.nodes)):
            namespace.close()

    @property
    def _members(self) -> list[Node]:
        return [Node(node.name, node.address) for node in self.nodes]

    @property
    def _users(self) -> list[str]:
        return ["root", *SERVICES]

    @property
    def _root_password(self) -> str:
        return Path(self.vault.password("users", "root")).read_text().strip()

    def _accounts(self) -> list[Account]:
        def password(kind: str, name: str) -> str:
            return Path(self.vault.password(kind, name)).read_text().strip()

        hosts = [host_account(name, password("hosts", name)) for name in self._hosts]
        services = [
            service_account(name, password("users", name), writes)
            for name, writes in SERVICES.items()
        ]
        return hosts + services

    def settle_accounts(self, number: int, forget: bool = False) -> list[str]:
        """Settle the accounts at a node, as the role does; return changes."""
        with self.nodes[number].namespace.entered():
            accounts = Accounts(self._connector(number), self._root_password)
            return accounts.settle(self._accounts(), _PATIENCE, forget=forget)

    def _connector(self, number: int) -> Callable[[tuple[str, str] | None], Gateway]:
        """Connects to a node's etcd as the role does: from the node, with the node's certificate."""
        config = self.nodes[number].config
        identity = Identity(str(config / "nodes-ca.pem"), str(config / "etcd.pem"))
        return lambda user: Gateway(("127.0.0.1", 2379), identity, user)

    def _any(self) -> Callable[[str, Json], Json]:
        """As `root`, at the first node whose etcd runs."""
        return self.root(self._running()[0])

    def _running(self) -> list[int]:
        return [number for number, node in enumerate(self.nodes) if node.etcd.running]

    def _servers(self, node: int, part: str) -> list[Server]:
        parts = {"etcd": self.nodes[node].etcd, "gate": self.nodes[node].gate}
        return [parts[part]] if part else list(parts.values())

    def _stop(self) -> None:
        for number in range(len(self.nodes)):
            self.kill(number)

    def _until(self, number: int, act: Callable[[], object]) -> None:
        """Do something as soon as the store lets it happen."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                act()
                return
            except PacketwatchError as error:
                if time.monotonic() > deadline:
                    words = self.nodes[number].etcd.words()
                    raise AssertionError(f"{error}\n{words}") from error
            time.sleep(0.05)

    def _etcdctl(self, *words: str, user: bool = False) -> None:
        node = self.nodes[self._running()[0] if user else 0]
        environment = {"ETCDCTL_API": "3"}
        options = []
        if user:
            environment["ETCDCTL_USER"] = f"root:{self._root_password}"
            own = str(node.config / "etcd.pem")
            options = ["--endpoints", "https://127.0.0.1:2379", "--cert", own, "--key", own]
            options += ["--cacert", str(node.config / "nodes-ca.pem")]
        with node.namespace.entered():
            done = subprocess.run(
                [str(self._etcd / "etcdctl"), *options, *words],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr

    # Cables

    def _cable(self) -> None:
        with self.lan.entered():
            ip("link set lo up")
            ip("link add name lan0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
            ip("link set lan0 up")
            self._give_address(f"{self._network}1", "lan0")
        for node in self.nodes:
            with node.namespace.entered():
                ip("link set lo up")
            self._plug_in(node.namespace, node.name, "eth0", node.address)

    def _plug_in(self, namespace: Namespace, port: str, device: str, address: str) -> None:
        with self.lan.entered():
            ip(f"link add name {port} type veth peer name {device} netns {namespace.path}")
            ip(f"link set {port} master lan0 up")
        with namespace.entered():
            ip(f"link set {device} up")
            self._give_address(address, device)

    def _give_address(self, address: str, device: str) -> None:
        """Give a device an address, which is in use at once."""
        prefix = f"{address}/64" if ":" in address else f"{address}/24"
        ip(f"address add {prefix} dev {device} nodad")

    def _route(self, node: int, verb: str) -> None:
        """Add or delete routes to nowhere between a node and the others, in both directions.

        In one direction alone, a leader's first changes would still arrive.
        """
        own = self.nodes[node]
        for other in self.nodes:
            if other is not own:
                for here, there in ((own, other), (other, own)):
                    with here.namespace.entered():
                        ip(f"route {verb} blackhole {there.address}")


@contextlib.contextmanager
def fleet_nodes(
    version: str, count: int = 1, *, network: str = NETWORK, **settings: Any
) -> Iterator[FleetNodes]:
    """The nodes of a fleet, running. version: one of `software.VERSIONS`. settings: variables of the role."""
    with tempfile.TemporaryDirectory(prefix="pwfleet-") as name:
        # nginx gives up root in its workers, which use files below this folder.
        os.chmod(name, 0o755)
        nodes = FleetNodes(version, count, Path(name), settings, network)
        try:
            nodes.up()
            yield nodes
        finally:
            nodes.close()


def _defaults() -> dict[str, Any]:
    return dict(yaml.safe_load((ROLE / "defaults/main.yml").read_text()))


def rendered(template: str, variables: Mapping[str, Any]) -> str:
    """A template of the role, as Ansible renders it."""
    environment = Environment(
        loader=FileSystemLoader(ROLE / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(variables)


def _run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
    done = subprocess.run(argv, input=stdin or "", capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr
