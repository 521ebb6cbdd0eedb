# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store that is full (etcd's alarm NOSPACE): hosts go on with what it has, and catch up after room was made."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import software
from fleet.following import settings
from fleet.host_process import HostProcess, Speaker, running, until
from fleet.servers import FleetNodes, fleet_nodes

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._node import decisions
from packetwatch_core._node.never import Never
from packetwatch_core._node.overview import store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ETCD = "3.5"
QUOTA = 4 << 20
SCANNER = "198.51.100.7"
REPORT = "0" * 500_000


@pytest.fixture
def nodes() -> Iterator[FleetNodes]:
    with fleet_nodes(ETCD, 1, fleet_node_quota=QUOTA) as nodes:
        yield nodes


def page(*addresses: str) -> str:
    now = round(time.time())
    rows = [[address, now + 600, now, "quorum", "answer", 3] for address in addresses]
    return json.dumps({"v": 1, "bans": rows})


def fill(nodes: FleetNodes) -> None:
    """Write until etcd has no room, as many reports of hosts would."""
    with pytest.raises(PacketwatchError, match="space exceeded"):
        write(nodes, 2 * QUOTA)


def write(nodes: FleetNodes, size: int) -> None:
    for dummy in range(0, size, len(REPORT)):
        nodes.put("hosts/host-b/seen", REPORT)


def make_room(nodes: FleetNodes) -> None:
    """Do what docs/fleet-nodes.md says, without waiting until the store has forgotten what was overwritten."""
    nodes.compact()
    node = nodes.nodes[0]
    page = (ROOT / "docs/fleet-nodes.md").read_text().partition("## A full store")[2]
    commands = page.split("```")[1].replace("/etc/packetwatch-fleet-node", str(node.config))
    password = Path(nodes.vault.password("users", "root")).read_text()
    with node.namespace.entered():
        done = subprocess.run(
            ["bash", "-e"],
            input=commands.replace("--user root", f"--user root:{password.strip()}"),
            env=os.environ | {"PATH": f"{software.etcd(ETCD)}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr


def fleet(process: HostProcess) -> dict[str, Any]:
    return process.ask("fleet")


def has_compared(process: HostProcess, bans: int) -> bool:
    try:
        found = fleet(process)
    except PacketwatchError:
        return False
    return found["store"]["connected"] and (found["agent"]["bans"], found["agent"]["missing"]) == (
        bans,
        0,
    )


def is_reported(nodes: FleetNodes) -> bool:
    return SCANNER in (nodes.get("hosts/host-a/bans") or "")


def test_a_full_store_is_read_and_followed_and_all_is_equal_after_it_has_room(
    nodes: FleetNodes, tmp_path: Path
) -> None:
    nodes.put("bans/e1/p", page("203.0.113.1", "203.0.113.2"))
    nodes.put("bans/e1/q", page("203.0.113.3"))
    with running(tmp_path, settings(nodes, "host-a"), nodes.lan.entered) as (process, agent):
        until(lambda: len(agent.bans) == 3 and agent.streams)
        fill(nodes)
        assert any("NOSPACE" in text for text in store_of(nodes)["problems"])
        with nodes.nodes[0].namespace.entered(), pytest.raises(PacketwatchError, match="space"):
            decisions.ban(nodes.at_etcd("api"), ["203.0.113.4"], 600, "", False, Never())
        agent.say(ban=[SCANNER, [21], 600.0, "syn"])
        until(lambda: "space exceeded" in fleet(process)["reports"]["problem"])
        assert any("do not reach the store" in line["message"] for line in process.lines())
        # A deletion needs no room, and the watch shows it.
        nodes.delete("bans/e1/q")
        until(lambda: set(agent.bans) == {"203.0.113.1", "203.0.113.2"})
        began_anew(process, agent)
        assert fleet(process)["store"]["problem"] == "" and not is_reported(nodes)
        make_room(nodes)
        nodes.put("bans/e1/q", page("203.0.113.4"))
        until(lambda: "203.0.113.4" in agent.bans)
        until(lambda: is_reported(nodes) and not fleet(process)["reports"]["problem"])
        assert set(agent.bans) == {"203.0.113.1", "203.0.113.2", "203.0.113.4"}


def began_anew(process: HostProcess, agent: Speaker) -> None:
    """A process that starts now lists the full store."""
    process.kill()
    agent.own = [[SCANNER, 600.0, "syn"]]
    process.start()
    until(lambda: has_compared(process, 2))


def store_of(nodes: FleetNodes) -> dict[str, Any]:
    with nodes.nodes[0].namespace.entered():
        return store(nodes.at_etcd("root"))
