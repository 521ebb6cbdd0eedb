# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fold of a fleet's state: whatever the order, the same values make the same bans."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from packetwatch_core._base.address import parse_prefix
from packetwatch_fleet.fold import Ban, Board, fold
from packetwatch_fleet.pages import MAX_PAGE, MAX_ROWS, MAX_SYN, Row
from packetwatch_fleet.sources import Sources

BANS, LIFTS = "/packetwatch/v1/bans/", "/packetwatch/v1/lifts/"
NOW = 1_000.0
ADDRESSES = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::/64", "2001:db8::7")
ENFORCERS = ("api", "e1", "e2")

times = st.integers(min_value=0, max_value=3_000).map(float)
rows = st.tuples(
    st.sampled_from(ADDRESSES),
    times,
    times,
    st.sampled_from(("quorum", "sweep")),
    st.sampled_from(("syn", "answer", "manual")),
    st.integers(min_value=0, max_value=9),
).map(list)
lifts = st.tuples(st.sampled_from(ADDRESSES), times, times).map(list)
ban_pages = st.tuples(
    st.builds("{}{}/10-00{}".format, st.just(BANS), st.sampled_from(ENFORCERS), st.integers(0, 2)),
    st.lists(rows, max_size=6).map(lambda found: page("bans", found)),
)
lift_pages = st.tuples(
    st.builds("{}10-00{}".format, st.just(LIFTS), st.integers(0, 1)),
    st.lists(lifts, max_size=4).map(lambda found: page("lifts", found)),
)
values = st.lists(st.one_of(ban_pages, lift_pages), max_size=12).map(dict)


def page(name: str, found: list[Any], version: Any = 1) -> bytes:
    """Return the text of a page."""
    return json.dumps({"v": version, name: found}).encode()


def model(found: dict[str, bytes], now: float, accepted: tuple[str, ...] = ()) -> dict[str, float]:
    """Return the end of each ban by the rule as docs/fleet.md states it, in the plainest code."""
    ends: dict[str, float] = {}
    lifted: dict[str, float] = {}
    for key, value in found.items():
        if key.startswith(LIFTS):
            for address, before, _hold in json.loads(value)["lifts"]:
                source = Sources().of(address)
                lifted[source] = max(before, lifted.get(source, -1))
    for key, value in found.items():
        enforcer = key.removeprefix(BANS).partition("/")[0]
        if key.startswith(BANS) and (not accepted or enforcer in accepted):
            for address, until, made, _rule, evidence, _seen in json.loads(value)["bans"]:
                source = Sources().of(address)
                if evidence == "syn":
                    until = min(until, made + MAX_SYN)
                if until > now and made > lifted.get(source, -1):
                    ends[source] = max(until, ends.get(source, 0))
    return ends


def ends(bans: dict[str, Ban]) -> dict[str, float]:
    """Return only the ends."""
    return {source: ban.until for source, ban in bans.items()}


@given(values, times)
def test_the_fold_is_what_the_rule_says(found: dict[str, bytes], now: float) -> None:
    assert ends(fold(found, now)) == model(found, now)
    assert ends(fold(found, now, accepted=["e1"])) == model(found, now, ("e1",))


@given(values, st.randoms(use_true_random=False))
def test_order_and_replays_do_not_matter(found: dict[str, bytes], chance: random.Random) -> None:
    board = Board()
    steps = list(found.items()) * 2
    chance.shuffle(steps)
    for key, value in steps:
        board.put(key, value)
    assert dict(board.bans(NOW)) == fold(found, NOW)


@given(values, values, st.randoms(use_true_random=False))
def test_only_the_last_value_of_each_key_matters(
    first: dict[str, bytes], last: dict[str, bytes], chance: random.Random
) -> None:
    board = Board()
    for key, value in first.items():
        board.put(key, value)
    steps: list[tuple[str, bytes | None]] = [*last.items()]
    steps += [(key, None) for key in first.keys() - last.keys()]
    chance.shuffle(steps)
    for key, new in steps:
        if new is None:
            board.drop(key)
        else:
            board.put(key, new)
    assert dict(board.bans(NOW)) == fold(last, NOW)
    assert board.keys() == fold_keys(last)


def fold_keys(found: dict[str, bytes]) -> set[str]:
    """Return the keys of a board that never had other values."""
    board = Board()
    for key, value in found.items():
        board.put(key, value)
    return board.keys()


@given(values)
def test_a_second_enforcer_that_decides_the_same_changes_no_end(found: dict[str, bytes]) -> None:
    copies = {key.replace("/e1/", "/e9/"): value for key, value in found.items()}
    assert ends(fold(found | copies, NOW)) == ends(fold(found, NOW))


@given(values, st.lists(times, min_size=1, max_size=5).map(sorted))
def test_forgetting_what_has_ended_changes_nothing(
    found: dict[str, bytes], moments: list[float]
) -> None:
    board = Board()
    for key, value in found.items():
        board.put(key, value)
    for now in moments:
        before = {source: board.ban(source, now) for source in dict(board.bans(0))}
        board.expire(now)
        assert {source: board.ban(source, now) for source in before} == before
        assert dict(board.bans(now)) == fold(found, now)
    board.expire(10_000)
    assert [key for key in sorted(board.keys()) if key.startswith(BANS)] == []


@given(values, st.sampled_from(ADDRESSES), times)
def test_a_lift_after_all_decisions_beats_every_skewed_clock(
    found: dict[str, bytes], address: str, now: float
) -> None:
    # The writer takes the newest MADE that it knows, also if an enforcer's clock is ahead.
    newest = max(
        (
            row[2]
            for key, value in found.items()
            if key.startswith(BANS)
            for row in json.loads(value)["bans"]
        ),
        default=0,
    )
    lifted = {f"{LIFTS}99-000": page("lifts", [[address, max(now, newest), 0]])}
    bans = fold(found | lifted, now)
    source = Sources().of(address)
    assert source not in bans
    assert bans == {other: ban for other, ban in fold(found, now).items() if other != source}


class Changing(RuleBasedStateMachine):
    """A board that changes value by value reports every source whose ban has changed."""

    @initialize()
    def begin(self) -> None:
        self.board, self.found, self.now = Board(), dict[str, bytes](), 0.0
        self.known: dict[str, Ban] = {}

    def learn(self, changed: set[str]) -> None:
        """Update what a consumer knows, by the reported sources only."""
        for source in changed:
            if ban := self.board.ban(source, self.now):
                self.known[source] = ban
            else:
                self.known.pop(source, None)

    @rule(found=st.one_of(ban_pages, lift_pages))
    def put(self, found: tuple[str, bytes]) -> None:
        self.found[found[0]] = found[1]
        self.learn(self.board.put(*found))

    @rule(place=st.integers(0, 20))
    def drop(self, place: int) -> None:
        for key in list(self.found)[place : place + 1]:
            del self.found[key]
            self.learn(self.board.drop(key))

    @rule(found=st.sampled_from([b"", b"{", b"[]", b'{"v":2}', page("bans", [], "1")]))
    def damage(self, found: bytes) -> None:
        for key in list(self.found)[:1]:
            del self.found[key]
            self.learn(self.board.put(key, found))

    @rule(seconds=st.integers(1, 400))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.learn(self.board.expire(self.now))

    @invariant()
    def the_consumer_knows_all(self) -> None:
        known = {source: ban for source, ban in self.known.items() if ban.until > self.now}
        assert known == fold(self.found, self.now)


TestChanging = Changing.TestCase
TestChanging.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_evidence_is_the_strongest_that_has_not_ended() -> None:
    found = {
        f"{BANS}e1/10-000": page("bans", [["192.0.2.1", 1500, 990, "quorum", "syn", 3]]),
        f"{BANS}api/10-000": page("bans", [["192.0.2.1", 1200, 900, "by-hand", "manual", 0]]),
    }
    first, later = fold(found, 1000)["192.0.2.1"], fold(found, 1300)["192.0.2.1"]
    assert (first.until, first.evidence, first.label) == (1500, "manual", "api/by-hand")
    assert (later.until, later.evidence, later.label) == (1500, "syn", "e1/quorum")


def test_syn_evidence_is_short_whatever_the_page_says() -> None:
    found = {f"{BANS}e1/10-000": page("bans", [["192.0.2.1", 9e9, 990, "quorum", "syn", 3]])}
    assert fold(found, NOW)["192.0.2.1"].until == 990 + MAX_SYN


def test_addresses_of_one_64_are_one_source_unless_the_prefix_is_shared() -> None:
    both = [["2001:db8::1", 2000, 1, "r", "manual", 0], ["2001:db8::2", 3000, 1, "r", "manual", 0]]
    found = {f"{BANS}api/10-000": page("bans", both)}
    assert ends(fold(found, NOW)) == {"2001:db8::/64": 3000}
    shared = Sources([parse_prefix("2001:db8::/32")])
    assert ends(fold(found, NOW, shared)) == {"2001:db8::1": 2000, "2001:db8::2": 3000}


def test_held_rows_stay_until_their_end_or_a_lift() -> None:
    board = Board(accepted=["e1"])
    board.hold("held", [("192.0.2.1", Row(1500, 900, "r", "manual", 0))])
    board.hold("held", [("192.0.2.2", Row(1500, 900, "r", "manual", 0))])
    assert ends(dict(board.bans(NOW))) == {"192.0.2.1": 1500, "192.0.2.2": 1500}
    assert board.put(f"{LIFTS}10-000", page("lifts", [["192.0.2.1", 950, 0]])) == {"192.0.2.1"}
    assert ends(dict(board.bans(NOW))) == {"192.0.2.2": 1500}
    board.expire(1600)
    assert dict(board.bans(NOW)) == {}


GOOD: list[Any] = ["192.0.2.1", 2000, 900, "quorum", "answer", 3]


# What is wrong in each place of a row.
WRONG: tuple[tuple[Any, ...], ...] = (
    (7, "", "host", "0.0.0.0/0", "192.0.2.0/24", "2001:db8::/48"),
    (None, True, "1", -1, 1e12, float("nan"), float("inf")),
    (None, True, [], -1, 1e12, float("nan")),
    (None, "", "a/b", "A", "x" * 100, "a\nb"),
    (None, "", "proof", 1),
    (None, True, 1.5, -1, 10**9),
)


@pytest.mark.parametrize(
    ("at", "wrong"), [(at, wrong) for at, values in enumerate(WRONG) for wrong in values]
)
def test_a_wrong_row_is_counted_and_the_others_count(at: int, wrong: Any) -> None:
    bad = [*GOOD]
    bad[at] = wrong
    board = Board()
    board.put(f"{BANS}e1/10-000", page("bans", [bad, ["192.0.2.9", *GOOD[1:]]]))
    assert set(dict(board.bans(NOW))) == {"192.0.2.9"}
    assert board.refused == {"row": 1}


@pytest.mark.parametrize("short", [[], ["192.0.2.1"], GOOD[:5], {}, None, "192.0.2.1"])
def test_a_row_that_lacks_columns_is_counted(short: Any) -> None:
    board = Board()
    board.put(f"{BANS}e1/10-000", page("bans", [short]))
    assert (dict(board.bans(NOW)), board.refused) == ({}, {"row": 1})


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (f"{BANS}e1/10-000", b"", "shape"),
        (f"{BANS}e1/10-000", b"[" * 9_000, "shape"),
        (f"{BANS}e1/10-000", b"\xff", "shape"),
        (f"{BANS}e1/10-000", b"[]", "shape"),
        (f"{BANS}e1/10-000", b'{"bans":[]}', "version"),
        (f"{BANS}e1/10-000", page("bans", [GOOD], 2), "version"),
        (f"{BANS}e1/10-000", page("bans", [GOOD], True), "version"),
        (f"{BANS}e1/10-000", page("bans", [GOOD], 1.0), "version"),
        (f"{BANS}e1/10-000", page("lifts", [GOOD]), "shape"),
        (f"{BANS}e1/10-000", page("bans", [GOOD] * (MAX_ROWS + 1)), "shape"),
        (f"{BANS}e1/10-000", page("bans", [GOOD]) + b" " * MAX_PAGE, "size"),
        (f"{BANS}e2/10-000", page("bans", [GOOD]), "enforcer"),
        (f"{BANS}e1/10-000/more", page("bans", [GOOD]), "key"),
        (f"{BANS}e1", page("bans", [GOOD]), "key"),
        (f"{BANS}../10-000", page("bans", [GOOD]), "key"),
        (f"{LIFTS}a/b", page("lifts", []), "key"),
        (f"{LIFTS}10-000", page("bans", []), "shape"),
    ],
)
def test_a_value_that_is_not_understood_counts_as_absent(
    key: str, value: bytes, reason: str
) -> None:
    board = Board(accepted=["e1"])
    board.put(f"{BANS}e1/10-000", page("bans", [GOOD]))
    board.put(key, value)
    assert board.refused == {reason: 1}
    assert len(dict(board.bans(NOW))) == (key != f"{BANS}e1/10-000")


def test_fields_and_columns_of_later_versions_are_ignored() -> None:
    value = json.dumps({"v": 1, "bans": [[*GOOD, "more"]], "signature": "x"}).encode()
    assert len(fold({f"{BANS}e1/10-000": value}, NOW)) == 1


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    monkeypatch.setattr(board._rows, "_room", 3)
    many = [[f"192.0.2.{number}", *GOOD[1:]] for number in range(4)]
    assert board.put(f"{BANS}e1/10-000", page("bans", many)) == set()
    assert board.refused == {"full": 1}
    assert len(board.put(f"{BANS}e1/10-000", page("bans", many[:3]))) == 3
    assert len(board.put(f"{BANS}e1/10-000", page("bans", many[1:]))) == 2
    assert set(dict(board.bans(NOW))) == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}


@given(st.sampled_from([f"{BANS}e1/10-000", f"{LIFTS}10-000", "/other", ""]), st.binary())
def test_no_bytes_of_a_store_raise(key: str, value: bytes) -> None:
    board = Board()
    assert board.put(key, value) == set()
    assert dict(board.bans(NOW)) == {}
