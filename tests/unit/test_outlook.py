# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent concludes from root's note, from the interfaces, and from lost events."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from unit.catalogue import CATALOGUE
from unit.fake_maps import FakeMap

from packetwatch_agent import metrics, outlook, settings
from packetwatch_agent.confirmed import Confirmed
from packetwatch_agent.counters import of_counters
from packetwatch_agent.losses import Losses
from packetwatch_agent.outlook import Outlook
from packetwatch_agent.output import Output
from packetwatch_agent.quota import Quota
from packetwatch_agent.room import of_maps
from packetwatch_core._health.problems import Facts, find
from packetwatch_core._kernel import abi, netlink
from packetwatch_core._kernel.counters import add_up

OTHERS = "the tables in the kernel are not those of confirmed state"


class Lab:
    """Confirmed state with eth0, and a note and interfaces that each test sets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "7").mkdir()
        (folder / "7/interfaces").write_text("eth0 auto\n")
        (folder / "current").symlink_to("7")
        self.folder = folder
        self.file = folder / "status.json"
        self.complaints: list[str] = []
        self.links = [netlink.Link(2, "eth0", 1, 1, "native", 12)]
        monkeypatch.setattr(netlink, "links", lambda: self.links)
        monkeypatch.setattr(outlook, "_STATISTICS", f"{folder}/{{}}-{{}}")
        self.confirmed = Confirmed(str(folder))
        self.confirmed.refresh()
        values = settings.read({"PW_STATUS_FILE": str(self.file)})
        self.outlook = Outlook(values, self.confirmed, self.complaints.append)

    def note(self, **values: Any) -> None:
        note: dict[str, Any] = {
            "number": 7,
            "interfaces": {"eth0": {"program": 12, "mode": "native", "attached": True}},
            "digest": "ab12",
            "matches": True,
            "bytes": 131072,
            "capacity": 262144,
            "counts": {"allow": 1, "deny": 5, "ranges_ipv4": 4, "ranges_ipv6": 2},
            "verified": time.time(),
            "apply": {"time": 1000.5, "success": True},
        }
        draft = self.file.with_suffix(".new")
        draft.write_text(json.dumps(note | values))
        draft.rename(self.file)

    def problems(self) -> list[str]:
        return [problem.text for problem in find(self.outlook.facts(Facts()))]

    def value(self, name: str, **labels: str) -> float | None:
        samples = {tuple(found.items()): value for found, value in self.outlook.values()[name]}
        return samples.get(tuple(labels.items()))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def test_all_that_a_note_says(lab: Lab) -> None:
    lab.note()
    assert lab.value("packetwatch_attached", interface="eth0", mode="native") == 1
    assert lab.value("packetwatch_lists_in_kernel") == 1
    assert lab.value("packetwatch_tables_used_bytes") == 131072
    assert lab.value("packetwatch_tables_capacity_bytes") == 262144
    assert lab.value("packetwatch_entries_declared", list="deny") == 5
    assert "packetwatch_entries_without_effect" not in lab.outlook.values()
    assert lab.value("packetwatch_ranges_in_kernel", family="ipv6") == 2
    assert lab.value("packetwatch_generation_info", digest="ab12") == 1
    assert lab.value("packetwatch_confirmed_state") == 7
    assert lab.value("packetwatch_apply_timestamp_seconds") == 1000.5
    assert lab.value("packetwatch_apply_success") == 1
    assert lab.problems() == []
    assert set(lab.outlook.values()) <= set(CATALOGUE)


def test_the_times_of_feeds_are_those_of_the_note(lab: Lab) -> None:
    lab.note(
        feeds={
            "drop": {"fetched": 1000.5, "published": 900},
            "tor": {"fetched": 2000, "published": None},
            "odd": "x",
        }
    )
    values = lab.outlook.values()
    assert values["packetwatch_feed_fetched_timestamp_seconds"] == [
        ({"feed": "drop"}, 1000.5),
        ({"feed": "tor"}, 2000),
    ]
    assert values["packetwatch_feed_published_timestamp_seconds"] == [({"feed": "drop"}, 900)]
    damaged: tuple[Any, ...] = ({}, [], None, 7)
    for feeds in damaged:
        lab.note(feeds=feeds)
        assert lab.outlook.values()["packetwatch_feed_fetched_timestamp_seconds"] == []


def test_next_programs_are_those_of_the_note(lab: Lab) -> None:
    lab.note(nexts={"eth0": "", "eth1": "gone", "eth2": "emptied"}, strayed=["eth2"])
    assert lab.outlook.values()["packetwatch_next_program"] == [
        ({"interface": "eth0"}, 1),
        ({"interface": "eth1"}, 0),
        ({"interface": "eth2"}, 0),
    ]
    assert lab.outlook.nexts() == {"eth0": "", "eth1": "gone"}
    text = "the next program of eth{} is not as declared: {}"
    assert lab.problems() == [text.format(1, "gone"), text.format(2, "emptied")]
    assert lab.outlook.drift() == [text.format(2, "emptied")]
    damaged: tuple[Any, ...] = ([], None, 7)
    for nexts in damaged:
        lab.note(nexts=nexts, strayed=nexts)
        assert lab.outlook.values()["packetwatch_next_program"] == []


def test_without_a_note_only_what_can_be_seen_is_reported(lab: Lab) -> None:
    text = metrics.render(CATALOGUE, lab.outlook.values())
    assert 'packetwatch_attached{interface="eth0",mode="native"} 1' in text
    assert "packetwatch_lists_in_kernel" not in text
    assert "packetwatch_apply_success" not in text
    assert lab.complaints == [] and lab.problems() == []


def test_a_foreign_program_is_not_ours(lab: Lab) -> None:
    lab.note()
    lab.links = [netlink.Link(2, "eth0", 1, 1, "generic", 13)]
    assert lab.value("packetwatch_attached", interface="eth0", mode="generic") == 0
    assert lab.problems() == ["eth0 is not filtered"]


def test_a_dispatcher_that_another_tool_has_replaced_is_read_again(lab: Lab) -> None:
    (lab.folder / "7/interfaces").write_text("eth0 dispatcher:10:pass\n")
    lab.confirmed.refresh(force=True)
    lab.note(interfaces={"eth0": {"program": 12, "mode": "dispatcher:10:pass", "attached": True}})
    assert lab.problems() == []
    lab.links = [netlink.Link(2, "eth0", 1, 1, "native", 13)]
    replaced = "another tool has replaced the dispatcher of eth0: root reads what it has now"
    assert lab.outlook.drift() == lab.problems() == [replaced]
    assert lab.value("packetwatch_attached", interface="eth0", mode="native") == 1
    lab.links = [netlink.Link(2, "eth0", 1, 1, "", 0)]
    assert lab.problems() == ["eth0 is not filtered"]


@pytest.mark.parametrize("links", [[], [netlink.Link(2, "eth0", 1, 1, "", 0)]])
def test_nothing_attached(lab: Lab, links: list[netlink.Link]) -> None:
    lab.note()
    lab.links = links
    assert lab.value("packetwatch_attached", interface="eth0", mode="none") == 0
    assert lab.problems() == ["eth0 is not filtered"]


def test_renamed_devices_that_root_has_noted(lab: Lab) -> None:
    eth0, lan0 = lab.links[0], netlink.Link(3, "lan0", 1, 1, "native", 12)
    lab.note(renamed={"lan0": "eth0"})
    lab.links = [lan0]
    assert lab.problems() == ["lan0 is filtered as eth0, which was its name before"]
    # Only an operator can declare the new name.
    assert lab.outlook.drift() == []
    lab.links = [eth0, lan0]
    taken = "lan0 is filtered but not declared: another device has its former name eth0"
    assert lab.problems() == lab.outlook.drift() == [taken]
    lab.links = [eth0, lan0._replace(xdp_mode="", xdp_program=0)]
    assert lab.problems() == []
    lab.links = [eth0]
    assert lab.problems() == []
    (lab.folder / "7/interfaces").write_text("eth0 auto\nlan0 auto\n")
    lab.confirmed.refresh(force=True)
    lab.links = [eth0, lan0]
    assert not any("lan0 is filtered" in text for text in lab.problems())


def test_other_tables_than_confirmed(lab: Lab) -> None:
    lab.note(matches=False)
    assert lab.value("packetwatch_lists_in_kernel") == 0
    assert lab.problems() == [OTHERS]


def test_while_a_change_is_pending_other_tables_are_right(lab: Lab) -> None:
    lab.note(matches=False)
    assert lab.value("packetwatch_change_pending") == 0
    (lab.folder / "8").mkdir()
    assert lab.value("packetwatch_change_pending") == 1
    assert lab.problems() == []


def test_drift_is_what_differs_and_nobody_has_declared(lab: Lab) -> None:
    lab.note()
    assert lab.outlook.drift() == []
    lab.links = [netlink.Link(2, "eth0", 1, 1, "generic", 13)]
    lab.note(matches=False)
    found = ["eth0 is not filtered", OTHERS]
    assert lab.outlook.drift() == found
    lab.note(matches=False, edited=True)
    assert lab.outlook.drift() == found[:1]
    lab.links = []
    assert lab.outlook.drift() == []
    lab.note(matches=False)
    (lab.folder / "8").mkdir()
    assert lab.outlook.drift() == []


@pytest.mark.parametrize(("target", "number"), [("6", 6), ("99", 99), ("nonsense", 0), (None, 0)])
def test_another_state_than_the_active_one_is_drift(
    lab: Lab, target: str | None, number: int
) -> None:
    lab.note()
    (lab.folder / "current").unlink()
    if target:
        (lab.folder / "current").symlink_to(target)
    lab.confirmed.refresh()
    assert not lab.confirmed.is_change_pending() or target == "6"
    drift = [] if target == "6" else [f"state 7 is active, and {number} is confirmed"]
    assert lab.outlook.drift() == drift


def test_what_root_has_repaired_is_counted(lab: Lab) -> None:
    lab.note()
    assert lab.outlook.repair() == {}
    assert lab.value("packetwatch_repairs_total", outcome="success") == 0
    assert lab.outlook.values()["packetwatch_repair_timestamp_seconds"] == []
    lab.note(heal={"time": 1000.5, "success": 2, "failure": 1, "found": ["x"], "left": []})
    assert lab.outlook.repair()["found"] == ["x"]
    assert lab.value("packetwatch_repairs_total", outcome="success") == 2
    assert lab.value("packetwatch_repairs_total", outcome="failure") == 1
    assert lab.value("packetwatch_repair_timestamp_seconds") == 1000.5


def test_a_failed_apply_and_a_verification_long_ago(lab: Lab) -> None:
    lab.note(apply={"time": 1, "success": False}, verified=time.time() - 4 * 3600)
    assert lab.value("packetwatch_apply_success") == 0
    assert lab.problems() == [
        "the last apply has failed",
        "the tables have not been verified for hours",
    ]


def test_a_new_note_is_read(lab: Lab) -> None:
    lab.note()
    assert lab.value("packetwatch_lists_in_kernel") == 1
    lab.note(matches=False)
    assert lab.value("packetwatch_lists_in_kernel") == 0
    lab.file.unlink()
    assert lab.value("packetwatch_lists_in_kernel") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "nonsense", '{"interfaces": 3, "counts": [], "apply": 1}']
)
def test_a_damaged_note_does_no_harm(lab: Lab, text: str) -> None:
    lab.file.write_text(text)
    assert lab.value("packetwatch_attached", interface="eth0", mode="native") == 1
    assert lab.problems() == []


def test_discards_of_the_card(lab: Lab) -> None:
    (lab.folder / "eth0-missed_errors").write_text("17\n")
    (lab.folder / "eth0-dropped").write_text("3\n")
    name = "packetwatch_interface_receive_discards_total"
    assert lab.value(name, interface="eth0", reason="missed") == 17
    assert lab.value(name, interface="eth0", reason="dropped") == 3
    assert lab.value(name, interface="eth0", reason="fifo") is None


def test_losses_are_logged_when_they_have_grown() -> None:
    counters: Any = FakeMap("counters")
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def set_to(suppressed: int, lost: int) -> None:
        one = abi.COUNTERS.pack(events_suppressed=suppressed, events_lost=lost)
        counters.entries[bytes(4)] = one * 2

    set_to(10, 1)
    quota = Quota()
    losses = Losses(counters, quota, Output(writer, "host"))
    losses.tick()
    with pytest.raises(BlockingIOError):
        os.read(reader, 1000)
    assert not losses.grown()
    set_to(13, 1)
    # Events that the agent itself has suppressed count too.
    quota.suppressed["scan"] += 4
    losses.tick()
    line = json.loads(os.read(reader, 1000))
    assert (line["log.level"], line["packetwatch.suppressed"], line["packetwatch.lost"]) == (
        "info",
        10,
        0,
    )
    set_to(13, 4)
    losses.tick()
    line = json.loads(os.read(reader, 1000))
    assert (line["log.level"], line["packetwatch.suppressed"], line["packetwatch.lost"]) == (
        "warn",
        0,
        6,
    )
    assert losses.grown()
    assert not losses.grown()


def test_evictions_are_estimated() -> None:
    values = of_counters(add_up(abi.COUNTERS.pack(tracks_inserted=100_000, scans=(600, 400))))
    found = of_maps({"bans": 3}, {"bans": 16384}, 7, values)
    room = {tuple(k.items()): v for k, v in found["packetwatch_map_capacity_entries"]}
    tracks = room[(("map", "tracks"),)]
    assert found["packetwatch_tracks_evicted_estimate"] == [({}, 99_000 - tracks)]
    assert found["packetwatch_map_entries"] == [({"map": "bans"}, 3), ({"map": "tracks"}, 7)]
    few = of_counters(add_up(abi.COUNTERS.pack(tracks_inserted=10)))
    assert of_maps({}, {}, None, few)["packetwatch_tracks_evicted_estimate"] == [({}, 0)]


def test_panic(lab: Lab) -> None:
    lab.note()
    assert lab.value("packetwatch_panic") == 0
    (lab.folder / "panic").touch()
    assert lab.value("packetwatch_panic") == 1
    (problem,) = lab.problems()
    assert problem.startswith("PANIC of an unknown owner since 20")
    assert problem.endswith("Z: nothing is filtered until it is lifted")


def test_entries_without_effect(lab: Lab) -> None:
    lab.note(idle={"shadowed": 3, "impossible": 0, "expired": 1})
    found = {
        reason: lab.value("packetwatch_entries_without_effect", reason=reason)
        for reason in ("shadowed", "impossible", "expired")
    }
    assert found == {"shadowed": 3, "impossible": 0, "expired": 1}
