# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Feeds on the running kernel: entries that overlap with this host's networks, and damaged feeds, are left out."""

from __future__ import annotations

import os
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random
from typing import Any

import pytest
from kernel.agent_process import AgentProcess
from kernel.hosting import DENIED, FULL, XDP_DROP, XDP_PASS, Site, ip, wait
from kernel.timers import Timers

from packetwatch_agent.control import truth, why
from packetwatch_core._base import clock
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.clock import Clock
from packetwatch_core._base.digest import digest_text
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._change.pending import Terms
from packetwatch_core._change.results import Plan
from packetwatch_core._declared.edits import set_lists
from packetwatch_core._feeds.copies import Ages
from packetwatch_core._feeds.edit import FeedEdit, WantedFeed
from packetwatch_core._feeds.parse import Format, read_feed
from packetwatch_core._feeds.spare import KEEP_BOGONS, read_note

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

FEED = "feed-x"
LISTED = "45.9.9.9"
NEIGHBOUR = "45.1.2.9"
TEXT = f"45.1.2.0/28\n{LISTED}\n"


def feed(site: Site, text: str = TEXT) -> Plan:
    return site.host.apply(set_lists(FEED, {"deny": text}, False))


def connect(network: str = "45.1.2.1") -> None:
    ip(f"address add {network}/24 dev pw0")


def drop_in(site: Site, name: str = FEED) -> Path:
    return site.state / "current/deny.d" / f"{name}.list"


def test_an_entry_in_a_connected_network_is_left_out(filtered: Site) -> None:
    connect()
    done = feed(filtered)
    assert filtered.verdict(NEIGHBOUR) == XDP_PASS
    assert filtered.verdict(LISTED) == XDP_DROP
    assert filtered.verdict(DENIED) == XDP_DROP
    assert done.feeds.left_out == {FEED: (1, ["45.1.2.0/28"])}
    assert done.counts["left_out"] == 1
    assert drop_in(filtered).read_text() == TEXT, "the copy is kept whole"
    again = feed(filtered)
    assert not again.changed
    assert again.feeds == done.feeds
    assert filtered.host.verify() == []


def test_so_is_one_that_covers_a_protected_address(filtered: Site) -> None:
    filtered.settings(PW_PROTECT="45.9.9.0/30 45.1.2.3", PW_PROTECT_AUTO="0")
    done = feed(filtered, f"{KEEP_BOGONS}45.1.2.0/28\n45.9.9.2\n{LISTED}\n")
    assert done.feeds.left_out == {FEED: (2, ["45.9.9.2", "45.1.2.0/28"])}
    assert filtered.verdict(NEIGHBOUR) == XDP_PASS
    assert filtered.verdict(LISTED) == XDP_DROP


def test_a_feed_may_keep_connected_networks(filtered: Site) -> None:
    filtered.settings(PW_PROTECT_AUTO="0")
    connect()
    done = feed(filtered, KEEP_BOGONS + TEXT)
    assert done.feeds.left_out == {}
    assert filtered.verdict(NEIGHBOUR) == XDP_DROP


def test_entries_of_other_owners_are_not_left_out(filtered: Site) -> None:
    connect()
    filtered.lists(deny="45.1.2.8/30", name="team")
    assert filtered.verdict(NEIGHBOUR) == XDP_DROP


def test_a_network_that_comes_later_is_left_out_by_the_next_apply(filtered: Site) -> None:
    feed(filtered)
    assert filtered.verdict(NEIGHBOUR) == XDP_DROP
    connect()
    plan = filtered.host.apply()
    assert not plan.changed, "nobody has declared anything"
    assert filtered.verdict(NEIGHBOUR) == XDP_PASS
    assert filtered.host.verify() == []


def test_verification_knows_what_was_left_out(filtered: Site) -> None:
    connect()
    feed(filtered)
    ip("address delete 45.1.2.1/24 dev pw0")
    assert filtered.host.verify() == []


@pytest.mark.slow
def test_a_boot_without_a_network_goes_by_those_of_before(filtered: Site) -> None:
    connect()
    feed(filtered)
    filtered.power_off()
    ip("address flush dev pw0")
    filtered.host.reattach("pw0")
    assert filtered.verdict(NEIGHBOUR) == XDP_PASS
    assert filtered.verdict(LISTED) == XDP_DROP
    # Networks that are no longer connected are forgotten with the next copy.
    feed(filtered, f"{TEXT}45.9.9.10\n")
    assert filtered.verdict(NEIGHBOUR) == XDP_DROP


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [b"45.9.9.9\n45.9.9\n", b"\xff\xfe\0\0", b"<html>\n", b"45.9.9.9/8\n"]
)
@pytest.mark.parametrize("way", ["apply", pytest.param("boot", marks=pytest.mark.slow)])
def test_a_damaged_feed_leaves_the_other_lists_alone(
    filtered: Site, damage: bytes, way: str
) -> None:
    feed(filtered)
    filtered.lists(deny="45.8.8.8", name="feed-y")
    drop_in(filtered).write_bytes(damage)
    if way == "boot":
        filtered.power_off()
        filtered.host.reattach("pw0")
    plan = filtered.host.apply()
    assert filtered.verdict(DENIED) == XDP_DROP
    assert filtered.verdict("45.8.8.8") == XDP_DROP
    assert filtered.verdict(LISTED) == XDP_PASS
    assert f"deny.d/{FEED}.list, line" in plan.feeds.broken[FEED]
    assert any(f"{FEED} is left out" in problem for problem in filtered.host.verify())
    filtered.lists(deny="45.7.7.7", name="team")
    assert filtered.verdict("45.7.7.7") == XDP_DROP, "others can still be changed"
    feed(filtered)
    assert filtered.verdict(LISTED) == XDP_DROP
    assert filtered.host.verify() == []


def test_the_age_of_each_copy_reaches_the_agent_and_the_report(filtered: Site) -> None:
    now = time.time()

    def fetch(text: str, when: float) -> Plan:
        note(text, when, when - 60)
        return filtered.host.apply(FeedEdit([WantedFeed("x", "deny", text, -1)]))

    def note(text: str, fetched: float, published: float | None) -> None:
        ages = Ages(filtered.paths.ages)
        copy = {"name": "x", "digest": digest_text(text), "fetched": fetched}
        state = filtered.host.store.read_current()[1]
        ages.note([copy | {"published": published}], state, now)
        ages.write()

    def noted() -> Any:
        return filtered.host.status.read().get("feeds")

    fetch(TEXT, now - 3600)
    first = {"x": {"fetched": now - 3600, "published": now - 3660}}
    assert noted() == first
    (found,) = filtered.host.info({"feeds"})["feeds"].values()
    assert 3600 <= found["age"] < 3700
    # The same copy again is not a change; the next verification notes its new time.
    assert not fetch(TEXT, now - 1800).changed
    filtered.host.verify()
    second = {"x": {"fetched": now - 1800, "published": now - 1860}}
    assert noted() == second
    # A copy that is reverted takes its time with it.
    timers = Timers(filtered)
    other = FeedEdit([WantedFeed("x", "deny", f"{LISTED}\n", -1)])
    note(f"{LISTED}\n", now, None)
    pending = timers.host.apply(other, terms=Terms(60, "", "a test")).pending
    assert pending
    assert noted() == {"x": {"fetched": now, "published": None}}
    assert timers.host.roll_back(pending.token).changed
    assert noted() == second
    filtered.host.apply(FeedEdit([]))
    assert noted() is None
    assert filtered.host.info({"feeds"})["feeds"] == {}


def note_fetched(site: Site, text: str, seconds: float, kind: str = "deny") -> None:
    """Note that a run fetched the feed's copy so many seconds ago, and that it lasts a hundred."""
    fetched = {
        "name": FEED.removeprefix("feed-"),
        "list": kind,
        "digest": digest_text(text),
        "fetched": time.time() - seconds,
        "published": None,
        "expire_after": 100.0,
    }
    ages = Ages(site.paths.ages)
    ages.note([fetched], site.host.store.read_current()[1], time.time())
    ages.write()


@pytest.mark.slow
def test_the_host_removes_a_copy_that_no_run_renews(
    filtered: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarms: list[int] = []
    monkeypatch.setattr(filtered.host._site.alarm, "set", alarms.append)
    monkeypatch.setattr(clock, "clock_synchronised", lambda: True)
    feed(filtered)
    note_fetched(filtered, TEXT, 60)
    assert filtered.host.apply().expired == ()
    assert 30 < alarms.pop() - time.time() < 50
    assert filtered.verdict(LISTED) == XDP_DROP
    note_fetched(filtered, TEXT, 200)
    monkeypatch.setattr(clock, "clock_synchronised", lambda: False)
    assert filtered.host.apply().expired == ()
    assert filtered.verdict(LISTED) == XDP_DROP, "the clock may be wrong"
    assert alarms.pop() > time.time() + 300
    monkeypatch.setattr(clock, "clock_synchronised", lambda: True)
    (text,) = filtered.host.apply().expired
    assert text.startswith("feed x: its copy is removed, because no run has renewed it since 20")
    assert alarms.pop() == 0
    assert filtered.verdict(LISTED) == XDP_PASS
    assert filtered.verdict(DENIED) == XDP_DROP
    assert not drop_in(filtered).exists()
    assert list(filtered.host.status.read()["expired_feeds"]) == ["x"]
    assert filtered.host.verify() == []
    assert "the feed x has no copy any more" in " ".join(truth.status(filtered.host)["problems"])
    assert filtered.host.apply().expired == ()
    note_fetched(filtered, TEXT, 0)
    feed(filtered)
    assert filtered.verdict(LISTED) == XDP_DROP
    assert "expired_feeds" not in filtered.host.status.read()


def test_a_copy_whose_end_would_deny_a_protected_address_stays(
    filtered: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "clock_synchronised", lambda: True)
    filtered.settings(PW_PROTECT="45.1.2.3", PW_PROTECT_AUTO="0")
    filtered.lists(allow="", deny="45.1.2.3\n", name="other", force=True)
    filtered.host.apply(set_lists(FEED, {"allow": "45.1.2.3\n"}, False))
    note_fetched(filtered, "45.1.2.3\n", 200, "allow")
    with pytest.raises(
        InvalidInput, match=r"^feed x: .*; that is refused, so they stay: .*45\.1\.2\.3"
    ):
        filtered.host.apply()
    assert filtered.verdict("45.1.2.3") == XDP_PASS
    assert "feed x" in filtered.host.status.read()["apply"]["why"]


def test_a_feed_that_is_not_confirmed_goes_with_its_exceptions(filtered: Site) -> None:
    timers = Timers(filtered)
    connect()
    feed(filtered)
    edit = FeedEdit([WantedFeed("x", "deny", f"45.1.2.64/28\n{DENIED}\n", -1)])
    pending = timers.host.apply(edit, terms=Terms(60, "", "a test")).pending
    assert pending
    assert filtered.verdict(LISTED) == XDP_PASS
    assert timers.host.roll_back(pending.token).changed
    assert filtered.verdict(LISTED) == XDP_DROP
    assert filtered.verdict(NEIGHBOUR) == XDP_PASS
    assert filtered.host.feeds().left_out == {FEED: (1, ["45.1.2.0/28"])}
    assert filtered.host.verify() == []


def test_without_feeds_nothing_is_noted(filtered: Site) -> None:
    connect()
    feed(filtered)
    assert Path(filtered.paths.spared).exists()
    filtered.host.apply(lambda state: state._replace(deny={}))
    assert not Path(filtered.paths.spared).exists()


def test_a_note_that_cannot_be_read_is_made_anew(filtered: Site) -> None:
    connect()
    feed(filtered)
    Path(filtered.paths.spared).write_text("connected 45.1.2.0/99\n")
    assert not filtered.host.apply().changed
    assert read_note(filtered.paths.spared).report.left_out == {FEED: (1, ["45.1.2.0/28"])}


def test_why_reports_to_root_that_a_feeds_entry_was_left_out(
    filtered: Site, tmp_path: Path
) -> None:
    connect()
    feed(filtered)
    note = read_note(filtered.paths.spared)
    dummy, state = filtered.host.store.read_current()
    found = why.declared(state, parse_prefix(NEIGHBOUR), Clock(1.8e9, True), note)
    assert found["verdict"] == "none"
    assert [(item["owner"], item["in_force"]) for item in found["entries"]] == [(FEED, False)]
    assert truth.status(filtered.host)["problems"] == []
    drop_in(filtered).write_text("45.9.9\n")
    filtered.host.apply()
    (problem,) = truth.status(filtered.host)["problems"]
    assert problem.startswith(f"{FEED} is left out: deny.d/{FEED}.list, line 1")


@pytest.mark.slow
def test_a_feed_as_large_as_they_come(filtered: Site) -> None:
    """56,000 prefixes and 1.8 million addresses."""
    share = 1.0 if FULL else 0.01
    random = Random(56)
    connect("45.1.2.1")
    lines = [
        f"{random.randrange(1, 224)}.{random.randrange(256)}.{i & 255}.0/24"
        for i in range(int(56_000 * share))
    ]
    lines += [
        str(IPv4Address(random.randrange(1 << 24, 224 << 24)))
        for dummy in range(int(1_800_000 * share))
    ]
    published = "# theirs\n" + "\n".join([*lines, "45.1.2.7", "45.1.0.0/16"])
    copy = read_feed(published.encode(), Format("ipset"), "x")
    assert copy.left_out.total > 100 * share
    edit = FeedEdit([WantedFeed("x", "deny", copy.text, 50)])
    plan = filtered.host.apply(edit)
    assert plan.counts["deny"] + plan.counts["left_out"] == copy.entries + 1
    assert plan.counts["left_out"] >= 2
    kept = random.sample(copy.text.split(), 200)
    for prefix in map(parse_prefix, kept):
        address = IPv4Address(prefix.value)
        expected = XDP_PASS if address in IPv4Network("45.1.2.0/24") else XDP_DROP
        assert filtered.verdict(str(address)) == expected
    assert filtered.verdict("45.1.2.7") == XDP_PASS
    assert not filtered.host.apply(edit).changed
    assert filtered.host.verify() == []


@pytest.mark.slow
def test_the_agent_asks_for_an_apply(filtered: Site, tmp_path: Path) -> None:
    feed(filtered)
    agent = AgentProcess(tmp_path / "agent", filtered.paths.bpffs, 0)
    request = agent.folder / "apply-request"
    agent.start(PW_SPARED_FILE=filtered.paths.spared)
    try:
        assert not request.exists()
        connect()
        wait(request.exists)
    finally:
        agent.stop()
