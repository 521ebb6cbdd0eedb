# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's record of bans: expiry, manual bans, repeated offenders, protection."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from unit.fake_maps import mapped, run_maps

from packetwatch_agent import settings, witness
from packetwatch_agent.confirmed import Confirmed
from packetwatch_agent.events import Event, decode
from packetwatch_agent.guard import Guard
from packetwatch_agent.keeper import FILE, Keeper
from packetwatch_agent.lines import Lines
from packetwatch_agent.output import Output
from packetwatch_core._bans.bans import Bans, Source
from packetwatch_core._bans.facts import evidence_of
from packetwatch_core._base.address import format_prefix
from packetwatch_core._base.errors import InvalidInput, Unreadable
from packetwatch_core._base.steps import Steps, finish
from packetwatch_core._declared.store import Store
from packetwatch_core._kernel import abi, netlink
from packetwatch_core._network import protect

SECOND = 1_000_000_000


class Lab:
    """A keeper with maps in memory, and the lines it has written."""

    def __init__(self, folder: Path, policy: str = "") -> None:
        self.maps = run_maps()
        self.bans = Bans(self.maps)
        self.folder = folder
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self._reader = reader
        self.output = Output(writer, "host")
        config = folder / "config"
        for kind in ("allow", "deny", "policy"):
            (config / f"1/{kind}.d").mkdir(parents=True)
        (config / "1/policy.d/default.conf").write_text(policy)
        (config / "1/interfaces").write_text("# ours\neth0 native\n\neth1 auto # late\n")
        (config / "current").symlink_to("1")
        self.confirmed = Confirmed(str(config))
        self.confirmed.refresh()
        self.keeper = Keeper(
            self.bans, str(folder), self.confirmed, Lines("host", lambda index: ""), self.output
        )

    def written(self) -> list[dict[str, Any]]:
        try:
            data = os.read(self._reader, 1 << 20)
        except BlockingIOError:
            return []
        return [json.loads(line) for line in data.splitlines()]

    def actions(self) -> list[tuple[str, str]]:
        return [
            (line["event.action"], line["source.ip"])
            for line in self.written()
            if "event.action" in line
        ]

    def look(self) -> None:
        """Run a tick without waiting for its time."""
        self.keeper._due = self.keeper._earliest = self.keeper._save_due = 0.0
        finish(self.keeper.tick())

    def scan(self, number: int, seconds: float, table: str = "scan_bans") -> Event:
        now = time.monotonic_ns()
        expires = now + int(seconds * SECOND)
        saddr = mapped(f"203.0.113.{number}")
        ban = abi.BAN.pack(since=now, expires=expires, origin=abi.ORIGIN_SCAN, ports=5)
        self.maps[table].update(Source(128, saddr).key, ban)
        event = decode(
            abi.EVENT.pack(
                time=now, expires=expires, type=abi.EVENT_BAN, family=4, plen=32, saddr=saddr
            )
        )
        assert event is not None
        return event

    def expires(self, number: int, table: str) -> int:
        ban = self.bans.find(Source(128, mapped(f"203.0.113.{number}")), table)
        assert ban is not None
        return ban.expires


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_an_expired_ban_is_logged_and_deleted(lab: Lab) -> None:
    lab.scan(1, -1)
    lab.scan(2, 600)
    lab.look()
    assert lab.actions() == [("expiry", "203.0.113.1")]
    assert lab.keeper.expired == 1
    assert lab.keeper.active["scan"] == 1
    lab.look()
    assert lab.actions() == []


def test_short_bans_expire_without_a_line_each(lab: Lab) -> None:
    for number in range(5):
        lab.scan(number, -1, "overflow")
    lab.look()
    (line,) = lab.written()
    assert line["packetwatch.count"] == 5
    assert not lab.maps["overflow"].entries


def test_a_manual_ban_is_logged_once(lab: Lab) -> None:
    lab.bans.add("203.0.113.9", 600)
    lab.look()
    lab.look()
    assert lab.actions() == [("ban", "203.0.113.9")]
    assert lab.keeper.made["manual"] == 1


def test_a_lifted_manual_ban_is_logged(lab: Lab) -> None:
    lab.bans.add("203.0.113.9", 600)
    lab.look()
    lab.bans.lift("203.0.113.9")
    lab.look()
    assert lab.actions() == [("ban", "203.0.113.9"), ("lift", "203.0.113.9")]
    assert lab.keeper.lifted == 1


def test_the_expiry_of_a_manual_ban_is_not_a_lift(lab: Lab) -> None:
    lab.bans.add("203.0.113.9", 0.02)
    lab.look()
    time.sleep(0.03)
    lab.look()
    assert lab.actions() == [("ban", "203.0.113.9"), ("expiry", "203.0.113.9")]


def test_a_change_is_saved(lab: Lab) -> None:
    lab.look()
    assert len((lab.folder / FILE).read_text().splitlines()) == 1
    lab.scan(1, 600)
    lab.look()
    assert len((lab.folder / FILE).read_text().splitlines()) == 2
    saved = lab.keeper.saved_at
    lab.look()
    assert lab.keeper.saved_at == saved


def test_restored_bans_are_not_logged_as_new(lab: Lab, tmp_path: Path) -> None:
    lab.bans.add("203.0.113.9", 600)
    lab.keeper.save()
    (tmp_path / "after").mkdir()
    after = Lab(tmp_path / "after")
    after.maps["bans"].info.id = 99
    (after.folder / FILE).write_text((lab.folder / FILE).read_text())
    after.keeper.restore()
    after.look()
    assert after.keeper.active["manual"] == 1
    (line,) = after.written()
    assert line["packetwatch.restored"] == 1


def test_trouble_with_the_disk_is_logged_once(lab: Lab, tmp_path: Path) -> None:
    lab.keeper._path = str(tmp_path / "nowhere" / FILE)
    lab.keeper.save()
    lab.keeper.save()
    (line,) = lab.written()
    assert line["log.level"] == "warn"
    assert "not saved" in line["message"]


def test_repeaters_are_not_remembered_by_default(lab: Lab) -> None:
    for dummy in range(3):
        event = lab.scan(1, 600)
        assert lab.keeper.note(event, "eth0") == event


def test_repeaters_double_up_to_the_maximum(tmp_path: Path) -> None:
    lab = Lab(tmp_path, "PW_BAN_TIME=100\nPW_BAN_TIME_MAX=300\n")
    lab.look()
    lengths = []
    for dummy in range(4):
        event = lab.scan(1, 100)
        noted = lab.keeper.note(event, "eth0")
        lengths.append(round((noted.expires - event.time) / SECOND))
    assert lengths == [100, 200, 300, 300]
    assert lab.expires(1, "bans") == noted.expires
    assert not lab.maps["scan_bans"].entries


def test_prolonged_bans_leave_room_for_those_by_hand(tmp_path: Path) -> None:
    lab = Lab(tmp_path, "PW_BAN_TIME=100\nPW_BAN_TIME_MAX=300\n")
    lab.maps["bans"].info.max_entries = 4
    lab.look()
    for number in range(6):
        for dummy in range(2):
            lab.keeper.note(lab.scan(number, 100), "eth0")
    assert len(lab.maps["bans"].entries) == 3


def examined(lab: Lab, monkeypatch: pytest.MonkeyPatch, *connected: int) -> None:
    """Let the sources with these numbers have a connection."""
    texts = {f"203.0.113.{number}" for number in connected}
    monkeypatch.setattr(witness, "is_connected", lambda prefix: format_prefix(prefix) in texts)


@pytest.mark.parametrize("table", ["scan_bans", "overflow"])
def test_a_source_that_has_a_connection_is_banned_for_longest_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    lab = Lab(tmp_path, "PW_BAN_TIME=100\nPW_BAN_TIME_MAX=300\n")
    examined(lab, monkeypatch, 1)
    lab.look()
    proved = lab.keeper.note(lab.scan(1, 60, table), "eth0")
    other = lab.keeper.note(lab.scan(2, 60, table), "eth0")
    assert (proved.evidence, other.evidence) == ("answer", "syn")
    assert proved.expires - proved.time == 300 * SECOND
    assert other.expires - other.time == 60 * SECOND
    bans = {ban.source.text: ban for ban in lab.bans.active()}
    assert [evidence_of(bans[f"203.0.113.{number}"]) for number in (1, 2)] == ["answer", "syn"]
    assert [bans[f"203.0.113.{number}"].table for number in (1, 2)] == ["bans", table]


def test_without_a_longer_ban_only_the_evidence_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, "PW_BAN_TIME=100\n")
    examined(lab, monkeypatch, 1)
    lab.look()
    event = lab.scan(1, 100)
    before = abi.BAN.unpack(next(iter(lab.maps["scan_bans"].entries.values())))
    assert lab.keeper.note(event, "eth0") == event._replace(flags=abi.EVENT_ANSWER)
    after = abi.BAN.unpack(next(iter(lab.maps["scan_bans"].entries.values())))
    assert after == before | {"flags": abi.BAN_ANSWER}


def test_a_ban_that_has_gone_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, "PW_BAN_TIME=100\nPW_BAN_TIME_MAX=300\n")
    examined(lab, monkeypatch, 1)
    lab.look()
    event = lab.scan(1, 100)
    lab.maps["scan_bans"].entries.clear()
    assert lab.keeper.note(event, "eth0") == event
    assert lab.bans.active() == []


def test_few_bans_of_a_flood_are_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question takes 3 ms of processor time; in a second 3 of them may be asked."""
    asked: list[Any] = []
    spent = itertools.count()
    monkeypatch.setattr(witness, "is_connected", asked.append)
    monkeypatch.setattr(time, "thread_time", lambda: next(spent) * 0.003)
    now = [0.0]
    found = witness.Witness(Lab(tmp_path).output, lambda: now[0])
    event = Lab(tmp_path / "other").scan(1, 100)
    for number in range(1000):
        now[0] = number / 1000
        found.examine(event)
    assert 7 <= len(asked) <= 11


def test_connections_that_cannot_be_read_are_reported_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(dummy: object) -> bool:
        raise Unreadable("no netlink here")

    monkeypatch.setattr(witness, "is_connected", fail)
    for number in range(3):
        event = lab.scan(number, 100)
        assert lab.keeper.note(event, "eth0") == event
    messages = [line["message"] for line in lab.written() if "message" in line]
    assert messages == ["no ban has the evidence answer: no netlink here"]


def test_monitored_and_protected_sources_are_not_prolonged(tmp_path: Path) -> None:
    lab = Lab(tmp_path, "PW_BAN_TIME=100\nPW_BAN_TIME_MAX=300\n")
    for dummy in range(3):
        event = lab.scan(1, 100)._replace(flags=abi.EVENT_MONITOR)
        assert lab.keeper.note(event, "eth0") == event


def test_confirmed_state(lab: Lab) -> None:
    assert lab.confirmed.interfaces == ["eth0", "eth1"]
    assert lab.confirmed.policy("eth0").ban_time == 600


def test_confirmed_state_is_read_again_when_the_link_moves(lab: Lab) -> None:
    config = lab.folder / "config"
    (config / "2/policy.d").mkdir(parents=True)
    (config / "2/policy.d/eth0.conf").write_text("PW_BAN_TIME=60\n")
    (config / "current.new").symlink_to("2")
    (config / "current.new").rename(config / "current")
    lab.confirmed.refresh()
    assert lab.confirmed.policy("eth0").ban_time == 60
    assert lab.confirmed.policy("eth1").ban_time == 600
    assert lab.confirmed.interfaces == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("interfaces", "eth0 auto\neth1\n", r"interfaces:2: 'eth1' is not of the form NAME MODE"),
        ("interfaces", "eth0 fast\n", r"interfaces:1: mode is 'fast'"),
        ("policy.d/default.conf", "PW_BAN_TIME=soon\n", r"default\.conf:1: PW_BAN_TIME is 'soon'"),
        ("policy.d/eth0.bak", "", r"eth0\.bak would be ignored"),
    ],
)
def test_the_agent_refuses_what_root_refuses(lab: Lab, file: str, text: str, message: str) -> None:
    (lab.folder / "config/1" / file).write_text(text)
    for read in (
        lambda: lab.confirmed.refresh(force=True),
        Store(lab.confirmed._folder).read_current,
    ):
        with pytest.raises(InvalidInput, match=message):
            read()
    assert lab.confirmed.interfaces == ["eth0", "eth1"]


def network(addresses: list[netlink.Address]) -> Steps[protect.Network]:
    """Read a network with these addresses."""
    yield
    return protect.Network(addresses, [])


def guard_of(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> tuple[Guard, list[Any]]:
    addresses: list[netlink.Address] = []
    monkeypatch.setattr(protect, "read_network_in_steps", lambda: network(addresses))
    values = settings.read({"PW_PROTECT": "198.51.100.0/24"})
    return Guard(lab.maps, values, lab.output, lab.keeper.lift, lambda dummy: None), addresses


def test_a_ban_on_what_becomes_protected_is_lifted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, addresses = guard_of(lab, monkeypatch)
    guard.refresh()
    lab.scan(1, 600)
    lab.scan(2, 600)
    raw = mapped("203.0.113.1")[12:]
    addresses.append(netlink.Address(4, raw, 24, 2, 0, 0, raw))
    guard.refresh()
    assert lab.actions() == [("lift", "203.0.113.1")]
    assert mapped("203.0.113.1") in lab.maps["local"].entries
    assert guard.counts()["own address"] == 1


def test_bans_in_a_declared_prefix_are_lifted_at_the_start(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic_ns()
    source = Source(128, mapped("198.51.100.7"))
    lab.maps["bans"].update(source.key, abi.BAN.pack(since=now, origin=2))
    guard, dummy = guard_of(lab, monkeypatch)
    guard.refresh()
    assert lab.actions() == [("lift", "198.51.100.7")]


def test_what_cannot_be_read_is_logged_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, dummy = guard_of(lab, monkeypatch)

    def fail() -> protect.Network:
        raise OSError(1, "no")

    monkeypatch.setattr(protect, "read_network_in_steps", fail)
    guard.refresh()
    guard.refresh()
    (line,) = lab.written()
    assert "not current" in line["message"]
