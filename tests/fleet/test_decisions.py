# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules fleet_ban and fleet_info on a real etcd: what plays decide, and what hosts make of it."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.packetwatch.xdp.plugins.modules import fleet_ban, fleet_info
from fleet.servers import FleetNodes, fleet_nodes
from fleet.software import VERSIONS

from packetwatch_core._node import decisions
from packetwatch_core._node.gateway import below
from packetwatch_core._node.keys import KEYS
from packetwatch_core._node.never import Never
from packetwatch_fleet.fold import Board
from packetwatch_fleet.sources import Sources

pytestmark = pytest.mark.slow(0.4)

Module = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", params=VERSIONS)
def nodes(request: pytest.FixtureRequest) -> Iterator[FleetNodes]:
    with fleet_nodes(request.param, 1) as found:
        yield found


@pytest.fixture
def run(nodes: FleetNodes, tmp_path: Path) -> Iterator[Module]:
    """Run a module on the node, with the account of the API."""
    config = nodes.nodes[0].config
    never = tmp_path / "never"
    never.write_text(nodes.never("192.0.2.128/28"))
    store = {
        "password": nodes.service_credentials("api").password,
        "authority": str(config / "nodes-ca.pem"),
        "certificate": str(config / "etcd.pem"),
    }

    def call(module: Any, check: bool = False, **options: Any) -> dict[str, Any]:
        own = {"never": str(never)} if module is fleet_ban else {}
        given = store | own | options | {"_ansible_check_mode": check, "_ansible_diff": True}
        with (
            patch_module_args(given),
            redirect_stdout(io.StringIO()) as written,
            nodes.nodes[0].namespace.entered(),
            pytest.raises(SystemExit),
        ):
            module.main()
        result: dict[str, Any] = json.loads(written.getvalue())
        assert store["password"] not in written.getvalue()
        return result

    yield call
    key, end = below(KEYS)
    nodes.root()("/v3/kv/deleterange", {"key": key, "range_end": end})


def folded(nodes: FleetNodes) -> dict[str, tuple[str, float]]:
    """Return what a host makes of the store: label and seconds left, by source."""
    key, end = below(KEYS)
    board = Board(Sources())
    for item in nodes.root()("/v3/kv/range", {"key": key, "range_end": end}).get("kvs", ()):
        name, value = (base64.b64decode(item[part]) for part in ("key", "value"))
        board.put(name.decode(), value)
    assert not board.refused
    now = time.time()
    return {source: (ban.label, ban.until - now) for source, ban in board.bans(now)}


def test_a_ban_is_in_the_store_once_and_a_lift_ends_it(nodes: FleetNodes, run: Module) -> None:
    wanted = {"address": ["203.0.113.9", "2001:db8::7"], "duration": "2h", "reason": "ticket é 7"}
    planned = run(fleet_ban, check=True, **wanted)
    assert planned["changed"] and folded(nodes) == {}
    done = run(fleet_ban, **wanted)
    assert done["diff"] == planned["diff"] and done["diff"]["before"] == ""
    assert done["sources"] == ["203.0.113.9", "2001:db8::/64"]
    found = folded(nodes)
    assert {source: label for source, (label, dummy) in found.items()} == {
        "203.0.113.9": "api/play",
        "2001:db8::/64": "api/play",
    }
    assert all(7190 < seconds < 7201 for dummy, seconds in found.values())
    assert not run(fleet_ban, **wanted)["changed"]
    assert run(fleet_ban, address="203.0.113.9", duration=60)["changed"]
    assert 50 < folded(nodes)["203.0.113.9"][1] < 61
    bans = run(fleet_info, gather_subset=["bans"])["bans"]
    assert [ban["reason"] for ban in bans] == ["ticket é 7", ""]

    lift = {"address": ["203.0.113.9", "198.51.100.1", "2001:db8::1"], "state": "absent"}
    assert run(fleet_ban, check=True, **lift)["changed"] and len(folded(nodes)) == 2
    assert run(fleet_ban, **lift)["changed"]
    assert folded(nodes) == {} and run(fleet_info)["bans"] == []
    assert not run(fleet_ban, **lift)["changed"]
    # A new ban is later than the lift.
    assert run(fleet_ban, address="203.0.113.9", duration=60)["changed"]
    assert list(folded(nodes)) == ["203.0.113.9"]


def test_a_lift_ends_bans_of_all_enforcers_and_of_clocks_that_are_ahead(
    nodes: FleetNodes, run: Module
) -> None:
    made = math.floor(time.time()) + 300.04
    rows = [["203.0.113.9", made + 600, made, "quorum", "syn", 7]]
    nodes.put("bans/e1/x-000", json.dumps({"v": 1, "bans": rows}))
    assert folded(nodes)["203.0.113.9"][0] == "e1/quorum"
    assert run(fleet_ban, address="203.0.113.9", state="absent", hold="1h")["changed"]
    assert folded(nodes) == {}
    assert run(fleet_ban, address="203.0.113.9", duration=600)["changed"]
    assert folded(nodes)["203.0.113.9"][0] == "api/play"


def test_many_bans_make_few_pages_that_end_by_themselves(nodes: FleetNodes, run: Module) -> None:
    addresses = [f"198.18.{n // 256}.{n % 256}" for n in range(400)]
    assert run(fleet_ban, address=addresses, duration=120, reason="x" * 300)["changed"]
    assert len(folded(nodes)) == 400
    key, end = below(f"{KEYS}bans/")
    pages = nodes.root()("/v3/kv/range", {"key": key, "range_end": end})["kvs"]
    assert len(pages) <= 12
    for page in pages:
        assert len(base64.b64decode(page["value"])) <= 12_000
        lease = nodes.root()("/v3/lease/timetolive", {"ID": page["lease"]})
        assert 600 <= int(lease["TTL"]) <= 1800
    assert run(fleet_ban, address=addresses, state="absent", hold=0)["changed"]
    assert folded(nodes) == {}


def test_more_than_a_transaction_takes_is_done_in_several(nodes: FleetNodes, run: Module) -> None:
    addresses = [f"198.18.{n // 256}.{n % 256}" for n in range(6000)]
    wanted = {"address": addresses, "duration": 900, "reason": "x" * 200}
    done = run(fleet_ban, **wanted)
    assert done["changed"] and done["diff"]["after"].count("\n") == 6000
    key, end = below(f"{KEYS}bans/")
    count = nodes.root()("/v3/kv/range", {"key": key, "range_end": end, "count_only": True})
    # One transaction of etcd has at most 128 operations.
    assert int(count["count"]) > 128 and len(folded(nodes)) == 6000
    assert not run(fleet_ban, **wanted)["changed"]
    done = run(fleet_ban, address=addresses, state="absent", hold=0)
    assert done["changed"] and done["diff"]["before"].count("\n") == 6000
    assert folded(nodes) == {}


def test_a_change_of_somebody_else_meanwhile_is_not_lost(
    nodes: FleetNodes, run: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(fleet_ban, address="203.0.113.1", duration=600)
    commit, others = decisions.Draft.commit, ["203.0.113.3", "203.0.113.2"]

    def late(draft: Any, gateway: Any) -> int | None:
        if others:
            other = others.pop()
            decisions.ban(gateway, [other], 600, "", False, Never())
        return commit(draft, gateway)

    monkeypatch.setattr(decisions.Draft, "commit", late)
    assert run(fleet_ban, address="203.0.113.4", duration=600)["changed"]
    assert set(folded(nodes)) == {f"203.0.113.{n}" for n in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "203.0.113.0/24"}, "is a network"),
        ({"address": "nobody"}, "is not an IP address"),
        ({"address": []}, "empty list"),
        ({"address": "203.0.113.9", "duration": "0"}, "duration is '0'; allowed"),
        ({"address": "203.0.113.9", "duration": "2y"}, "duration is '2y'"),
        (
            {"address": ["198.51.100.1", "192.0.2.10"]},
            "192.0.2.10 is never banned: 192.0.2.10 is an address of the host web1",
        ),
        ({"address": "2001:db8:1::9"}, "2001:db8:1::1 is an address of the host web1"),
        ({"address": "10.79.0.11"}, "10.79.0.11 is an address of a node"),
        ({"address": "192.0.2.129"}, "192.0.2.128/28 is protected (fleet_node_protect)"),
        ({"address": "203.0.113.9", "never": "/missing"}, "/missing: "),
        ({"address": "198.51.100.77"}, "the list office allows 198.51.100.0/26"),
        ({"address": "203.0.113.9", "password": "wrong"}, "refuses the user api"),
        ({"address": "203.0.113.9", "authority": "/missing"}, "on a node of the fleet"),
    ],
)
def test_what_must_not_be_banned_is_refused_and_nothing_is_written(
    nodes: FleetNodes, run: Module, options: dict[str, Any], message: str
) -> None:
    addresses = ["192.0.2.10", "2001:db8:1::1", "odd", 7]
    nodes.put("hosts/web1/status", json.dumps({"v": 1, "t": time.time(), "addresses": addresses}))
    allow = [{"address": "198.51.100.0/26"}, "odd", {}]
    nodes.put("lists/office", json.dumps({"v": 1, "allow": allow}))
    if "198.51.100.77" in options["address"]:
        nodes.put("lists/office", json.dumps({"v": 1, "allow": [{"address": "198.51.100.64/26"}]}))
        message = message.replace("198.51.100.0/26", "198.51.100.64/26")
    elif "198.51.100.1" in options["address"]:
        nodes.delete("lists/office")
    result = run(fleet_ban, **{"duration": 60} | options)
    assert result["failed"] and message in result["msg"], result
    assert folded(nodes) == {}


def test_hosts_nodes_and_health_are_shown(nodes: FleetNodes, run: Module) -> None:
    run(fleet_ban, address="203.0.113.9", duration=600)
    revision = run(fleet_info)["revision"]
    report = {"v": 1, "t": time.time() - 5, "version": "0.1.0", "bans": 1, "missing": 0}
    nodes.put(
        "hosts/web1/status", json.dumps(report | {"applied": revision, "refused": {"veto": 2}})
    )
    nodes.put("hosts/web2/status", json.dumps(report | {"applied": revision - 1}))
    nodes.put("hosts/web3/status", json.dumps({"v": 1, "t": "now", "bans": [], "refused": [1]}))
    nodes.put("hosts/web4/status", "{")
    nodes.put("hosts/web1/bans", '{"v":1,"bans":[]}')
    found = run(fleet_info)
    assert found["revision"] == revision and not found["changed"]
    assert list(found["hosts"]) == ["web1", "web2", "web3"]
    web1 = found["hosts"]["web1"]
    assert (web1["current"], web1["bans"], web1["refused"]) == (True, 1, {"veto": 2})
    assert 5 <= web1["age"] < 60
    assert found["hosts"]["web2"]["current"] is False
    assert found["hosts"]["web3"]["age"] is None and found["hosts"]["web3"]["bans"] is None
    assert found["nodes"] == ["node0"]
    assert found["store"]["has_leader"] and found["store"]["problems"] == []
    nodes.alarm(True)
    try:
        assert any("NOSPACE" in text for text in run(fleet_info)["store"]["problems"])
    finally:
        nodes.alarm(False)


def test_values_of_others_that_make_no_sense_are_ignored(nodes: FleetNodes, run: Module) -> None:
    for number, text in enumerate(
        ("", "[]", '{"v":2,"bans":[]}', '{"v":1,"bans":{}}', '{"v":1}', "{")
    ):
        nodes.put(f"bans/e1/{number}-000", text)
    rows = [[], 7, ["203.0.113.1", "x", 0, "r", "syn", 1], ["203.0.113.1", 1e300, 0, "r", "syn", 1]]
    nodes.put("bans/e1/9-000", json.dumps({"v": 1, "bans": rows}))
    assert run(fleet_info)["bans"] == []
    assert run(fleet_ban, address="203.0.113.1", duration=60)["changed"]
