# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real enforcers on a real store of three nodes: what they decide, what they refuse, what faults do to them."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fleet.enforcing import Enforcer, Two, folded, report, values
from fleet.host_process import until
from fleet.servers import FleetNodes, fleet_nodes

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._node.gateway import encoded
from packetwatch_core._node.keys import BANS, KEYS
from packetwatch_fleet.store.interface import Writer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[FleetNodes]:
    with fleet_nodes("3.5", 3) as found:
        yield found


def _decided(nodes: FleetNodes, name: str) -> bool:
    """Whether an enforcer publishes decisions."""
    return bool(report(nodes, name).get("recent"))


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
    assert 540 < ban.until - time.time() <= 601
    for enforcer, version in (("e1", "1."), ("e2", "0.9.0")):
        until(functools.partial(_decided, pair.nodes, enforcer))
        found = report(pair.nodes, enforcer)
        assert found["v"] == 1 and found["version"].startswith(version)
        assert found["batch"] == 1 and found["blind"] is False
        decision = found["recent"][0]
        assert decision["source"] == "203.0.113.9" and decision["rule"] == "sweep"
        assert decision["hosts"] == [f"web{n}" for n in range(1, 6)] and decision["ports"] == [2222]
        assert decision["action"] == "enforce" and "5 hosts within 600 s" in decision["why"]
        assert found["rules"]["sweep"]["decided"] == 1
        assert found["rules"]["sweep"]["thresholds"] == {"hosts": 5, "window": 600, "seconds": 600}
    assert _unreachable(pair) == {"quorum", "sweep", "slow"}
    lines = [line for line in pair.first.lines() if line.get("event.action") == "fleet_enforce"]
    assert lines[0]["source.ip"] == "203.0.113.9" and lines[0]["packetwatch.rule"] == "sweep"


def _unreachable(pair: Two) -> set[str]:
    """The rules for which the fleet is too small."""
    rules = report(pair.nodes, "e1")["rules"].items()
    return {name for name, rule in rules if rule["values"].get("unreachable")}


def test_evidence_is_what_enough_hosts_have(pair: Two) -> None:
    for host in range(1, 6):
        pair.hosts.status(host, f"192.0.2.{host}")
    for host in range(1, 4):
        pair.hosts.ban(host, "203.0.113.10")
        pair.hosts.ban(host, "2001:db8:5::1", "answer")
    until(lambda: len(folded(pair.nodes).keys() & {"203.0.113.10", "2001:db8:5::/64"}) == 2)
    found = folded(pair.nodes)
    weak, strong = found["203.0.113.10"], found["2001:db8:5::/64"]
    assert (weak.rule, weak.evidence) == ("quorum", "syn") and weak.until - weak.made == 600
    assert strong.evidence == "answer" and strong.until - strong.made == 3600
    # Until hosts have reported who they are, no rule knows that there are enough of them.
    until(lambda: not _unreachable(pair))
    # One host that claims more does not make evidence of it.
    pair.hosts.ban(1, "203.0.113.10", "answer")
    time.sleep(0.5)
    assert folded(pair.nodes)["203.0.113.10"].evidence == "syn"


def test_slow_finds_a_source_within_a_day(pair: Two) -> None:
    for probe in range(20):
        ago = (19 - probe) * 4000
        pair.hosts.seen(1 + probe % 4, ("203.0.113.11", 2000 + probe // 4), ago=ago)
    until(lambda: pair.authors("203.0.113.11") == {"e1", "e2"})
    ban = folded(pair.nodes)["203.0.113.11"]
    assert (ban.rule, ban.seen) == ("slow", 4) and ban.until > time.time() + 400


def test_nobody_is_banned_who_must_not_be(pair: Two) -> None:
    pair.hosts.status(7, "192.0.2.7", "2001:db8:7::7")
    allowed = {"v": 1, "allow": [{"address": "198.51.100.0/24"}], "deny": []}
    pair.nodes.put("lists/office", json.dumps(allowed))
    before = report(pair.nodes, "e1")["refused"]["never"]
    never = ("203.0.113.130", "192.0.2.7", "2001:db8:7::9", "198.51.100.9", pair.nodes.gates[1][0])
    for source in never:
        pair.sweep(source)
        for host in range(1, 4):
            pair.hosts.ban(host, source, "answer")
    pair.sweep("203.0.113.12")
    until(lambda: pair.authors("203.0.113.12") == {"e1", "e2"})
    until(
        lambda: report(pair.nodes, "e1")["refused"]["never"] == before + 2 * len(never),
        shown=lambda: report(pair.nodes, "e1")["refused"],
    )
    # The second enforcer does not know what is protected on hosts: that is a setting.
    assert {source for source in never if pair.authors(source)} <= {"203.0.113.130"}
    assert pair.authors("203.0.113.130") == {"e2"}


def test_what_people_have_lifted_is_not_decided_on_while_they_say_so(pair: Two) -> None:
    pair.sweep("203.0.113.13")
    until(lambda: pair.authors("203.0.113.13") == {"e1", "e2"})
    now = time.time()
    lift = {"v": 1, "lifts": [["203.0.113.13", now + 1, now + 8]]}
    pair.nodes.put("lifts/1-000", json.dumps(lift))
    time.sleep(1)
    pair.sweep("203.0.113.13", first=11)
    time.sleep(2)
    assert "203.0.113.13" not in folded(pair.nodes)
    assert report(pair.nodes, "e2")["refused"].get("hold", 0) <= 1
    time.sleep(max(0.0, now + 8.5 - time.time()))
    # It begins anew: four hosts are not enough.
    pair.sweep("203.0.113.13", first=21, count=4)
    time.sleep(1)
    assert "203.0.113.13" not in folded(pair.nodes)
    pair.sweep("203.0.113.13", first=25, count=1)
    until(lambda: "203.0.113.13" in folded(pair.nodes))


def test_a_killed_enforcer_loses_and_invents_nothing(pair: Two) -> None:
    pair.sweep("203.0.113.14")
    until(lambda: pair.authors("203.0.113.14") == {"e1", "e2"})
    before = values(pair.nodes)
    pair.first.kill()
    pair.sweep("203.0.113.15")
    until(lambda: pair.authors("203.0.113.15") == {"e2"})
    pair.first.start()
    until(lambda: "e1" in pair.authors("203.0.113.14") and _follows_again(pair.first))
    # What it has decided itself is known to it, and its pages are not overwritten.
    pair.sweep("203.0.113.14", first=31)
    pair.sweep("203.0.113.16", first=31)
    until(lambda: pair.authors("203.0.113.16") == {"e1", "e2"})
    after = values(pair.nodes)
    own = {key: value for key, value in before.items() if key.startswith(f"{BANS}e1/")}
    assert own.items() <= after.items()
    assert sum(value.count(b"203.0.113.14") for key, value in after.items() if "/e1/" in key) == 1


def _follows_again(enforcer: Enforcer) -> bool:
    lines = enforcer.log.read_text().splitlines()
    started = max(at for at, line in enumerate(lines) if "started, version" in line)
    return any("following the store" in line for line in lines[started:])


def test_a_paused_enforcer_goes_on_with_what_it_has_missed(pair: Two) -> None:
    with pair.first.paused():
        pair.sweep("203.0.113.17")
        until(lambda: pair.authors("203.0.113.17") == {"e2"})
        # Longer than a follower believes a silent stream; `make soak` waits for a minute.
        time.sleep(7)
        pair.sweep("203.0.113.18")
    pair.sweep("203.0.113.19", first=41)
    wanted = {"203.0.113.17", "203.0.113.18", "203.0.113.19"}
    until(lambda: all(pair.authors(source) >= {"e2"} for source in wanted))
    until(lambda: pair.authors("203.0.113.19") == {"e1", "e2"}, shown=pair.first.log.read_text)
    assert wanted <= folded(pair.nodes).keys()


def test_a_store_that_was_wiped_gets_the_bans_again(pair: Two) -> None:
    until(lambda: not report(pair.nodes, "e1").get("blind", True))
    known = folded(pair.nodes)
    # Its lift is lost with the store, so the decision of before the lift may count again.
    held = {"203.0.113.13"}
    pair.nodes.wipe()
    until(
        lambda: known.keys() - held <= folded(pair.nodes).keys(),
        shown=lambda: str(known.keys() - folded(pair.nodes).keys()) + pair.first.log.read_text(),
    )
    # Of two enforcers, one is back first.
    until(
        lambda: all(
            abs(ban.until - known[source].until) < 0.2
            for source, ban in folded(pair.nodes).items()
            if source not in held
        ),
        shown=lambda: str((known, folded(pair.nodes))),
    )


def test_the_store_forgets_what_was_overwritten(pair: Two) -> None:
    """What an enforcer does every 30 seconds."""
    first, last = (pair.nodes.put("hosts/web1/seen", text) for text in ("1", "2"))
    key = encoded(f"{KEYS}hosts/web1/seen")

    def at(revision: int) -> Any:
        return pair.nodes.root()("/v3/kv/range", {"key": key, "revision": revision})

    assert at(first)["kvs"]
    with pair.second.writer() as writer:
        writer.compact(last)
        until(lambda: _is_compacted(writer, at, first))
        assert not writer.problem
    assert at(last)["kvs"]


def _is_compacted(writer: Writer, at: Callable[[int], Any], revision: int) -> bool:
    writer.step()
    try:
        at(revision)
    except PacketwatchError as error:
        return "compacted" in str(error)
    return False


def test_nothing_was_invented(pair: Two) -> None:
    tried = {f"203.0.113.{n}" for n in range(9, 20)} | {"203.0.113.130", "2001:db8:5::/64"}
    assert folded(pair.nodes).keys() <= tried
    for enforcer in ("e1", "e2"):
        until(functools.partial(report, pair.nodes, enforcer))
        found = report(pair.nodes, enforcer)
        assert all(rule["fault"] is None for rule in found["rules"].values())
        assert {one["source"] for one in found["recent"]} <= tried
    assert pair.first.stop() == 0
