# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the store to the kernel and back: a real store, a real fleet process, a real agent and program."""

from __future__ import annotations

import base64
import json
import os
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet.following import settings
from fleet.host_process import HostProcess, until
from fleet.servers import FleetNodes, fleet_nodes
from kernel.controlling import PROTECTED, Controlled, controlled
from kernel.hosting import OWN
from kernel.packets import syn4

from packetwatch_core._kernel import abi
from packetwatch_core._node.gateway import below
from packetwatch_core._node.keys import KEYS
from packetwatch_fleet.fold import fold

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs"),
]

ON = {"PW_FLEET": "enforce"}
SCANNER = "203.0.113.77"


class Lab:
    """A node, and a host that is in its fleet."""

    def __init__(self, nodes: FleetNodes, host: Controlled, process: HostProcess) -> None:
        self.nodes = nodes
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
        key, end = below(KEYS)
        found = self.nodes.root()("/v3/kv/range", {"key": key, "range_end": end})
        values = {
            decoded(pair["key"]): decoded(pair.get("value", "")).encode()
            for pair in found.get("kvs", ())
        }
        return {source: ban.until for source, ban in fold(values, time.time()).items()}

    def is_equal(self) -> bool:
        kernel, declared = self.kernel(), self.declared()
        return kernel.keys() == declared.keys() and all(
            abs(kernel[source] - declared[source]) < 3 for source in kernel
        )


def decoded(text: str) -> str:
    return base64.b64decode(text).decode()


@pytest.fixture(scope="module")
def lab(bytecode_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with fleet_nodes("3.4", 1) as nodes, controlled(bytecode_cache) as host:
        wire = host.site.wire.host
        nodes.attach(wire)
        host.stop()
        with wire.entered():
            host.start(**ON)
        variables = settings(nodes, "host-a") | {"PW_CONTROL_SOCKET": str(host.control)}
        process = HostProcess(tmp_path_factory.mktemp("fleet"), variables, wire.entered)
        try:
            until(lambda: "following the store" in process.log.read_text())
            yield Lab(nodes, host, process)
        finally:
            process.kill()


def row(address: str, seconds: float = 600, evidence: str = "answer") -> list[Any]:
    now = time.time()
    return [address, round(now + seconds), round(now), "quorum", evidence, 3]


def page(*rows: list[Any]) -> str:
    return json.dumps({"v": 1, "bans": list(rows)})


def test_from_the_store_to_the_kernel(lab: Lab) -> None:
    delays = []
    for number in range(30):
        began = time.monotonic()
        lab.nodes.put("bans/e1/p", page(row(f"203.0.113.{number + 1}")))
        source = f"203.0.113.{number + 1}"
        with lab.host.bans() as bans:
            key = bans.source_of(source)
            until(lambda bans=bans, key=key: bans.find(key, "bans"))
        delays.append((time.monotonic() - began) * 1000)
    print(f"put to kernel: median {statistics.median(delays):.1f}, most {max(delays):.1f} ms")
    assert statistics.median(delays) < 80
    until(lab.is_equal)
    lab.nodes.put("lifts/p", json.dumps({"v": 1, "lifts": [["203.0.113.30", time.time() + 1, 0]]}))
    until(lambda: not lab.kernel() and lab.is_equal())
    lab.nodes.delete("lifts/p")


def test_protected_sources_are_refused_by_the_agent_and_counted(lab: Lab) -> None:
    lab.nodes.put("bans/e1/p", page(row(PROTECTED), row("203.0.113.1", 300, "syn")))
    until(lambda: set(lab.kernel()) == {"203.0.113.1"})
    until(lambda: lab.process.ask("fleet")["agent"]["refused"] == {"protected": 1})
    with lab.host.bans() as bans:
        ban = bans.find(bans.source_of("203.0.113.1"), "bans")
    assert ban and ban.flags & abi.BAN_CONNECTIONS


def test_a_killed_agent_and_a_killed_process_lose_nothing(lab: Lab) -> None:
    lab.nodes.put("bans/e1/p", page(*(row(f"203.0.113.{number}") for number in range(1, 50))))
    until(lab.is_equal)
    assert lab.host.process
    lab.host.process.kill()
    lab.host.process.wait()
    lab.host.process = None
    lab.nodes.put("bans/e1/p", page(*(row(f"203.0.113.{number}") for number in range(30, 80))))
    time.sleep(0.5)
    assert len(lab.kernel()) == 49
    with lab.host.site.wire.host.entered():
        lab.host.start(**ON)
    until(lab.is_equal)
    lab.process.kill()
    lab.nodes.put("bans/e1/p", page(row("203.0.113.1")))
    lab.process.start()
    until(lab.is_equal)


def test_a_scan_is_reported_to_the_store(lab: Lab) -> None:
    with lab.host.site.wire.host.entered(), lab.host.site.program() as program:
        device = socket.if_nametoindex("pw0")
        began = time.monotonic()
        for port in range(2001, 2010):
            program.test_run(syn4(SCANNER, port, OWN), device)
        until(lambda: SCANNER in (lab.nodes.get("hosts/host-a/bans") or ""))
        spent = (time.monotonic() - began) * 1000
    print(f"scan to the store: {spent:.0f} ms")
    rows = json.loads(lab.nodes.get("hosts/host-a/bans") or "{}")["bans"]
    [ban] = [found for found in rows if found[0] == SCANNER]
    assert abs(ban[1] - time.time() - 600) < 5 and set(ban[3]) <= set(range(2001, 2010))
    assert ban[4] == "syn"
    until(lambda: lab.nodes.get("hosts/host-a/seen"))
    lab.host.ctl("unban", SCANNER)
    until(lambda: SCANNER not in (lab.nodes.get("hosts/host-a/bans") or SCANNER))
