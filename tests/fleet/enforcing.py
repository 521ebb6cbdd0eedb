# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Enforcers that run as on nodes, and hosts that only report."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fleet.servers import FleetNodes
from kernel.hosting import CLEAN, ROOT

from packetwatch_core._kernel.bytecode import PYTHON
from packetwatch_core._node.gateway import below
from packetwatch_core._node.keys import BANS, KEYS
from packetwatch_core._node.rules import format_rules, parse_rules
from packetwatch_fleet.fold import Ban, fold
from packetwatch_fleet.sources import Sources, packed
from packetwatch_fleet.store.interface import Writer
from packetwatch_fleet.store.plugins import open_store

ENFORCING = {
    "quorum": {"action": "enforce", "networks": 1},
    "sweep": {"action": "enforce"},
    "slow": {"action": "enforce"},
    "crowd": {},
}
PARTS = {
    "packetwatch_core": "plugins/module_utils",
    "packetwatch_agent": "roles/packetwatch/files/agent/packetwatch_agent",
    "packetwatch_fleet": "roles/packetwatch/files/fleet/packetwatch_fleet",
    "packetwatch_enforcer": "roles/fleet_node/files/enforcer/packetwatch_enforcer",
}
_RUN = """
import sys, time
real = time.time
time.time = lambda: real() + {skew}
import packetwatch_agent
packetwatch_agent.__version__ = {version!r} or packetwatch_agent.__version__
from packetwatch_enforcer.__main__ import main
sys.exit(main())
"""
_COMPILED = "import packetwatch_enforcer.__main__, packetwatch_fleet.store.etcd"


def library(folder: Path) -> Path:
    """The packages of a node's services, compiled, as the role installs them."""
    code = folder / "node-library"
    if not code.exists():
        code.mkdir()
        for name, place in PARTS.items():
            (code / name).symlink_to(ROOT / place)
        environment = CLEAN | {
            "PYTHONPATH": str(code),
            "PYTHONPYCACHEPREFIX": str(code / "bytecode"),
        }
        subprocess.run([PYTHON, "-s", "-c", _COMPILED], env=environment, check=True)
    return code


class Enforcer:
    """``packetwatch-enforcer@NAME.service`` on a node, without systemd."""

    def __init__(
        self,
        folder: Path,
        nodes: FleetNodes,
        name: str,
        rules: Mapping[str, Any],
        *,
        node: int = 0,
        skew: int = 0,
        version: str = "",
        protected: str = "",
        **variables: str,
    ) -> None:
        self.log = folder / f"{name}.log"
        self._node = nodes.nodes[node]
        self._argv = [PYTHON, "-s", "-c", _RUN.format(skew=skew, version=version)]
        self.rules = folder / f"{name}.json"
        self.rules.write_text(format_rules(parse_rules(rules, "rules")))
        password = folder / f"{name}.password"
        password.write_text(nodes.service_credentials(name).password)
        never = folder / f"{name}.never"
        never.write_text(nodes.never(protected))
        code = library(folder)
        self._variables = {
            **CLEAN,
            "PYTHONPATH": str(code),
            "PYTHONPYCACHEPREFIX": str(code / "bytecode"),
            "MALLOC_MMAP_THRESHOLD_": "131072",
            "MALLOC_TRIM_THRESHOLD_": "131072",
            "PW_FLEET_STORE": "etcd",
            "PW_FLEET_ENDPOINTS": "localhost=127.0.0.1:2379",
            "PW_FLEET_ACCOUNT": name,
            "PW_FLEET_PASSWORD_FILE": str(password),
            "PW_FLEET_CA": str(self._node.config / "nodes-ca.pem"),
            "PW_FLEET_CERTIFICATE": str(self._node.config / "inner.pem"),
            "PW_FLEET_NEVER": str(never),
            "PW_ENFORCER_NAME": name,
            "PW_ENFORCER_RULES": str(self.rules),
            "PW_ENFORCER_RULES_FOLDER": str(folder / "rules.d"),
            "PW_ENFORCER_METRICS_LISTEN": "",
            **variables,
        }
        self.process: subprocess.Popen[bytes]
        self.start()

    @contextlib.contextmanager
    def writer(self) -> Iterator[Writer]:
        """A writer as the process has it."""
        with self._node.namespace.entered():
            store = open_store("etcd", self._variables)
            assert store
            found = store.writer()
            yield found
            found.close()

    def start(self) -> None:
        with self._node.namespace.entered(), self.log.open("ab") as log:
            self.process = subprocess.Popen(self._argv, env=self._variables, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def follows(self) -> int:
        """How often it has begun to follow the store."""
        return self.log.read_text().count("following the store")

    def resident(self) -> int:
        """The resident memory in kB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class Reporters:
    """Hosts that report to the store what a test says."""

    def __init__(self, nodes: FleetNodes, prefix: str = "web") -> None:
        self._nodes = nodes
        self._prefix = prefix
        self._numbers: dict[int, int] = {}
        self._bans: dict[int, dict[str, list[Any]]] = {}

    def name(self, host: int) -> str:
        return f"{self._prefix}{host}"

    def status(self, host: int, *addresses: str) -> None:
        value = {"v": 1, "t": time.time(), "addresses": list(addresses)}
        self._nodes.put(f"hosts/{self.name(host)}/status", json.dumps(value))

    def seen(self, host: int, *pairs: tuple[str, int], ago: float = 0, lost: int = 0) -> None:
        self._numbers[host] = self._numbers.get(host, 0) + 1
        value = {
            "v": 1,
            "n": self._numbers[host],
            "t": time.time() - ago,
            "lost": lost,
            "p": _coded(pair for pair in pairs if ":" not in pair[0]),
            "p6": _coded(pair for pair in pairs if ":" in pair[0]),
        }
        self._nodes.put(f"hosts/{self.name(host)}/seen", json.dumps(value))

    def ban(self, host: int, source: str, evidence: str = "syn") -> None:
        now = time.time()
        rows = self._bans.setdefault(host, {})
        rows[source] = [source, now + 600, now, [22, 23], evidence]
        value = {"v": 1, "t": now, "bans": list(rows.values())}
        self._nodes.put(f"hosts/{self.name(host)}/bans", json.dumps(value))


def _coded(pairs: Iterable[tuple[str, int]]) -> str:
    sources = Sources()
    data = b"".join(packed(sources.of(one)) + port.to_bytes(2, "big") for one, port in pairs)
    return base64.b64encode(data).decode()


def values(nodes: FleetNodes) -> dict[str, bytes]:
    """Everything in the store."""
    key, end = below(KEYS)
    found = nodes.root()("/v3/kv/range", {"key": key, "range_end": end}).get("kvs", ())
    return {
        base64.b64decode(pair["key"]).decode(): base64.b64decode(pair.get("value", ""))
        for pair in found
    }


def folded(nodes: FleetNodes) -> dict[str, Ban]:
    """What hosts make of the store."""
    return fold(values(nodes), time.time())


def report(nodes: FleetNodes, name: str) -> dict[str, Any]:
    """What an enforcer publishes; empty: nothing yet."""
    return dict(json.loads(nodes.get(f"rules/{name}") or "{}"))


class Two:
    """Two enforcers at two nodes. Versions differ, and their clocks are five minutes off, in both directions."""

    def __init__(self, folder: Path, nodes: FleetNodes) -> None:
        self.nodes = nodes
        self.hosts = Reporters(nodes)
        protected = "203.0.113.128/28"
        self.first = Enforcer(folder, nodes, "e1", ENFORCING, skew=-300, protected=protected)
        self.second = Enforcer(folder, nodes, "e2", ENFORCING, node=1, skew=300, version="0.9.0")

    def close(self) -> None:
        self.first.kill()
        self.second.kill()

    def clear(self) -> None:
        key, end = below(KEYS)
        self.nodes.root()("/v3/kv/deleterange", {"key": key, "range_end": end})

    def sweep(self, source: str, first: int = 1, count: int = 5) -> None:
        for host in range(first, first + count):
            self.hosts.seen(host, (source, 2222))

    def authors(self, source: str) -> set[str]:
        """The enforcers whose pages have a source."""
        return {
            key.removeprefix(BANS).partition("/")[0]
            for key, value in values(self.nodes).items()
            if key.startswith(BANS) and source.encode() in value
        }
