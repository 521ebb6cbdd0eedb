# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client of etcd's gateway, against real etcd of both versions behind real gates, and through their faults."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence

import pytest
from fleet.following import Mirror, mirror, settings
from fleet.host_process import PATIENCE
from fleet.servers import FleetNodes, fleet_nodes
from fleet.software import VERSIONS

from packetwatch_core._network.endpoints import Endpoint
from packetwatch_core._node.gateway import Identity, context
from packetwatch_core._node.keys import BANS, FOLLOWED, HOSTS, KEYS, LIFTS
from packetwatch_fleet.plugins import tls as tls_of
from packetwatch_fleet.store import follower
from packetwatch_fleet.store.cluster import Cluster
from packetwatch_fleet.store.etcd import Etcd
from packetwatch_fleet.store.gateway import PIECE, Account, watch_request
from packetwatch_fleet.store.interface import (
    Conflict,
    Denied,
    Lost,
    Put,
    Relisted,
    Snapshot,
    Store,
    Unavailable,
)
from packetwatch_fleet.store.plugins import open_store

pytestmark = pytest.mark.slow
# Seconds by which a machine with other work may be late.
SLACK = 15.0


@pytest.fixture(scope="module", params=VERSIONS)
def nodes(request: pytest.FixtureRequest) -> Iterator[FleetNodes]:
    with fleet_nodes(request.param, 3) as nodes:
        yield nodes


def host(nodes: FleetNodes, name: str = "host-a") -> Store:
    """Return a host's store; use it in the namespace `lan`."""
    store = open_store("etcd", settings(nodes, name))
    assert store
    return store


def root(nodes: FleetNodes) -> Etcd:
    """Return the store of somebody who may do anything; use it in the namespace of the first node."""
    config = nodes.nodes[0].config
    shown = {
        "PW_FLEET_CA": str(config / "nodes-ca.pem"),
        "PW_FLEET_CERTIFICATE": str(config / "etcd.pem"),
    }
    tls = tls_of(shown, "PW_FLEET", "root")
    account = Account("root", nodes._root_password)
    return Etcd(Cluster([Endpoint("localhost", "127.0.0.1", 2379)], tls, account))


def test_a_long_listing_is_read_in_pieces_at_one_revision(nodes: FleetNodes) -> None:
    count = 3 * PIECE + 1
    with nodes.nodes[0].namespace.entered():
        store = root(nodes)
        for number in range(count):
            store.write(f"{BANS}e1/many-{number:04}", b"x" * number)
        store.write(f"{LIFTS}many", b"y")
        store.write(f"{LIFTS}empty", b"")
    with nodes.lan.entered():
        found = host(nodes).read(BANS, LIFTS)
    many = {key: value for key, (dummy, value) in found.items.items() if "/many-" in key}
    assert many == {f"{BANS}e1/many-{number:04}": b"x" * number for number in range(count)}
    assert (found.items[f"{LIFTS}many"][1], found.items[f"{LIFTS}empty"][1]) == (b"y", b"")
    assert found.revision == nodes.revision() and found.cluster
    assert abs(found.now - time.time()) < 1.5 + SLACK
    with nodes.nodes[0].namespace.entered():
        for number in range(count):
            store.delete(f"{BANS}e1/many-{number:04}")


def test_writes_may_expect_a_revision_and_have_an_end(nodes: FleetNodes) -> None:
    key = f"{KEYS}lists/x"
    with nodes.nodes[0].namespace.entered():
        store = root(nodes)
        first = store.write(key, b"1", expect=0)
        with pytest.raises(Conflict, match="read it again"):
            store.write(key, b"2", expect=0)
        second = store.write(key, b"2", expect=first)
        with pytest.raises(Conflict):
            store.delete(key, expect=first)
        assert store.read(key).items == {key: (second, b"2")}
        store.delete(key, expect=second)
        assert store.read(key).items == {}
        ends = store.read(key).now + 5
        for number in range(3):
            store.write(f"{key}{number}", b"", ends=ends)
        assert len(store.read(key).items) == 3
        deadline = time.monotonic() + PATIENCE
        while store.read(key).items:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_host_is_denied_what_is_not_its_own(nodes: FleetNodes) -> None:
    with nodes.lan.entered():
        store = host(nodes)
        assert store.write(f"{HOSTS}host-a/status", b"{}")
        for forbidden in ("host-b/status", "host-a/more", "host-a-evil/status"):
            with pytest.raises(Denied):
                store.write(f"{HOSTS}{forbidden}", b"{}")
        with pytest.raises(Denied):
            store.read(HOSTS)
        with pytest.raises(Denied):
            store.write(f"{HOSTS}host-a/status", b"", expect=0)
        with pytest.raises(Unavailable, match="413"):
            store.write(f"{HOSTS}host-a/status", b"x" * 40_000)


def test_a_wrong_password_is_an_error_that_names_the_user(nodes: FleetNodes) -> None:
    variables = settings(nodes, "host-a")
    with open(variables["PW_FLEET_PASSWORD_FILE"], "w") as file:
        file.write("wrong\n")
    store = open_store("etcd", variables)
    assert store
    with nodes.lan.entered(), pytest.raises(Denied, match="'host-a'"):
        store.read(BANS)


def test_changes_come_in_their_order_and_reports_are_overwritten(nodes: FleetNodes) -> None:
    nodes.add_hosts("host-b")
    with mirror(nodes) as one:
        for number in range(20):
            nodes.put("bans/e1/p", str(number))
        nodes.put("lifts/l", "")
        nodes.delete("bans/e1/p")
        assert (
            one.until(lambda: "lifts/l" in one.items and "bans/e1/p" not in one.items) < 2 + SLACK
        )
        values = [
            change.value
            for dummy, change in one.changes
            if isinstance(change, Put) and change.key == f"{BANS}e1/p"
        ]
        assert values == [str(number).encode() for number in range(20)]
        for number in range(50):
            one.writer.put(f"{HOSTS}host-a/seen", str(number).encode())
        one.until(lambda: nodes.get("hosts/host-a/seen") == "49")
        assert one.writer.problem == ""


def test_every_watch_of_a_stream_begins(nodes: FleetNodes) -> None:
    """When etcd begins to answer, it throws away what it has not read of a request."""
    config = nodes.nodes[0].config
    tls = context(Identity(str(config / "nodes-ca.pem"), str(config / "etcd.pem")))
    gateway = nodes.at_etcd("root")
    body = watch_request(FOLLOWED, nodes.revision() + 1)
    with nodes.nodes[0].namespace.entered():
        gateway.login()
        for dummy in range(60):
            connection = http.client.HTTPSConnection("localhost", 2379, context=tls, timeout=60)
            connection.request("POST", "/v3/watch", body, {"Authorization": gateway.token})
            answer = connection.getresponse()
            found = [json.loads(answer.readline())["result"] for prefix in FOLLOWED]
            connection.close()
            assert all(one.get("created") for one in found), found


def test_a_stream_without_one_of_its_watches_is_begun_again(
    nodes: FleetNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def request(prefixes: Sequence[str], revision: int) -> bytes:
        begun.append(revision)
        return watch_request(prefixes[:-1] if len(begun) == 1 else prefixes, revision)

    monkeypatch.setattr(follower, "watch_request", request)
    with mirror(nodes) as one:
        nodes.put("lifts/missed", "1")
        one.until(lambda: "lifts/missed" in one.items)
        lost = [change for dummy, change in one.changes if isinstance(change, Lost)]
        assert [change.reason for change in lost] == ["the store has begun 1 of 2 watches"]
    nodes.delete("lifts/missed")


def follows(nodes: FleetNodes, one: Mirror, value: str) -> float:
    """Write a value, and return the seconds until the mirror has it."""
    nodes.put("bans/e1/p", value)
    return one.until(lambda: one.items.get("bans/e1/p") == value.encode())


def test_a_killed_node_is_left_at_once(nodes: FleetNodes) -> None:
    with mirror(nodes) as one:
        number = [node.address for node in nodes.nodes].index(one.follower.endpoint.split(":")[0])
        nodes.kill(number)
        nodes.wait(*(other for other in range(3) if other != number))
        assert follows(nodes, one, "killed") < 5 + SLACK
        assert one.kinds()[-2:] == ["Lost", "Relisted"] or one.kinds()[-1] == "Put"
        nodes.start(number)
        nodes.wait()


def test_a_killed_leader_is_survived(nodes: FleetNodes) -> None:
    with mirror(nodes) as one:
        leader = nodes.leader()
        nodes.kill(leader, "etcd")
        nodes.wait(*(other for other in range(3) if other != leader))
        assert follows(nodes, one, "no leader") < 8 + SLACK
        nodes.start(leader)
        nodes.wait()


def test_a_silent_link_is_noticed(nodes: FleetNodes) -> None:
    # The tests write at the first node.
    with mirror(nodes, "host-a", 1, 2) as one:
        number = [node.address for node in nodes.nodes].index(one.follower.endpoint.split(":")[0])
        nodes.unplug(number)
        nodes.wait(*(other for other in range(3) if other != number))
        # The limit of silence is six seconds; connecting to the unplugged node takes up to three more.
        assert follows(nodes, one, "unplugged") < 14 + SLACK
        lost = [change for dummy, change in one.changes if isinstance(change, Lost)]
        assert "no answer in time" in lost[0].reason
        nodes.plug(number)
        nodes.wait()


def test_a_node_without_its_peers_is_left(nodes: FleetNodes) -> None:
    # The tests write at the first node.
    with mirror(nodes, "host-a", 1, 2) as one:
        number = [node.address for node in nodes.nodes].index(one.follower.endpoint.split(":")[0])
        nodes.cut(number)
        nodes.wait(*(other for other in range(3) if other != number))
        # What was under way may still arrive.
        one.until(lambda: any(isinstance(change, Lost) for dummy, change in one.changes))
        nodes.wait(*(other for other in range(3) if other != number))
        assert follows(nodes, one, "cut") < 6 + SLACK
        nodes.join(number)
        nodes.wait()


def test_compaction_while_away_is_followed_by_a_listing(nodes: FleetNodes) -> None:
    nodes.put("bans/e1/old", "1")
    with mirror(nodes) as one:
        assert "bans/e1/old" in one.items
        for number in range(3):
            nodes.kill(number, "gate")
        one.until(lambda: not one.is_following)
        nodes.delete("bans/e1/old")
        nodes.put("bans/e1/new", "1")
        nodes.put("bans/e1/new", "2")
        nodes.compact()
        for number in range(3):
            nodes.start(number, "gate")
        one.until(lambda: one.is_following)
        assert "bans/e1/old" not in one.items
        assert one.items["bans/e1/new"] == b"2"


def snapshots(one: Mirror) -> list[Snapshot]:
    return [change.snapshot for dummy, change in one.changes if isinstance(change, Relisted)]


def test_a_store_that_was_wiped_is_another_one(nodes: FleetNodes) -> None:
    nodes.put("bans/e1/old", "1")
    with mirror(nodes) as one:
        first = snapshots(one)[0]
        nodes.wipe()
        # The token of before is not known any more.
        one.until(lambda: one.is_following and "bans/e1/old" not in one.items)
        last = snapshots(one)[-1]
        # The names and addresses of the nodes make the cluster's number: only the revision tells.
        assert (last.cluster, last.revision) != (first.cluster, first.revision)
        assert last.revision < first.revision
