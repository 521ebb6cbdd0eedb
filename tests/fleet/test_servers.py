# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nodes that other tests use: they agree, and each fault is the one that it should be."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fleet.following import mirror
from fleet.host_process import until
from fleet.servers import NETWORK, NETWORK6, FleetNodes, fleet_nodes
from fleet.software import VERSIONS

from packetwatch_core._base.errors import SetupFailed
from packetwatch_core._network.endpoints import Endpoint
from packetwatch_core._node.gateway import Refused, Unreached, below, encoded
from packetwatch_core._node.keys import KEYS
from packetwatch_core._node.members import change, leader, members
from packetwatch_core._node.services import Service, Services, update

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=zip(VERSIONS, (NETWORK, NETWORK6)), ids=VERSIONS)
def nodes(request: pytest.FixtureRequest) -> Iterator[FleetNodes]:
    """Nodes with IPv4 or IPv6 addresses."""
    version, network = request.param
    with fleet_nodes(version, 3, network=network) as nodes:
        yield nodes


def test_a_host_reads_through_each_gate_what_was_decided(nodes: FleetNodes) -> None:
    nodes.put("bans/api/a", "1")
    credentials = nodes.host_credentials("host-a")
    key, end = below(f"{KEYS}bans/")
    with nodes.lan.entered():
        for gate in range(3):
            found = nodes.gateway(credentials, gate).call(
                "/v3/kv/range", {"key": key, "range_end": end}
            )
            assert [kv["value"] for kv in found["kvs"]] == [encoded("1")]


@pytest.mark.parametrize("gate", range(3))
def test_a_host_follows_and_reports_through_each_gate(nodes: FleetNodes, gate: int) -> None:
    with mirror(nodes, "host-a", gate) as one:
        assert one.follower.endpoint == str(Endpoint("", *nodes.gates[gate]))
        nodes.put("bans/e1/p", f"for gate {gate}")
        one.until(lambda: one.items.get("bans/e1/p") == b"for gate %d" % gate)
        one.writer.put(f"{KEYS}hosts/host-a/seen", b"gate %d" % gate)
        one.until(lambda: nodes.get("hosts/host-a/seen") == f"gate {gate}")


def test_what_a_host_or_an_enforcer_has_reported_leaves_with_it(nodes: FleetNodes) -> None:
    nodes.add_hosts("host-a", "host-a2", "host-b")
    kept = ("hosts/host-a/status", "hosts/host-b/bans", "rules/e1", "bans/old/p", "lists/x")
    gone = ("hosts/host-a2/seen", "hosts/host-a2/bans", "hosts/host-a2/status", "rules/old")
    for key in (*kept, *gone):
        nodes.put(key, "1")
    nodes.remove_hosts("host-a2")
    assert [key for key in (*kept, *gone) if nodes.get(key) == "1"] == list(kept)
    for key in kept:
        nodes.delete(key)


def answers(nodes: FleetNodes, gate: int) -> bool:
    """Whether a gate answers a host with the agreement of the other nodes."""
    with nodes.lan.entered():
        gateway = nodes.gateway(nodes.host_credentials("host-a"), gate, timeout=2.0)
        try:
            gateway.call("/v3/kv/range", {"key": encoded(f"{KEYS}rules/e1")})
        except (Refused, Unreached):
            return False
        finally:
            gateway.close()
    return True


def until_it_answers(nodes: FleetNodes, gate: int) -> None:
    """Wait until a gate answers: a busy machine may take longer than the two seconds of an attempt."""
    until(lambda: answers(nodes, gate))


def test_a_killed_node_comes_back(nodes: FleetNodes) -> None:
    leader = nodes.leader()
    nodes.kill(leader)
    others = [number for number in range(3) if number != leader]
    nodes.wait(*others)
    assert not answers(nodes, leader)
    for number in others:
        until_it_answers(nodes, number)
    nodes.start(leader)
    nodes.wait()
    until_it_answers(nodes, leader)


def test_accounts_are_settled_while_a_leader_is_chosen(nodes: FleetNodes) -> None:
    nodes.host_credentials("host-a")
    leader = nodes.leader()
    nodes.kill(leader, "etcd")
    assert nodes.settle_accounts((leader + 1) % 3) == []
    nodes.start(leader)
    nodes.wait()


def test_only_the_leader_gives_a_vote(nodes: FleetNodes) -> None:
    """With passwords, etcd gives no answer to a member that hands the request on."""
    # It never starts, so it never has all data.
    url = "https://198.18.99.9:2380"
    first = nodes.leader()

    def asked(number: int, state: str, patience: float = 30) -> bool:
        with nodes.nodes[number].namespace.entered():
            gateway = nodes.at_etcd("root", number)
            assert leader(gateway, members(gateway)) == nodes.nodes[first].name
            return change(gateway, url, state, patience, False)[0]

    other = (first + 1) % 3
    assert asked(other, "learning")
    try:
        began = time.monotonic()
        assert not asked(other, "voting")
        assert time.monotonic() < began + 10
        with pytest.raises(SetupFailed, match="in sync with leader"):
            asked(first, "voting", 2)
    finally:
        assert asked(other, "absent")


def test_a_node_restarts_as_soon_as_another_one_answers(nodes: FleetNodes, tmp_path: Path) -> None:
    restarted = []

    def run(argv: Sequence[str], _stdin: str | None) -> tuple[int, str, str]:
        """What systemd says of a service that runs."""
        if argv[1] == "restart":
            restarted.append(nodes.nodes[2].gate.running)
        return 0, "", ""

    service = Service("x.service", [], str(tmp_path / "declared"), str(tmp_path / "running"))
    own, *others = (nodes.gateway(nodes.service_credentials("root"), one) for one in range(3))

    def settle() -> list[str]:
        with nodes.lan.entered():
            return update(Services(run, [service]), own, dict(zip("12", others)), 60.0, dry=False)

    nodes.kill(2, "gate")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(settle)
        time.sleep(3)
        # A server ends with the thread that has started it.
        nodes.start(2, "gate")
        assert found.result() == ["x.service restarted"]
    assert restarted == [True]


def test_a_node_without_its_peers_is_still_reached_and_cannot_agree(nodes: FleetNodes) -> None:
    nodes.cut(2)
    assert not answers(nodes, 2)
    nodes.wait(0, 1)
    until_it_answers(nodes, 0)
    nodes.join(2)
    nodes.wait()


def test_an_unplugged_node_is_silent(nodes: FleetNodes) -> None:
    nodes.unplug(1)
    began = time.monotonic()
    assert not answers(nodes, 1)
    assert time.monotonic() - began >= 2.0
    nodes.plug(1)
    nodes.wait()
    until_it_answers(nodes, 1)


def test_a_full_store_takes_no_writes(nodes: FleetNodes) -> None:
    nodes.alarm(True)
    with pytest.raises(Refused, match="space"):
        nodes.put("bans/api/full", "1")
    until_it_answers(nodes, 0)
    nodes.alarm(False)
    nodes.put("bans/api/full", "1")


def test_compaction_leaves_what_is_true_now(nodes: FleetNodes) -> None:
    old = nodes.put("bans/api/c", "1")
    nodes.put("bans/api/c", "2")
    nodes.compact()
    assert nodes.get("bans/api/c") == "2"
    with pytest.raises(Refused, match="compacted"):
        nodes.root()("/v3/kv/range", {"key": encoded(KEYS), "revision": old})


def test_a_backup_brings_back_the_state_of_its_time(nodes: FleetNodes) -> None:
    nodes.put("bans/api/b", "before")
    backup = nodes.backup()
    nodes.put("bans/api/b", "after")
    nodes.restore(backup)
    assert nodes.get("bans/api/b") == "before"
    until_it_answers(nodes, 2)


def test_a_wiped_store_knows_its_accounts_and_nothing_else(nodes: FleetNodes) -> None:
    nodes.put("bans/api/w", "1")
    nodes.wipe()
    assert nodes.get("bans/api/w") is None
    until_it_answers(nodes, 1)
