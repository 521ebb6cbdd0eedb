# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet process of a host on a real store: what reaches the agent and the store, and what faults do to it."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet.following import settings
from fleet.host_process import HostProcess, Speaker, running, until
from fleet.servers import FleetNodes, fleet_nodes
from lab.prometheus import get, parse

from packetwatch_agent.control.wire import ControlError
from packetwatch_core._node.gateway import Refused, Unreached, below, encoded
from packetwatch_core._node.keys import KEYS
from packetwatch_core._node.overview import SUBSETS, gather

pytestmark = pytest.mark.slow

Running = tuple[HostProcess, Speaker]
# Seconds by which two times may differ: the store's clock is known to a second, and the machine may be busy.
SLACK = 10.0
# docs/fleet-host.md; with the same number of bans on Debian 13 it is somewhat more.
MAX_MEMORY = 26 * 1024


@pytest.fixture(scope="module")
def nodes() -> Iterator[FleetNodes]:
    with fleet_nodes("3.4", 1) as nodes:
        yield nodes


@pytest.fixture
def host(nodes: FleetNodes, tmp_path: Path) -> Iterator[Running]:
    """Return a fleet process that follows the store, which has no bans."""
    clear(nodes)
    with running(tmp_path, settings(nodes, "host-a"), nodes.lan.entered) as found:
        until(lambda: is_following(found[0]))
        yield found


def clear(nodes: FleetNodes) -> None:
    """Delete all decisions."""
    key, end = below(KEYS)
    nodes.root()("/v3/kv/deleterange", {"key": key, "range_end": end})


def is_following(process: HostProcess) -> bool:
    return any("following the store" in line["message"] for line in process.lines())


def page(*rows: list[Any]) -> str:
    return json.dumps({"v": 1, "bans": list(rows)})


def row(address: str, seconds: float = 600, evidence: str = "answer", **other: Any) -> list[Any]:
    now = time.time()
    return [address, round(now + seconds), round(now), other.get("rule", "quorum"), evidence, 3]


def report(nodes: FleetNodes, kind: str) -> Any:
    return json.loads(nodes.get(f"hosts/host-a/{kind}") or "null")


def test_bans_and_lifts_reach_the_agent(nodes: FleetNodes, host: Running) -> None:
    process, agent = host
    first = row("203.0.113.1")
    ends = first[1]
    nodes.put("bans/e1/p", page(first, row("2001:db8::1", 300, "syn")))
    until(lambda: len(agent.bans) == 2)
    assert abs(agent.remaining("203.0.113.1") - (ends - time.time())) < SLACK
    assert agent.labels["203.0.113.1"] == "e1/quorum"
    assert agent.bans["2001:db8::/64"][1] == "syn"
    found = process.ask("fleet_why", address="203.0.113.1")
    assert (found["ban"]["enforcer"], found["ban"]["rule"]) == ("e1", "quorum")
    assert (found["ban"]["hosts"], found["ban"]["evidence"]) == (3, "answer")
    # By the clock of the host.
    assert abs(found["ban"]["until"] - ends) < SLACK
    # The enforcer explains its last decisions; what it says is untrusted text.
    decision = {"source": "203.0.113.1", "rule": "quorum", "hosts": ["web1", "Odd!", 7]}
    decision |= {"ports": [22, "x", -1], "why": "3 hosts\x1b have banned it"}
    rules = {
        "v": 1,
        "t": time.time(),
        "recent": [7, decision | {"source": "203.0.113.2"}, decision],
    }
    nodes.put("rules/e1", json.dumps(rules))
    until(lambda: "why" in process.ask("fleet_why", address="203.0.113.1")["ban"])
    explained = process.ask("fleet_why", address="203.0.113.1")["ban"]
    assert (explained["at"], explained["ports"]) == (["web1"], [22])
    assert explained["why"] == "3 hosts have banned it"
    # A row that is gone is withdrawn; a lift beats rows that were made before it.
    nodes.put("bans/e1/p", page(row("203.0.113.1")))
    until(lambda: set(agent.bans) == {"203.0.113.1"})
    nodes.put("lifts/p", json.dumps({"v": 1, "lifts": [["203.0.113.1", time.time() + 1, 0]]}))
    until(lambda: not agent.bans)
    assert process.ask("fleet_why", address="203.0.113.1")["ban"] is None


def test_the_way_from_the_store_to_the_agent_is_short(nodes: FleetNodes, host: Running) -> None:
    agent = host[1]
    delays = []
    for number in range(30):
        began = time.monotonic()
        nodes.put("bans/e1/p", page(row(f"203.0.113.{number}")))
        until(functools.partial(agent.times.__contains__, f"203.0.113.{number}"))
        delays.append((agent.times[f"203.0.113.{number}"] - began) * 1000)
        time.sleep(0.02)
    # With the put itself, over TLS and with authentication.
    print(f"put to agent: median {statistics.median(delays):.1f}, most {max(delays):.1f} ms")
    # The bench has the goal, for a machine without other work. Here, nothing may wait for a timer.
    assert statistics.median(delays) < 500


def test_ten_thousand_bans_in_little_time_and_memory(nodes: FleetNodes, tmp_path: Path) -> None:
    clear(nodes)
    for number in range(0, 10_000, 100):
        many = range(number, number + 100)
        nodes.put(f"bans/e2/{number:05}", page(*(row(f"198.18.{n >> 8}.{n & 255}") for n in many)))
    with running(tmp_path, settings(nodes, "host-a"), nodes.lan.entered) as (process, agent):
        until(lambda: len(agent.bans) == 10_000)
        times = agent.times.values()
        process.ask("fleet")
        time.sleep(2)
        cold, cpu = process.resident(), process.cpu()
        time.sleep(4)
        idle = (process.cpu() - cpu) / 4
        process.kill()
        # A process that begins beside the bans compares them with those in the kernel.
        process.start()
        until(lambda: has_compared(process, 10_000))
        time.sleep(1)
        warm = process.resident()
    print(
        f"10,000 bans in {max(times) - min(times):.2f} s; {cold} kB, after a restart {warm} kB; "
        f"idle {idle * 100:.1f} % of a core"
    )
    assert max(cold, warm) <= MAX_MEMORY


def has_compared(process: HostProcess, bans: int) -> bool:
    with contextlib.suppress(ControlError):
        return bool(process.ask("fleet")["agent"]["bans"] == bans)
    return False


def test_the_host_reports_what_it_sees_and_bans(nodes: FleetNodes, host: Running) -> None:
    process, agent = host
    until(lambda: agent.streams)
    agent.say(ban=["198.51.100.7", [21, 22, 23], 600.0, "syn"])
    until(lambda: (report(nodes, "bans") or {}).get("bans"))
    found = report(nodes, "bans")
    assert found["v"] == 1 and abs(found["t"] - time.time()) < SLACK
    [[address, ends, made, ports, evidence]] = found["bans"]
    assert (address, ports, evidence) == ("198.51.100.7", [21, 22, 23], "syn")
    assert abs(ends - made - 600) < 1
    first, began = nodes.revision(), time.monotonic()
    for number in range(300):
        agent.say(ban=[f"198.51.100.{number % 250 + 1}", [80], 600.0, "syn"])
        agent.say(probe=["203.0.113.9", number + 1])
        time.sleep(0.01)
    agent.say(probe=["2001:db8::7", 22])
    agent.miss(5)
    until(lambda: (report(nodes, "seen") or {}).get("lost") == 5)
    # Bans twice a second, what was seen once a second, after the first at once.
    changes, spent = nodes.revision() - first, time.monotonic() - began
    assert changes <= spent * 3.4 + 4
    assert len(report(nodes, "bans")["bans"]) <= 128
    assert len(nodes.get("hosts/host-a/bans") or "") < 16_000
    agent.own = []
    agent.say(end=[f"198.51.100.{number}" for number in range(1, 251)])
    until(lambda: report(nodes, "bans")["bans"] == [])
    pairs = base64.b64decode(report(nodes, "seen")["p"]) + base64.b64decode(
        report(nodes, "seen")["p6"]
    )
    assert pairs
    until(lambda: report(nodes, "status"))
    status = report(nodes, "status")
    assert status["addresses"] == ["10.79.0.1"]
    assert status["missing"] == 0 and len(status["digest"]) == 8
    assert status["takes"].keys() == {"action", "enforcers", "lists"}
    assert process.ask("fleet")["reports"]["lost"] == 5


def test_a_killed_process_loses_nothing(nodes: FleetNodes, host: Running) -> None:
    process, agent = host
    nodes.put("bans/e1/p", page(row("203.0.113.1"), row("203.0.113.2")))
    until(lambda: len(agent.bans) == 2)
    process.kill()
    nodes.put("bans/e1/p", page(row("203.0.113.2"), row("203.0.113.3")))
    time.sleep(0.2)
    assert set(agent.bans) == {"203.0.113.1", "203.0.113.2"}
    process.start()
    until(lambda: set(agent.bans) == {"203.0.113.2", "203.0.113.3"})


def test_an_agent_that_begins_anew_gets_all_bans(nodes: FleetNodes, host: Running) -> None:
    process, agent = host
    nodes.put("bans/e1/p", page(row("203.0.113.1"), row("203.0.113.2")))
    until(lambda: len(agent.bans) == 2)
    agent.close()
    nodes.put("bans/e1/q", page(row("203.0.113.3")))
    until(lambda: process.ask("fleet")["agent"]["problem"])
    other = Speaker(agent.path)
    other.refuse = {"203.0.113.2": "protected"}
    until(lambda: set(other.bans) == {"203.0.113.1", "203.0.113.3"})
    found = process.ask("fleet")["agent"]
    assert found["refused"] == {"protected": 1} and found["problem"] == ""
    other.close()


def test_bans_outlive_the_store_and_changes_meanwhile_are_learnt(
    nodes: FleetNodes, host: Running
) -> None:
    process, agent = host
    # The second one ends while the store is away, on a busy machine before it is known.
    nodes.put("bans/e1/p", page(row("203.0.113.1"), row("203.0.113.2", 3)))
    until(lambda: "203.0.113.1" in agent.bans)
    nodes.kill(0, "gate")
    until(lambda: not process.ask("fleet")["store"]["connected"])
    nodes.put("bans/e1/p", page(row("203.0.113.4")))
    time.sleep(3)
    # Nothing is lifted because something could not be read.
    assert "203.0.113.1" in agent.bans
    nodes.start(0, "gate")
    until(lambda: "203.0.113.4" in agent.bans and "203.0.113.1" not in agent.bans)
    assert [line for line in process.lines() if line["log.level"] == "error"] == []


def test_a_wiped_store_lifts_nothing(nodes: FleetNodes, host: Running) -> None:
    process, agent = host
    # What the host reports to the new store must not make it look as old as the former one.
    for number in range(30):
        nodes.put("hosts/host-b/seen", str(number))
    nodes.put("bans/e1/p", page(*(row(f"203.0.113.{number}") for number in range(3))))
    until(lambda: len(agent.bans) == 3)
    nodes.wipe()
    until(lambda: any(line.get("event.action") == "fleet_brake" for line in process.lines()))
    assert len(agent.bans) == 3
    found = process.ask("fleet")["store"]
    assert (found["declared"], found["held"]) == (3, 3)
    # The store is in use again, and a single lift counts.
    nodes.put("bans/e1/p", page(row("203.0.113.9")))
    until(lambda: "203.0.113.9" in agent.bans)
    nodes.put("lifts/p", json.dumps({"v": 1, "lifts": [["203.0.113.0", time.time() + 1, 0]]}))
    until(lambda: "203.0.113.0" not in agent.bans)
    assert len(agent.bans) == 3
    process.ask("fleet_release")
    until(lambda: set(agent.bans) == {"203.0.113.9"})


def test_a_store_that_was_wiped_while_the_process_was_down_lifts_nothing(
    nodes: FleetNodes, host: Running
) -> None:
    process, agent = host
    nodes.put("bans/e1/p", page(*(row(f"203.0.113.{number}") for number in range(3))))
    until(lambda: len(agent.bans) == 3)
    for number in range(30):
        nodes.put("bans/e1/q", page(row(f"203.0.113.{number % 3}")))
    until(lambda: process.ask("fleet")["store"]["revision"] == nodes.revision())
    assert process.stop() == 0
    nodes.wipe()
    process.log.unlink()
    process.start()
    until(lambda: any(line.get("event.action") == "fleet_brake" for line in process.lines()))
    time.sleep(0.5)
    assert len(agent.bans) == 3
    assert process.ask("fleet")["store"]["held"] == 3


def test_a_store_restored_from_a_backup_lifts_nothing(nodes: FleetNodes, host: Running) -> None:
    process, agent = host
    nodes.put("bans/e1/p", page(row("203.0.113.1")))
    backup = nodes.backup()
    for number in range(2, 10):
        nodes.put("bans/e1/p", page(*(row(f"203.0.113.{n}") for n in range(1, number + 1))))
    until(lambda: len(agent.bans) == 9)
    nodes.restore(backup)
    until(lambda: any(line.get("event.action") == "fleet_brake" for line in process.lines()))
    assert len(agent.bans) == 9
    found = process.ask("fleet")["store"]
    assert (found["declared"], found["held"]) == (9, 8)


@pytest.mark.parametrize("skew", [300, -300])
def test_a_wrong_clock_of_the_host_changes_no_ban(
    nodes: FleetNodes, tmp_path: Path, skew: int
) -> None:
    clear(nodes)
    first = row("203.0.113.1", 600)
    nodes.put("bans/e1/p", page(first, row("203.0.113.2", 3)))
    nodes.put("bans/e1/q", page(row("203.0.113.3", -20)))
    with running(tmp_path, settings(nodes, "host-a"), nodes.lan.entered, skew) as (process, agent):
        until(lambda: "203.0.113.1" in agent.bans)
        assert abs(agent.remaining("203.0.113.1") - (first[1] - time.time())) < SLACK
        assert "203.0.113.3" not in agent.bans
        until(lambda: any("clock" in line["message"] for line in process.lines()))
        assert abs(process.ask("fleet")["store"]["clock"] - skew) < SLACK
        until(lambda: agent.streams)
        agent.say(ban=["198.51.100.7", [21], 600.0, "syn"])
        until(lambda: (report(nodes, "bans") or {}).get("bans"))
        assert abs(report(nodes, "bans")["t"] - time.time()) < SLACK


def test_values_that_are_not_understood_are_counted(nodes: FleetNodes, host: Running) -> None:
    process, agent = host
    nodes.put("bans/e1/p", page(row("203.0.113.1"), row("0.0.0.0/0"), ["x"]))
    nodes.put("bans/e1/q", '{"v":2,"bans":[]}')
    until(lambda: process.ask("fleet")["store"]["values_refused"] == {"row": 2, "version": 1})
    until(lambda: set(agent.bans) == {"203.0.113.1"})


CONTROLLER = "10.79.0.1"
# What a taken-over host writes into its own keys: values that make no sense, and bans of what must not be banned.
LIES = (
    "",
    "[" * 8000,
    '{"v":1,"t":"now","bans":7,"applied":-1,"addresses":{}}',
    '{"v":1,"t":1e999,"n":true,"p":"!","bans":[[],[0,0,0,0,0]]}',
    json.dumps(
        {
            "v": 1,
            "t": 0,
            "bans": [
                [address, 2**60, 0, [22], "manual"]
                for address in ("0.0.0.0/0", "::/0", CONTROLLER, "203.0.113.1", "")
            ],
            "addresses": ["0.0.0.0/0", CONTROLLER],
        }
    ),
)


def test_what_a_taken_over_host_reports_is_in_its_own_keys_and_nowhere_else(
    nodes: FleetNodes, host: Running
) -> None:
    process, agent = host
    nodes.put("bans/e1/p", page(row("203.0.113.1")))
    nodes.put("lists/common", json.dumps({"v": 1, "allow": [], "deny": []}))
    until(lambda: set(agent.bans) == {"203.0.113.1"})
    own = {f"{KEYS}hosts/host-b/{kind}" for kind in ("seen", "bans", "status")}
    before = {key: value for key, value in nodes.values().items() if key not in own}
    rows = [[f"198.18.{n >> 8 & 255}.{n & 255}", 2**33, 0, [], "syn"] for n in range(100_000)]
    with nodes.lan.entered():
        gateway = nodes.gateway(nodes.host_credentials("host-b"))
        gateway.login()
        for value in LIES:
            for key in own:
                gateway.call("/v3/kv/put", {"key": encoded(key), "value": encoded(value)})
            # Whoever reads reports, reads all of these.
            assert nodes_and_hosts(nodes)["nodes"] == ["node0"]
        huge = {"key": encoded(min(own)), "value": encoded(json.dumps({"v": 1, "bans": rows}))}
        with pytest.raises((Refused, Unreached), match=r"413|not answer"):
            gateway.call("/v3/kv/put", huge)
    after = nodes.values()
    assert own <= after.keys()
    # The host that is well goes on with its own reports.
    reports = f"{KEYS}hosts/host-a/"
    others = {key: value for key, value in after.items() if key not in own}
    assert {key: value for key, value in others.items() if not key.startswith(reports)} == {
        key: value for key, value in before.items() if not key.startswith(reports)
    }
    nodes.put("bans/e1/q", page(row("203.0.113.2")))
    until(lambda: set(agent.bans) == {"203.0.113.1", "203.0.113.2"})
    assert process.ask("fleet")["store"]["values_refused"] == {}


def nodes_and_hosts(nodes: FleetNodes) -> Any:
    """What `fleet_info` returns."""
    with nodes.nodes[0].namespace.entered():
        return gather(nodes.at_etcd("api"), SUBSETS)


def test_the_age_of_enforcers_is_a_metric(nodes: FleetNodes, host: Running) -> None:
    """A dead enforcer cannot report its death."""

    def age(enforcer: str) -> float | None:
        page = parse(get(nodes.lan.path, "127.0.0.1", 9478, "/metrics"))
        return page.get(f'packetwatch_fleet_enforcer_age_seconds{{enforcer="{enforcer}"}}')

    nodes.put("rules/e2", '{"v":1,"t":"yesterday"}')
    nodes.put("rules/e1", json.dumps({"v": 1, "t": time.time() - 50}))
    until(lambda: 48 < (age("e1") or 0) < 50 + SLACK)
    assert age("e2") is None
    nodes.delete("rules/e1")
    until(lambda: age("e1") is None)


def test_lists_are_left_for_root(nodes: FleetNodes, host: Running, tmp_path: Path) -> None:
    wanted = {"allow": [], "deny": [{"address": "203.0.113.0/24"}]}
    nodes.put("lists/common", json.dumps({"v": 1, **wanted}))
    path = tmp_path / "state/lists.json"
    until(lambda: "common" in path.read_text())
    assert json.loads(path.read_text()) == {"v": 1, "lists": {"common": wanted}}
    nodes.put("lists/common", "no list")
    until(lambda: json.loads(path.read_text())["lists"] == {})
