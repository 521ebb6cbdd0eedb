# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host of a fleet with the real agent, program and fleet process, whose kernel is compared with the store."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleet.following import settings
from fleet.host_process import HostProcess, until
from fleet.servers import FleetNodes
from kernel.controlling import Controlled, controlled
from kernel.hosting import OWN
from kernel.packets import syn4

from packetwatch_core._kernel import abi
from packetwatch_fleet.fold import fold

ON = {"PW_FLEET": "enforce"}
# More than the five that make a scan.
_PORTS = range(2001, 2010)
# The kernel counts from another moment, and the store's clock is known to a second.
_SLACK = 3.0


class RealHost:
    """name: in the store."""

    def __init__(
        self, nodes: FleetNodes, name: str, host: Controlled, process: HostProcess
    ) -> None:
        self.nodes = nodes
        self.name = name
        self.host = host
        self.process = process

    def kernel(self) -> dict[str, float]:
        """Return the fleet's bans in the kernel, with their ends in the store's time."""
        offset = time.time() - time.monotonic()
        with self.host.bans() as bans:
            return {
                ban.source.text: ban.expires / 1e9 + offset
                for ban in bans.active()
                if ban.origin == abi.ORIGIN_FLEET
            }

    def declared(self) -> dict[str, float]:
        """Return what the fold makes of everything in the store."""
        found = fold(self.nodes.values(), time.time())
        return {source: ban.until for source, ban in found.items()}

    def is_equal(self) -> bool:
        """Whether the kernel has the bans of the store, with their ends, and no others."""
        kernel, declared = self.kernel(), self.declared()
        return kernel.keys() == declared.keys() and all(
            abs(kernel[source] - declared[source]) < _SLACK for source in kernel
        )

    def scan(self, source: str) -> None:
        """Let a source scan the host until its program bans it."""
        with self.host.site.wire.host.entered(), self.host.site.program() as program:
            device = socket.if_nametoindex("pw0")
            for port in _PORTS:
                program.test_run(syn4(source, port, OWN), device)

    def reports(self, source: str) -> bool:
        """Whether the host's report of its own bans in the store has this source."""
        return source in (self.nodes.get(f"hosts/{self.name}/bans") or "")

    def follows(self) -> int:
        """Return the number of the node that the host follows."""
        address = self.process.ask("fleet")["store"]["endpoint"].rpartition(":")[0]
        return [node.address for node in self.nodes.nodes].index(address)

    def kill_agent(self) -> None:
        assert self.host.process
        self.host.process.kill()
        self.host.process.wait()
        self.host.process = None

    def start_agent(self) -> None:
        with self.host.site.wire.host.entered():
            self.host.start(**ON)


@contextlib.contextmanager
def real_host(
    nodes: FleetNodes, name: str, cache: Path, folder: Path, *gates: int
) -> Iterator[RealHost]:
    """A host that follows the store. gates: those that it knows, in their order; none: all."""
    with controlled(cache) as host:
        wire = host.site.wire.host
        nodes.attach(wire)
        host.stop()
        with wire.entered():
            host.start(**ON)
        variables = settings(nodes, name, *gates) | {"PW_CONTROL_SOCKET": str(host.control)}
        folder.mkdir(exist_ok=True)
        process = HostProcess(folder, variables, wire.entered)
        try:
            until(lambda: "following the store" in process.log.read_text())
            yield RealHost(nodes, name, host, process)
        finally:
            process.kill()


def row(address: str, seconds: float = 600, evidence: str = "answer") -> list[Any]:
    now = time.time()
    return [address, round(now + seconds), round(now), "quorum", evidence, 3]


def page(*rows: list[Any]) -> str:
    return json.dumps({"v": 1, "bans": list(rows)})
