# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real enforcers on a real store of three nodes: what they decide, what they refuse, what faults do to them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet.enforcing import ENFORCING, Enforcer, Reporters, folded, report, values
from fleet.host_process import until
from fleet.servers import FleetNodes, fleet_nodes

from packetwatch_core._node.gateway import below
from packetwatch_core._node.keys import BANS, KEYS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[FleetNodes]:
    with fleet_nodes("3.5", 3) as found:
        yield found


class Two:
    """Two enforcers at two nodes. Versions differ, and one clock is five minutes off."""

    def __init__(self, folder: Path, nodes: FleetNodes) -> None:
        self.nodes = nodes
        self.hosts = Reporters(nodes)
        self.first = Enforcer(folder, nodes, "e1", ENFORCING, PW_FLEET_PROTECT="203.0.113.128/28")
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


@pytest.fixture(scope="module")
def pair(nodes: FleetNodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    found = Two(tmp_path_factory.mktemp("enforcers"), nodes)
    try:
        until(lambda: found.first.follows and found.second.follows, shown=found.first.log.read_text)
        yield found
    finally:
        found.close()


def test_both_decide_the_same_and_hosts_ban_once(pair: Two) -> None:
    pair.sweep("203.0.113.9")
    until(lambda: pair.authors("203.0.113.9") == {"e1", "e2"}, shown=pair.first.log.read_text)
    ban = folded(pair.nodes)["203.0.113.9"]
    assert (ban.rule, ban.evidence, ban.seen) == ("sweep", "syn", 5)
    # Of the store's time, whatever the clock of the node says.
    assert 590 < ban.until - time.time() <= 601
    for enforcer, version in (("e1", "1."), ("e2", "0.9.0")):
        until(lambda name=enforcer: report(pair.nodes, name).get("recent"))
        found = report(pair.nodes, enforcer)
        assert found["v"] == 1 and found["version"].startswith(version)
        assert found["batch"] == 1 and found["blind"] is False
        decision = found["recent"][0]
        assert decision["source"] == "203.0.113.9" and decision["rule"] == "sweep"
        assert decision["hosts"] == [f"web{n}" for n in range(1, 6)] and decision["ports"] == [2222]
        assert decision["action"] == "enforce" and "5 hosts within 600 s" in decision["why"]
        assert found["rules"]["sweep"]["decided"] == 1
        assert found["rules"]["sweep"]["thresholds"] == {"hosts": 5, "window": 600, "seconds": 600}
    lines = [line for line in pair.first.lines() if line.get("event.action") == "fleet_enforce"]
    assert lines[0]["source.ip"] == "203.0.113.9" and lines[0]["packetwatch.rule"] == "sweep"
