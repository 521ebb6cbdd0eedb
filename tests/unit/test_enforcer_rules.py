# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of an enforcer: what each decides, compared with its sentence in the plainest code; what a bad rule does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import PacketwatchError
from ansible_collections.packetwatch.xdp.plugins.modules.__private import fleet_rules
from hypothesis import given, settings
from hypothesis import strategies as st

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._node.rules import (
    ACTIONS,
    RULES,
    Declared,
    format_rules,
    parse_enforcers,
    parse_rules,
    read_rules,
)
from packetwatch_enforcer.rules import panel as panels
from packetwatch_enforcer.rules.crowd import Crowd
from packetwatch_enforcer.rules.interface import Decision, Found, Proposal
from packetwatch_enforcer.rules.panel import Panel
from packetwatch_enforcer.rules.quorum import Quorum
from packetwatch_enforcer.rules.scans import Slow, Sweep
from packetwatch_enforcer.rules.table import Table
from packetwatch_fleet.observed import HostBan
from packetwatch_fleet.sources import packed

NOW = 1_800_000_000.0
SCANNER = packed("203.0.113.9")
OTHERS = [packed(f"198.51.100.{n}") for n in range(1, 5)]


class Fleet:
    """Hosts with one network each, or with a common one."""

    def __init__(self, shared: int = 0) -> None:
        self._shared = shared

    def present(self) -> list[int]:
        return [1, 2, 3, 4, 5, 99]

    def name(self, host: int) -> str:
        return f"web{host}"

    def networks(self, host: int) -> frozenset[str]:
        return frozenset() if host == 99 else frozenset({str(max(host, self._shared))})


def thresholds(rule: str, **changed: float) -> dict[str, float]:
    return {name: one.default for name, one in RULES[rule].items()} | changed


# The table

sightings = st.lists(
    st.tuples(
        st.integers(0, 3),  # seconds since the last one, in tens
        st.sampled_from([SCANNER, *OTHERS]),
        st.integers(1, 4),  # host
        st.integers(1, 3),  # port
    ),
    max_size=60,
)


@settings(deadline=None)
@given(sightings, st.sampled_from([0, 16]), st.integers(2, 4))
def test_a_table_reports_keys_with_enough_different_sightings_in_the_window(
    found: list[tuple[int, bytes, int, int]], shift: int, enough: int
) -> None:
    table = Table(shift, 60, enough, firsts=1 << 12)
    model: dict[bytes, dict[int, float]] = {}
    now = NOW
    for pause, source, host, port in found:
        now += pause * 10
        kinds = model.setdefault(source, {})
        kinds[(host << 16 | port) >> shift] = now
        recent = {kind for kind, then in kinds.items() if then >= now - 60}
        reported = list(table.add([(source, port)], host << 16, now))
        assert bool(reported) is (len(recent) >= enough)
        if reported:
            assert [source] == [key for key, dummy in reported]
            assert {one.kind for one in reported[0][1]} == recent
            table.forget(source)
            del model[source]
        table.expire(now)
    assert table.lost == 0


def test_a_table_in_a_flood_keeps_its_size_and_counts_what_it_loses() -> None:
    table = Table(16, 600, 3, firsts=1 << 8, most=100)
    for n in range(50_000):
        assert not list(table.add([(n.to_bytes(4, "big"), 22)], 1 << 16, NOW))
    assert table.lost > 40_000 and table.entries == 0
    for n in range(1_000):
        for host in (1, 2):
            list(table.add([(n.to_bytes(4, "big"), 22)], host << 16, NOW))
    assert table.entries <= 101
    table.expire(NOW + 700)
    assert table.entries == 0


# What each rule decides


def decisions(found: Iterable[Found]) -> list[Decision]:
    kept = list(found)
    assert all(isinstance(one, Decision) for one in kept)
    return [one for one in kept if isinstance(one, Decision)]


def test_sweep_decides_at_the_last_host_that_it_needs_and_begins_anew() -> None:
    rule = Sweep(thresholds("sweep", hosts=4), Fleet())
    for host in (1, 2, 3, 3, 2):
        assert decisions(rule.seen(host, [(SCANNER, 20 + host), (OTHERS[host], 22)], NOW)) == []
    [found] = decisions(rule.seen(7, [(SCANNER, 2222)], NOW + 599))
    assert found.source == SCANNER and found.evidence == "syn" and found.seen == 4
    assert found.hosts == (1, 3, 2, 7) and set(found.ports) == {21, 22, 23, 2222}
    assert found.seconds == 600 and "4 hosts within 600 s" in found.why
    assert decisions(rule.seen(8, [(SCANNER, 22)], NOW + 600)) == []


def test_sweep_forgets_what_is_older_than_its_window_and_what_people_have_lifted() -> None:
    rule = Sweep(thresholds("sweep", hosts=3), Fleet())
    for host, then in ((1, 0), (2, 10), (3, 601), (4, 612)):
        assert decisions(rule.seen(host, [(SCANNER, 22)], NOW + then)) == []
    rule.forget(SCANNER)
    assert decisions(rule.seen(5, [(SCANNER, 22)], NOW + 613)) == []
    assert decisions(rule.seen(6, [(SCANNER, 22)], NOW + 613)) == []
    assert len(decisions(rule.seen(7, [(SCANNER, 22)], NOW + 614))) == 1


def test_slow_finds_a_source_that_spreads_its_probes_over_a_day() -> None:
    rule, sweep = Slow(thresholds("slow"), Fleet()), Sweep(thresholds("sweep"), Fleet())
    found: list[tuple[int, Decision]] = []
    for n in range(20):
        now = NOW + n * 4500
        for background in range(500):
            rule.seen(background % 20, [((n * 500 + background).to_bytes(4, "big"), 22)], now)
        pairs = [(SCANNER, 2000 + n // 5)]
        assert decisions(sweep.seen(n % 5, pairs, now)) == []
        found += [(n, one) for one in decisions(rule.seen(n % 5, pairs, now))]
        rule.tick(now)
    [(n, decision)] = found
    assert n == 19 and decision.source == SCANNER and decision.seen == 5
    assert decision.evidence == "syn" and "20 closed ports on 5 hosts within 24 h" in decision.why


def test_slow_wants_several_hosts_and_one_day() -> None:
    rule = Slow(thresholds("slow", probes=4, hosts=3), Fleet())
    for port in range(40):
        assert decisions(rule.seen(1, [(SCANNER, port)], NOW)) == []
    assert decisions(rule.seen(2, [(SCANNER, 1)], NOW)) == []
    assert len(decisions(rule.seen(3, [(SCANNER, 1)], NOW))) == 1
    for n in range(10):
        assert decisions(rule.seen(n, [(SCANNER, n)], NOW + n * 40_000)) == []


def test_crowd_proposes_a_network_once_in_its_window() -> None:
    rule = Crowd(thresholds("crowd", sources=5), Fleet())
    six = [packed(f"2001:db8:7:{n}::/64") for n in range(5)]
    found: list[Found] = []
    for _repeated in range(3):
        for n in range(5):
            found += rule.seen(n, [(packed(f"203.0.113.{n}"), 22), (six[n], 23)], NOW)
            found += rule.seen(n, [(OTHERS[0], 22)], NOW)
    assert found == [
        Proposal(found[0][0], 5, (22,), found[0][-1]),
        Proposal(six[0][:6], 5, (23,), found[1][-1]),
    ]
    assert "5 sources of 203.0.113.0/24" in found[0][-1]
    assert "2001:db8:7::/48" in found[1][-1]


votes = st.lists(
    st.tuples(
        st.integers(0, 5),  # host
        st.dictionaries(
            st.sampled_from([SCANNER, OTHERS[0]]),
            st.tuples(st.integers(0, 12), st.sampled_from(["syn", "answer"])),  # made, in minutes
        ),
    ),
    max_size=12,
)


@given(votes, st.integers(2, 4), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_quorum_decides_when_enough_hosts_of_enough_networks_have_banned(
    found: list[tuple[int, dict[bytes, tuple[int, str]]]], hosts: int, shared: int
) -> None:
    """The model has the first decision on each source."""
    rule = Quorum(thresholds("quorum", hosts=hosts, networks=hosts), Fleet(shared))
    now = NOW + 720
    state: dict[int, dict[bytes, tuple[int, str]]] = {}
    done: set[bytes] = set()
    for host, bans in found:
        state[host] = bans
        reported = [
            HostBan(source, now + 60, NOW + 60 * made, (22,), evidence)
            for source, (made, evidence) in bans.items()
        ]
        decided = {one.source: one for one in decisions(rule.bans(host, reported, now))}
        for source in (SCANNER, OTHERS[0]):
            having = {h: b[source] for h, b in state.items() if source in b and b[source][0] >= 2}
            enough = len({max(h, shared) for h in having}) >= hosts
            strong = {h for h, (made, evidence) in having.items() if evidence == "answer"}
            if source in done:
                continue
            assert (source in decided) is (
                enough and source in bans and having.get(host) is not None
            )
            if source in decided:
                done.add(source)
                is_strong = len({max(h, shared) for h in strong}) >= hosts
                assert decided[source].evidence == ("answer" if is_strong else "syn")
                assert decided[source].seen == len(strong if is_strong else having)


def ban(evidence: str = "syn", made: float = NOW, source: bytes = SCANNER) -> list[HostBan]:
    return [HostBan(source, made + 600, made, (22, 23), evidence)]


def test_quorum_decides_again_only_on_new_bans_or_better_evidence() -> None:
    rule = Quorum(thresholds("quorum"), Fleet())
    assert [len(decisions(rule.bans(host, ban(), NOW))) for host in (1, 2, 3, 4, 5)] == [
        *(0, 0, 1, 0, 0),
    ]
    upgraded = [decisions(rule.bans(host, ban("answer"), NOW + 1)) for host in (1, 2, 3, 4)]
    assert [len(found) for found in upgraded] == [0, 0, 1, 0]
    assert upgraded[2][0].evidence == "answer" and upgraded[2][0].seconds == 3600
    later = NOW + 300
    assert [len(decisions(rule.bans(host, ban("syn", later), later))) for host in (1, 2, 3)] == [
        *(0, 0, 1),
    ]
    rule.forget(SCANNER)
    assert decisions(rule.bans(4, ban("answer"), later)) == []


def test_a_ban_of_the_future_counts_from_its_report_on() -> None:
    rule = Quorum(thresholds("quorum"), Fleet())
    found = []
    for now in range(3):
        for host in (1, 2, 3):
            found += decisions(rule.bans(host, ban("answer", NOW + 900), NOW + now))
    assert [one.evidence for one in found] == ["answer"]


def test_a_host_counts_once_and_one_without_addresses_has_no_network() -> None:
    rule = Quorum(thresholds("quorum", hosts=2, networks=2), Fleet())
    for made in range(5):
        assert decisions(rule.bans(1, ban(made=NOW + made), NOW + 9)) == []
    assert decisions(rule.bans(99, ban(), NOW + 9)) == []
    assert decisions(rule.bans(1, [], NOW + 9)) == []
    assert decisions(rule.bans(2, ban(), NOW + 9)) == []
    assert len(decisions(rule.bans(3, ban(), NOW + 9))) == 1


def test_quorum_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packetwatch_enforcer.rules.quorum.MOST", 10)
    rule = Quorum(thresholds("quorum"), Fleet())
    for host in range(3):
        bans = [HostBan(n.to_bytes(4, "big"), NOW, NOW, (), "syn") for n in range(8)]
        list(rule.bans(host, bans, NOW))
    assert rule.values() == {"entries": 10, "lost": 14, "unreachable": False}
    for host in range(3):
        list(rule.bans(host, [], NOW))
    assert rule.values()["entries"] == 0


# Rules that are wrong

GOOD = """
from packetwatch_enforcer.rules.interface import Decision

class Greedy:
    name = "greedy"
    def __init__(self, thresholds): self.seconds = thresholds.get("seconds", 60)
    def seen(self, host, pairs, now):
        return [Decision(s, self.seconds, "syn", 1, (host,), (p,), "it was there") for s, p in pairs]
    def bans(self, host, bans, now): return ()
    def tick(self, now): return ()
    def forget(self, source): pass
    def values(self): return {"entries": 0}

def make_rule(thresholds, hosts): return Greedy(thresholds)
"""
BAD = {
    "raises": GOOD.replace("return [Decision", "raise KeyError(host); return [Decision"),
    "loops": GOOD.replace(
        "return [Decision", "\n        while True: pass\n        return [Decision"
    ),
    "wrong": GOOD.replace("return [Decision", "return [1]; return [Decision"),
    "syntax": "def make_rule(",
    "empty": "",
    "late": GOOD.replace("def tick(self, now): return ()", "def tick(self, now): yield 1 / 0"),
    "much": GOOD.replace("for s, p in pairs]", "for s, p in pairs * 2000]"),
}


def made(folder: Path, *names: str) -> Panel:
    for name, text in {"greedy": GOOD, **BAD}.items():
        (folder / f"{name}.py").write_text(text)
    return Panel({name: Declared("monitor", {}) for name in names}, Fleet(), str(folder))


@pytest.mark.parametrize("bad", [*BAD, "missing", "../greedy"])
def test_a_bad_rule_is_switched_off_alone(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    monkeypatch.setattr(panels, "BURST", 0.1)
    panel = made(tmp_path, bad, "greedy")
    former = signal.signal(signal.SIGVTALRM, lambda *_arguments: panel.interrupt())
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.02, 0.02)
    try:
        found = panel.seen(1, [(SCANNER, 22)], NOW)
        panel.tick(NOW, 5)
        assert [one[0] for seat, one in found if seat.name == "greedy"] == [SCANNER]
        assert len(panel.seen(1, [(SCANNER, 22)], NOW)) == 1
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)
    first, second = panel.seats
    assert second.fault is None and second.decided == 2
    assert first.fault and first.values() == {}, first.fault


def test_a_rule_that_uses_too_much_of_a_processor_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panels, "BURST", 0.05)
    (tmp_path / "busy.py").write_text(
        GOOD.replace("return [Decision", "sum(range(200000)); return [Decision")
    )
    panel = made(tmp_path, "busy", "greedy")
    for _call in range(1000):
        panel.seen(1, [(SCANNER, 22)], NOW)
        if panel.seats[0].fault:
            break
    assert panel.seats[0].fault == "it has used more than 50% of a processor"
    assert panel.seats[1].is_on
    unbounded = Panel({"busy": Declared("monitor", {})}, Fleet(), str(tmp_path), is_bounded=False)
    for _call in range(40):
        unbounded.seen(1, [(SCANNER, 22)], NOW)
    assert unbounded.seats[0].is_on


# What an inventory may say


def test_defaults_are_monitor_and_survive_the_file(tmp_path: Path) -> None:
    found = parse_rules(
        {"quorum": None, "sweep": {"action": "enforce", "hosts": 7}, "mine": {"x": 1}}, "r"
    )
    assert found["quorum"] == Declared(
        "monitor", {"hosts": 3, "networks": 3, "window": 600, "seconds": 3600}
    )
    assert found["sweep"].action == "enforce" and found["sweep"].thresholds["hosts"] == 7
    assert found["mine"] == Declared("monitor", {"x": 1.0})
    (tmp_path / "rules").write_text(format_rules(found))
    assert read_rules(str(tmp_path / "rules")) == found
    assert parse_rules({"slow": {"action": False, "window": "2h"}}, "r")["slow"].action == "off"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ([], "r is of type list"),
        ({"Sweep!": {}}, "a rule in r is 'Sweep!'"),
        ({"sweep": []}, "r.sweep is of type list"),
        (
            {"sweep": {"action": "ban"}},
            "r.sweep.action is 'ban': write one of enforce, monitor, off",
        ),
        ({"sweep": {"hosts": 1}}, "r.sweep.hosts is 1: write a whole number from 2 to 1000"),
        ({"sweep": {"hosts": 2.5}}, "r.sweep.hosts is 2.5"),
        ({"sweep": {"hosts": True}}, "r.sweep.hosts is 'True': write a number"),
        ({"sweep": {"seconds": "1h"}}, "r.sweep.seconds is '1h'; allowed: seconds from 10 to 600"),
        ({"sweep": {"probes": 7}}, "r.sweep.probes is not a threshold of this rule: write hosts,"),
        ({"quorum": {"seconds": "8d"}}, "r.quorum.seconds is '8d'"),
        ({"mine": {"x": "y"}}, "r.mine.x is 'y': write a number"),
    ],
)
def test_a_wrong_threshold_is_named(declared: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_rules(declared, "r")
    assert message in str(caught.value)
    with pytest.raises(InvalidInput):
        parse_enforcers({"e1": declared}, "r")


def test_what_nobody_bans_is_checked_before_anything_changes() -> None:
    fleet_rules.check(["192.0.2.1", "203.0.113.0/28", "2001:db8::/32"])
    with pytest.raises(PacketwatchError, match=r"fleet_node_protect: .*203\.0\.113\.300"):
        fleet_rules.check(["192.0.2.1", "203.0.113.300"])


def test_each_rule_has_a_row() -> None:
    for name in RULES:
        panel = Panel(parse_rules({name: {}}, "r"), Fleet())
        assert panel.seats[0].is_on and panel.seats[0].values()["entries"] == 0
    assert ACTIONS == ("enforce", "monitor", "off")


def test_the_role_knows_each_rule() -> None:
    role = Path(__file__).resolve().parents[2] / "roles/fleet_node"
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    option = specs["main"]["options"]["fleet_node_rules"]
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    assert option["default"] == defaults["fleet_node_rules"] == {name: {} for name in RULES}
    for name, limits in RULES.items():
        [line] = [line for line in option["description"] if line.startswith(f"C({name})")]
        assert [limit for limit in limits if f"C({limit})" not in line] == []


def test_a_day_of_background_costs_little_memory() -> None:
    began = time.thread_time()
    rule = Sweep(thresholds("sweep"), Fleet())
    for n in range(100):
        pairs: Sequence[tuple[bytes, int]] = [
            ((n * 1000 + m).to_bytes(4, "big"), 22) for m in range(1000)
        ]
        assert not list(rule.seen(n % 50, pairs, NOW + n))
    assert rule.values()["entries"] == 0
    assert time.thread_time() - began < 2
