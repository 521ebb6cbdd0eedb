# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an enforcer knows of its hosts, and rules for which a fleet is too small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packetwatch_agent.output import Output
from packetwatch_core._node.never import Never
from packetwatch_core._node.rules import parse_rules
from packetwatch_enforcer import announce, roster
from packetwatch_enforcer.announce import Announcer
from packetwatch_enforcer.judge import Judge
from packetwatch_enforcer.roster import Host, Roster
from packetwatch_enforcer.rules.panel import Panel


def join(tested: Roster, name: str, *addresses: str) -> Host:
    host = tested.host(name)
    assert host
    tested.settle(host, addresses)
    return host


def test_networks_are_those_of_addresses_that_no_other_host_has() -> None:
    tested = Roster()
    web1 = join(tested, "web1", "192.0.2.1", "2001:db8:1::1", "172.17.0.1", "odd")
    web2 = join(tested, "web2", "198.51.100.1", "172.17.0.1")
    assert tested.networks(web1.number) == {"192.0.2.0/24", "2001:db8:1::/48"}
    assert tested.networks(web2.number) == {"198.51.100.0/24"}
    assert tested.networks(0) == tested.networks(3) == frozenset()
    assert tested.name(2) == "web2" and tested.name(7) == "7"


def test_a_host_that_has_left_owns_no_address() -> None:
    tested = Roster()
    former = join(tested, "web1", "192.0.2.1")
    successor = join(tested, "web9", "192.0.2.1")
    assert tested.networks(successor.number) == frozenset()
    tested.leave(former)
    assert tested.networks(successor.number) == {"192.0.2.0/24"}
    assert tested.present() == [successor.number] and tested.networks(former.number) == frozenset()
    # It keeps its number if it comes back.
    assert join(tested, "web1", "192.0.2.7").number == former.number
    assert tested.present() == [former.number, successor.number]


def test_hosts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "MAX_HOSTS", 2)
    tested = Roster()
    assert [bool(tested.host(name)) for name in ("a", "b", "c", "a")] == [True, True, False, True]
    assert tested.refused == 1


def unreachable(tested: Roster, **rules: dict[str, int]) -> set[str]:
    panel = Panel(parse_rules(rules, "rules"), tested)
    return {seat.name for seat in panel.seats if seat.values().get("unreachable")}


def test_a_fleet_may_be_too_small_for_a_rule() -> None:
    tested = Roster()
    defaults: dict[str, dict[str, int]] = {"quorum": {}, "sweep": {}, "slow": {}, "crowd": {}}
    assert unreachable(tested, **defaults) == {"quorum", "sweep", "slow"}
    for number in range(1, 4):
        join(tested, f"web{number}", f"192.0.2.{number}", "172.17.0.1")
    assert unreachable(tested, **defaults) == {"quorum", "sweep"}
    assert unreachable(tested, quorum={"networks": 1}, sweep={"hosts": 3}) == set()
    join(tested, "web4", "198.51.100.4")
    join(tested, "web5", "203.0.113.5")
    assert unreachable(tested, **defaults) == set()
    tested.leave(join(tested, "web5"))
    assert unreachable(tested, **defaults) == {"quorum", "sweep"}


def test_the_journal_says_once_that_a_fleet_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "PATIENCE", 0.0)
    hosts = Roster()
    panel = Panel(parse_rules({"quorum": {}, "crowd": {}}, "rules"), hosts)
    log = tmp_path / "log"
    with log.open("wb") as file:
        tested = Announcer(Judge("e1", Never(), hosts), panel, Output(file.fileno(), "node1"))
        for _tick in range(3):
            tested.unreachable(panel)
        for number in range(1, 4):
            join(hosts, f"web{number}", f"192.0.{number}.1")
        tested.unreachable(panel)
        hosts.leave(join(hosts, "web1"))
        tested.unreachable(panel)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event.action"] for line in lines] == ["fleet_rule_unreachable"] * 2
    assert (
        lines[0]["packetwatch.rule"] == "quorum" and "(hosts 3, networks 3)" in lines[0]["message"]
    )
