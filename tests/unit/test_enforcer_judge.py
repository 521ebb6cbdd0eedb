# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of decisions: pages of the store, of which hosts make exactly the bans that were decided."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from packetwatch_core._base.address import parse_prefix
from packetwatch_core._node.keys import BANS, HOSTS, LIFTS, LISTS, MAX_BYTES, MAX_ROWS, OPEN_ROWS
from packetwatch_core._node.never import Never
from packetwatch_core._node.rules import RULES
from packetwatch_enforcer.judge import Judge, sources_of
from packetwatch_enforcer.ledger import MAX_PENDING, Ledger
from packetwatch_enforcer.rules.interface import Decision, Proposal
from packetwatch_fleet.fold import fold
from packetwatch_fleet.pages import Row
from packetwatch_fleet.sources import packed

NOW = 1_800_000_000.0
SOURCES = ("203.0.113.9", "198.51.100.7", "2001:db8:7::/64")
ALL = 1000


class Fleet:
    def present(self) -> list[int]:
        return []

    def name(self, host: int) -> str:
        return f"web{host}"

    def networks(self, host: int) -> frozenset[str]:
        return frozenset()


def decision(address: str, seconds: float = 3600, evidence: str = "answer") -> Decision:
    return Decision(packed(address), seconds, evidence, 3, (1, 2, 3), (22, 23), "it was there")


def judge(never: Never | None = None, shared: str = "") -> Judge:
    return Judge("e1", never or Never(), Fleet(), [parse_prefix(shared)] if shared else [])


class Deciding(RuleBasedStateMachine):
    """An enforcer with its store. The model has the rows that count, in the plainest form."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.store: dict[str, bytes] = {}
        self.rows: list[tuple[str, float, float, str]] = []
        """Source, until, made and evidence of each decision."""
        self.lifted: dict[str, float] = {}
        self.held: dict[str, float] = {}
        self.judge = judge()

    def commit(self) -> None:
        for page in self.judge.commit(self.now, ALL):
            rows = json.loads(page.value)["bans"]
            assert len(rows) <= MAX_ROWS and len(page.value) <= MAX_BYTES + 20
            # Only pages with few rows are written again, and nothing in them changes.
            before = json.loads(self.store.get(page.key, b'{"bans":[]}'))["bans"]
            assert len(before) < OPEN_ROWS and rows[: len(before)] == before
            assert all(row[1] <= page.ends - 600 for row in rows)
            self.store[page.key] = page.value

    @rule(
        source=st.sampled_from(SOURCES),
        seconds=st.sampled_from([60, 600, 3600, 100_000]),
        evidence=st.sampled_from(["syn", "answer"]),
    )
    def decide(self, source: str, seconds: float, evidence: str) -> None:
        record = self.judge.judge(
            "quorum", "enforce", decision(source, seconds, evidence), self.now
        )
        until = self.now + (min(seconds, 600) if evidence == "syn" else seconds)
        if self.now < self.held.get(source, 0):
            assert record is None
        elif record is None:
            # What is in force does as much.
            known = self.bans().get(source)
            assert known
            if evidence == "answer":
                assert known[1] == "answer" and until - known[0] < seconds / 10
        else:
            assert abs(record["until"] - until) < 1 and record["hosts"] == ["web1", "web2", "web3"]
            made = round(record["until"] - record["seconds"], 1)
            self.rows.append((source, record["until"], made, evidence))

    @rule(source=st.sampled_from(SOURCES), hold=st.sampled_from([0, 100]), number=st.integers(0, 3))
    def lift(self, source: str, hold: float, number: int) -> None:
        newest = max((row[2] for row in self.rows if row[0] == source), default=0.0)
        before = max(self.now, newest)
        key = f"{LIFTS}10-{number:03}"
        lifts = json.loads(self.store.get(key, b'{"lifts":[]}'))["lifts"]
        value = json.dumps({"v": 1, "lifts": [*lifts, [source, before, self.now + hold]]}).encode()
        self.store[key] = value
        self.judge.put(key, value)
        same = before == self.lifted.get(source)
        self.held[source] = max(self.now + hold, self.held.get(source, 0) if same else 0)
        self.lifted[source] = before

    @rule(seconds=st.sampled_from([1, 50, 300, 2000]))
    def wait(self, seconds: float) -> None:
        self.commit()
        self.now += seconds
        self.judge.expire(self.now)

    @rule()
    def restart(self) -> None:
        self.commit()
        self.judge = judge()
        self.judge.relist(dict(self.store), self.now, True)

    @rule()
    def lose_the_store(self) -> None:
        """Only its lifts are left. What is written again is one row for each source."""
        self.commit()
        in_force = [row for row in self.rows if row[2] > self.lifted.get(row[0], -1)]
        made = {row[0]: row[2] for row in sorted(in_force)}
        self.rows = [(s, until, made[s], evidence) for s, (until, evidence) in self.bans().items()]
        lifts = {key: value for key, value in self.store.items() if key.startswith(LIFTS)}
        self.store = dict(lifts)
        self.judge.relist(dict(self.store), self.now, False)

    @precondition(lambda self: any(key.startswith(BANS) for key in self.store))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """Somebody deletes a page."""
        self.commit()
        pages = sorted(key for key in self.store if key.startswith(BANS))
        key = data.draw(st.sampled_from(pages))
        gone = {(row[0], row[1], row[4]) for row in json.loads(self.store.pop(key))["bans"]}
        self.rows = [row for row in self.rows if (row[0], row[1], row[3]) not in gone]
        if data.draw(st.booleans()):
            self.judge.drop(key)
        else:
            self.judge.relist(dict(self.store), self.now, True)

    def bans(self) -> dict[str, tuple[float, str]]:
        found: dict[str, tuple[float, str]] = {}
        for source, until, made, evidence in self.rows:
            if until > self.now and made > self.lifted.get(source, -1):
                former = found.get(source, (0.0, "syn"))
                found[source] = (max(until, former[0]), min(evidence, former[1]))
        return found

    @invariant()
    def hosts_ban_what_was_decided(self) -> None:
        self.commit()
        folded = fold(self.store, self.now)
        assert {s: (round(b.until, 1), b.evidence) for s, b in folded.items()} == {
            s: (round(until, 1), evidence) for s, (until, evidence) in self.bans().items()
        }


TestDeciding = Deciding.TestCase
TestDeciding.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


def test_many_decisions_make_few_pages_that_are_not_written_again() -> None:
    tested = judge()
    for n in range(1000):
        assert tested.judge("sweep", "enforce", decision(f"198.18.{n // 256}.{n % 256}"), NOW)
    pages = tested.commit(NOW, 3)
    assert len(pages) == 3 and len({page.key for page in pages}) == 3
    pages += tested.commit(NOW + 0.1, ALL)
    assert tested.ledger.pending == {} and len(pages) <= 12
    assert len(fold({page.key: page.value for page in pages}, NOW)) == 1000
    assert tested.entries == 1000


def test_one_decision_after_the_other_fills_pages() -> None:
    ledger = Ledger("e1")
    writes = []
    for n in range(60):
        ledger.add(f"203.0.113.{n}", Row(NOW + 600, NOW, "sweep", "syn", 5))
        writes += ledger.commit(NOW, ALL)
    assert len(writes) == 60 and len({page.key for page in writes}) == 4
    # A page's last write has all of its rows.
    assert len(fold({page.key: page.value for page in writes}, NOW)) == 60


def test_what_was_lifted_is_not_written_again_if_the_store_has_lost_its_lifts() -> None:
    tested = judge()
    for source in SOURCES:
        assert tested.judge("sweep", "enforce", decision(source), NOW)
    tested.commit(NOW, ALL)
    lift = json.dumps({"v": 1, "lifts": [[SOURCES[0], NOW + 1, 0]]}).encode()
    tested.put(f"{LIFTS}10-000", lift)
    tested.relist({}, NOW + 2, False)
    pages = tested.commit(NOW + 2, ALL)
    assert fold({page.key: page.value for page in pages}, NOW + 2).keys() == set(SOURCES[1:])


def test_a_burst_does_not_make_pages_too_large() -> None:
    ledger = Ledger("e1")
    for n in range(500):
        long = Row(NOW + 600 + n / 10, NOW, "x" * 60, "answer", 1_000_000)
        ledger.add(f"2001:db8:1234:{n:x}::/64", long)
    pages = ledger.commit(NOW, ALL)
    assert max(len(page.value) for page in pages) <= MAX_BYTES + 20
    assert sum(len(json.loads(page.value)["bans"]) for page in pages) == 500


def test_what_waits_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packetwatch_enforcer.ledger.MAX_PENDING", 3)
    tested = judge()
    for n in range(5):
        tested.judge("sweep", "enforce", decision(f"203.0.113.{n}"), NOW)
    assert tested.refused == {"full": 2} and len(tested.ledger.pending) == 3
    assert MAX_PENDING == 20_000


@pytest.mark.parametrize("order", [1, -1])
def test_two_rows_that_wait_are_what_hosts_make_of_both(order: int) -> None:
    """As after the store was wiped, and with it the lift between them."""
    rows = [
        Row(NOW + 600, NOW, "sweep", "syn", 5),
        Row(NOW + 610, NOW + 10, "sweep", "syn", 5),
    ]
    ledger = Ledger("e1")
    pages: dict[str, bytes] = {}
    for number, row in enumerate(rows[::order]):
        ledger.add("203.0.113.9", row)
        own = Ledger(f"e{number + 2}")
        own.add("203.0.113.9", row)
        pages |= {page.key: page.value for page in own.commit(NOW + 20, ALL)}
    [page] = ledger.commit(NOW + 20, ALL)
    found = fold({page.key: page.value}, NOW + 20)["203.0.113.9"]
    both = fold(pages, NOW + 20)["203.0.113.9"]
    assert (found.until, found.evidence) == (both.until, both.evidence) == (NOW + 610, "syn")


def test_nobody_is_banned_who_is_on_the_never_list() -> None:
    never = Never([("192.0.2.11", "a node"), ("203.0.113.0/28", "protected")])
    status = json.dumps({"v": 1, "addresses": ["192.0.2.20", "2001:db8:7::5"]}).encode()
    never.put(f"{HOSTS}web1/status", status)
    never.put(f"{LISTS}office", b'{"v":1,"allow":[{"address":"198.51.100.0/24"}]}')
    tested = judge(never)
    for source in ("192.0.2.11", "192.0.2.20", *SOURCES):
        for action in ("enforce", "monitor"):
            assert tested.judge("sweep", action, decision(source), NOW) is None
    assert tested.refused == {"never": 10} and tested.commit(NOW, ALL) == []
    assert tested.judge("sweep", "enforce", decision("203.0.113.16"), NOW)


def test_a_network_of_a_shared_prefix_is_refused_and_a_single_address_is_not() -> None:
    tested = judge(shared="64:ff9b::/96")
    assert tested.judge("sweep", "enforce", decision("64:ff9b::/64"), NOW) is None
    assert tested.refused == {"shared": 1}
    found = tested.judge("quorum", "enforce", decision("64:ff9b::7/128"), NOW)
    assert found and found["source"] == "64:ff9b::7"


def test_syn_bans_are_short_and_not_prolonged() -> None:
    tested = judge()
    first = tested.judge("sweep", "enforce", decision("203.0.113.9", 3600, "syn"), NOW)
    assert first and first["seconds"] == 600 and first["until"] == NOW + 600
    for later in (1, 300, 599):
        assert not tested.judge(
            "sweep", "enforce", decision("203.0.113.9", 600, "syn"), NOW + later
        )
    stronger = tested.judge("quorum", "enforce", decision("203.0.113.9"), NOW + 300)
    assert stronger and stronger["until"] == NOW + 3900
    assert tested.judge("sweep", "enforce", decision("203.0.113.10", 600, "syn"), NOW + 601)


def test_monitor_decides_once_and_writes_nothing() -> None:
    tested = judge()
    assert tested.judge("sweep", "monitor", decision("203.0.113.9"), NOW)
    assert not tested.judge("sweep", "monitor", decision("203.0.113.9"), NOW + 1)
    assert tested.commit(NOW, ALL) == [] and tested.recent[0]["action"] == "monitor"
    # A rule that enforces decides nevertheless.
    assert tested.judge("quorum", "enforce", decision("203.0.113.9"), NOW + 2)
    assert tested.judge("sweep", "monitor", decision("203.0.113.9"), NOW + 4000)


def test_a_proposal_is_shown_and_written_nowhere() -> None:
    tested = judge()
    found = tested.judge(
        "crowd", "enforce", Proposal(bytes([203, 0, 113]), 20, (22,), "20 of"), NOW
    )
    assert found and (found["action"], found["source"]) == ("propose", "203.0.113.0/24")
    assert tested.commit(NOW, ALL) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": b"12345"},
        {"source": 7},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"seconds": -1},
        {"seconds": "long"},
        {"evidence": "manual"},
        {"seen": -1},
    ],
)
def test_what_a_rule_finds_may_be_wrong(wrong: dict[str, Any]) -> None:
    tested = judge()
    assert tested.judge("mine", "enforce", decision("203.0.113.9")._replace(**wrong), NOW) is None
    assert tested.refused == {"invalid": 1}


def test_recent_decisions_are_the_newest_ones_and_bounded() -> None:
    tested = judge()
    for n in range(100):
        tested.judge("sweep", "monitor", decision(f"203.0.113.{n}"), NOW + n)
    assert len(tested.recent) == 64 and tested.recent[0]["source"] == "203.0.113.99"
    assert tested.decided == {"sweep": 100}
    assert list(sources_of(["203.0.113.9"])) == [packed("203.0.113.9")]


def test_the_pages_have_all_metrics_and_rules() -> None:
    from packetwatch_agent.part import Part
    from packetwatch_enforcer import announce, memory, scribe, watcher

    root = Path(__file__).resolve().parents[2]
    page = (root / "docs/enforcer.md").read_text()
    rows = (root / "docs/fleet-metrics.md").read_text()
    parts: list[type[Part]] = [
        announce.Announcer,
        memory.Memory,
        scribe.Scribe,
        watcher.Watcher,
    ]
    declared = {name for part in parts for name in part.METRICS}
    assert set(re.findall(r"^\| `(packetwatch_enforcer_\w+)` \|", rows, re.MULTILINE)) == declared
    for rule_, limits in RULES.items():
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{rule_}` |")]
        for name, limit in limits.items():
            durations: dict[float, str] = {86400: "1d", 3600: "1h", 600: "10m"}
            shown = durations.get(limit.default, f"{limit.default:g}")
            assert re.search(
                rf"`{name}` (in )?{shown}\b|{shown}.*`{name}`|`{name}` {shown}", line
            ), (
                rule_,
                name,
            )
