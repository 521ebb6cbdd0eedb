# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bans of the fleet in the agent: what a fleet process that was taken over can do, and what it cannot."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.fake_maps import mapped, run_maps, u32

from packetwatch_agent import settings, vetoes
from packetwatch_agent.confirmed import Confirmed
from packetwatch_agent.control import wire
from packetwatch_agent.control.follow import Follow
from packetwatch_agent.events import Event
from packetwatch_agent.fleet import MAX_ROWS, REFUSALS, Fleet
from packetwatch_agent.keeper import Keeper
from packetwatch_agent.lines import Lines
from packetwatch_agent.loop import Loop
from packetwatch_agent.output import Output
from packetwatch_agent.sightings import Sightings
from packetwatch_core._bans.bans import Ban, Bans, Source
from packetwatch_core._bans.facts import evidence_of
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.steps import finish
from packetwatch_core._kernel import abi

SECOND = 1_000_000_000


class Lab:
    """The agent's parts that have bans, on maps in memory."""

    def __init__(self, folder: Path, maps: dict[str, Any] | None = None, **values: str) -> None:
        self.maps = run_maps(bans=16384) if maps is None else maps
        self.bans = Bans(self.maps)
        self._log = folder / "log"
        # A pipe would be full after some hundred lines.
        output = Output(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "host")
        environment = {"PW_FLEET": "enforce", "PW_STATE_DIR": str(folder)} | values
        found = settings.read(environment)
        assert not found.problems
        lines = Lines("host", lambda index: "")
        self.keeper = Keeper(self.bans, str(folder), Confirmed(str(folder)), lines, output)
        self.sightings = Sightings()
        self.fleet = Fleet(self.bans, self.keeper, self.sightings, found, output)
        self.keeper.on_end = self.sightings.end

    def apply(self, ban: Sequence[Any] = (), lift: Sequence[Any] = ()) -> dict[str, Any]:
        """Send a request; return the result, with the refusals that are not 0 beside the rest."""
        request = {"command": "fleet_apply", "ban": list(ban), "lift": list(lift)}
        command = self.fleet.commands()["fleet_apply"]
        answer = command.run(json.loads(json.dumps(request)))
        assert not isinstance(answer, (dict, Follow))
        lines = [line for line in answer if line]
        result = json.loads(lines[-1])["result"]
        assert set(result["refused"]) == set(REFUSALS)
        numbers = result | result.pop("refused")
        return {name: number for name, number in numbers.items() if number}

    def listed(self, **arguments: str) -> dict[str, Any]:
        answer = self.fleet.commands()["fleet_bans"].run(arguments)
        assert not isinstance(answer, (dict, Follow))
        items = [json.loads(line).get("item") for line in answer if line]
        return {item[0]: item[1:] for item in items if item}

    def banned(self) -> dict[str, Ban]:
        return {ban.source.text: ban for ban in self.bans.active()}

    def round(self) -> None:
        self.keeper._due = self.keeper._earliest = 0.0
        finish(self.keeper.tick())

    def unban(self, address: str) -> None:
        self.fleet.unbanned(address, self.bans.lift(address))

    def written(self) -> list[dict[str, Any]]:
        """Return what was written since the last call."""
        lines = self._log.read_text().splitlines()
        os.truncate(self._log, 0)
        return [json.loads(line) for line in lines]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of bans, so that the same request has the same ends on a slow machine too."""
    now = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)


def row(number: int, seconds: float = 600, evidence: str = "manual") -> list[Any]:
    return [f"203.0.113.{number}", seconds, "e1/quorum", evidence]


def addresses(count: int, begin: int = 0) -> list[str]:
    return [
        f"198.{18 + n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(begin, begin + count)
    ]


def test_a_fleet_ban_begins_ends_and_is_logged_with_its_rule(lab: Lab) -> None:
    assert lab.apply([row(1, 60, "syn"), row(2), ["2001:db8::7", 60, "api/ban"]]) == {"banned": 3}
    found = lab.banned()
    assert [found[f"203.0.113.{n}"].flags for n in (1, 2)] == [abi.BAN_CONNECTIONS, 0]
    assert found["2001:db8::/64"].flags == abi.BAN_CONNECTIONS
    assert {ban.origin_name for ban in found.values()} == {"fleet"}
    assert [evidence_of(found[f"203.0.113.{n}"]) for n in (1, 2)] == ["syn", "manual"]
    assert lab.apply([row(3, 60, "answer")]) == {"banned": 1}
    proved = lab.banned()["203.0.113.3"]
    assert (proved.flags, evidence_of(proved)) == (abi.BAN_ANSWER, "answer")
    lab.bans.remove(proved)
    assert 59 < (found["203.0.113.1"].expires - time.monotonic_ns()) / SECOND <= 60
    lab.round()
    rules = {line["packetwatch.prefix"]: line["packetwatch.rule"] for line in lab.written()}
    assert rules == {
        "203.0.113.1/32": "e1/quorum",
        "203.0.113.2/32": "e1/quorum",
        "2001:db8::/64": "api/ban",
    }
    assert lab.apply(lift=["203.0.113.1", "203.0.113.9", "2001:db8::1"]) == {"lifted": 2}
    assert list(lab.banned()) == ["203.0.113.2"]
    lab.round()
    assert [line["event.action"] for line in lab.written()] == ["lift", "lift"]


@pytest.mark.usefixtures("frozen")
def test_the_same_again_changes_nothing_and_another_end_does(lab: Lab) -> None:
    lab.apply([row(1, 100)])
    before = lab.banned()["203.0.113.1"]
    lab.bans.put(before._replace(dropped=7))
    assert lab.apply([row(1, 100)]) == {"kept": 1}
    assert lab.apply([row(1, 300)]) == {"banned": 1}
    longer = lab.banned()["203.0.113.1"]
    assert (longer.since, longer.dropped) == (before.since, 7)
    assert lab.apply([row(1, 300, "syn")]) == {"banned": 1}
    assert lab.banned()["203.0.113.1"].flags == abi.BAN_CONNECTIONS


@pytest.mark.parametrize(
    "wrong",
    [
        *(None, 7, "203.0.113.1", [], ["203.0.113.1"], ["203.0.113.1", 60], {}),
        *(["203.0.113.0/24", 60, "r"], ["0.0.0.0/0", 60, "r"], ["::/0", 60, "r"]),
        *([7, 60, "r"], [None, 60, "r"], [["203.0.113.1"], 60, "r"], ["host", 60, "r"]),
        *(["203.0.113.1", 0, "r"], ["203.0.113.1", -1, "r"], ["203.0.113.1", None, "r"]),
        *(["203.0.113.1", "60", "r"], ["203.0.113.1", True, "r"], ["203.0.113.1", 1e300, "r"]),
        *(["203.0.113.1", 60, ""], ["203.0.113.1", 60, "a\nb"], ["203.0.113.1", 60, "r" * 131]),
        *(["203.0.113.1", 60, None], ["203.0.113.1", 60, "r", "proof"], ["\ud800", 60, "r"]),
        *(["203.0.113.1", 60, "r", None], ["203.0.113.1", 60, "r", ["syn"]]),
    ],
)
def test_a_row_that_is_no_ban_is_refused_alone(lab: Lab, wrong: Any) -> None:
    assert lab.apply([row(8), wrong, row(9)]) == {"banned": 2, "invalid": 1}
    assert set(lab.banned()) == {"203.0.113.8", "203.0.113.9"}


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_seconds_that_json_does_not_have(lab: Lab, seconds: float) -> None:
    assert lab.apply([["203.0.113.1", seconds, "r"]]) == {"invalid": 1}


@pytest.mark.parametrize(
    "arguments", [{"ban": {}}, {"lift": "203.0.113.1"}, {"ban": [row(1)] * 400, "lift": [""] * 101}]
)
def test_a_request_as_a_whole_is_bounded(lab: Lab, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="send"):
        lab.fleet.commands()["fleet_apply"].run(arguments)
    with pytest.raises(InvalidInput, match="send fleet or host"):
        lab.listed(of="others")
    assert not lab.banned()


def test_a_full_request_fits_into_a_line() -> None:
    longest = ["2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff/128", 604800.123, f"{'e' * 30}/{'r' * 20}"]
    request = {"command": "fleet_apply", "ban": [[*longest, "answer"]] * MAX_ROWS}
    assert len(wire.encode(request)) < wire.MAX_REQUEST


def test_protected_sources_are_never_banned(lab: Lab) -> None:
    lab.maps["hosts"].update(mapped("203.0.113.5"), abi.HOST.pack(origin=1))
    net = abi.NET.struct.pack(96 + 24, mapped("192.0.2.0"))
    lab.maps["nets"].update(net, u32(abi.NET_PROTECTED | abi.NET_SINGLE))
    wide = abi.NET.struct.pack(32, bytes.fromhex("20010db8") + bytes(12))
    lab.maps["nets"].update(wide, u32(abi.NET_SHARED | abi.NET_SINGLE))
    rows = [
        [address, 60, "r", "manual"]
        for address in (
            *("203.0.113.5", "192.0.2.77", "2001:db8::/64"),
            *("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::1", "ff02::1"),
        )
    ]
    assert lab.apply(rows) == {"protected": len(rows)}
    assert not lab.banned()


@pytest.mark.usefixtures("frozen")
def test_a_ban_is_never_longer_than_the_longest(tmp_path: Path) -> None:
    lab = Lab(tmp_path, PW_FLEET_LONGEST="1h")
    assert lab.apply([row(1, 3600), row(2, 1e10)]) == {"banned": 2, "shortened": 1}
    assert lab.apply([row(2, 1e10)]) == {"kept": 1, "shortened": 1}
    for ban in lab.banned().values():
        assert 0 < ban.expires <= time.monotonic_ns() + 3600 * SECOND


@pytest.mark.usefixtures("frozen")
def test_there_are_never_more_than_the_most(tmp_path: Path) -> None:
    lab = Lab(tmp_path, PW_FLEET_MOST="300")
    many = [[address, 600, "r"] for address in addresses(500)]
    assert lab.apply(many) == {"banned": 300, "quota": 200}
    # Also while a round counts them, and after it.
    for dummy in range(3):
        work = lab.keeper._round()
        next(work, None)
        assert "banned" not in lab.apply(many)
        finish(work)
        assert len(lab.banned()) == 300
    assert lab.apply(many) == {"kept": 300, "quota": 200}
    assert lab.apply(many[299:301], [many[0][0]]) == {"lifted": 1, "kept": 1, "banned": 1}
    assert lab.keeper.fleet == len(lab.banned()) == 300


@pytest.mark.usefixtures("frozen")
def test_those_that_are_made_during_a_round_are_counted(tmp_path: Path) -> None:
    lab = Lab(tmp_path, PW_FLEET_MOST="1000")
    lab.apply([[address, 600, "r"] for address in addresses(500)])
    lab.apply([[address, 600, "r"] for address in addresses(300, 500)])
    work = lab.keeper._round()
    # The first table was read up to here.
    next(work)
    more = [[address, 600, "r"] for address in addresses(500, 800)]
    assert lab.apply(more[1:], addresses(1)) == {"lifted": 1, "banned": 201, "quota": 298}
    finish(work)
    assert lab.apply(more) == {"kept": 201, "quota": 299}
    lab.round()
    assert lab.keeper.fleet == len(lab.banned()) == 1000


def test_the_count_follows_what_ends_in_whatever_way(tmp_path: Path) -> None:
    lab = Lab(tmp_path, PW_FLEET_MOST="4")
    assert lab.apply([row(1, 0.01), row(2, 0.01), row(3), row(4), row(5)]) == {
        "banned": 4,
        "quota": 1,
    }
    time.sleep(0.02)
    # An expired one that is still there is replaced, and counts once.
    assert lab.apply([row(1), row(5)]) == {"banned": 1, "quota": 1}
    lab.round()
    assert lab.keeper.fleet == len(lab.banned()) == 3
    lab.unban("203.0.113.1")
    lab.keeper.lift(lab.bans.lift("203.0.113.3")[0])
    assert lab.keeper.fleet == 1
    lab.bans.lift("203.0.113.4")
    lab.round()
    assert lab.keeper.fleet == 0


@pytest.mark.usefixtures("frozen")
def test_an_agent_that_starts_again_counts_first(lab: Lab, tmp_path: Path) -> None:
    lab.apply([[address, 600, "r"] for address in addresses(300)])
    later = Lab(tmp_path, lab.maps, PW_FLEET_MOST="301")
    loop = Loop()
    later.fleet.start(loop)
    loop.close()
    rows = [[address, 600, "r"] for address in addresses(400)]
    assert later.apply(rows) == {"kept": 300, "banned": 1, "quota": 99}


def test_a_quarter_of_the_table_is_kept_for_bans_by_hand(tmp_path: Path) -> None:
    lab = Lab(tmp_path, run_maps(bans=400))
    for address in addresses(100, 5000):
        lab.bans.add(address, None)
    lab.round()
    rows = [[address, 600, "r"] for address in addresses(400)]
    assert lab.apply(rows) == {"banned": 200, "quota": 200}
    for address in addresses(100, 6000):
        lab.bans.add(address, None)
    assert len(lab.banned()) == 400


def test_the_rate_is_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rows = [[address, 600, "r"] for address in addresses(10_000)]
    for begin in range(0, 10_000, MAX_ROWS):
        assert lab.apply(rows[begin : begin + MAX_ROWS]) == {"banned": MAX_ROWS}
    assert lab.apply(rows[:MAX_ROWS]) == {"rate": MAX_ROWS}
    now[0] += 0.1
    found = lab.apply(rows[: MAX_ROWS - 3], addresses(3))
    # On a slow machine the ends differ by more than a second.
    assert found.pop("banned") + found.pop("kept", 0) == 197
    assert found == {"lifted": 3, "rate": 300}
    now[0] += 3600
    for dummy in range(20):
        assert "rate" not in lab.apply(rows[:MAX_ROWS])
    assert lab.apply([row(1)]) == {"rate": 1}


def scan_ban(lab: Lab, number: int, table: str, flags: int = 0) -> None:
    now = time.monotonic_ns()
    value = abi.BAN.pack(
        since=now, expires=now + 60 * SECOND, origin=abi.ORIGIN_SCAN, ports=5, flags=flags
    )
    lab.maps[table].update(Source(128, mapped(f"203.0.113.{number}")).key, value)


@pytest.mark.parametrize("seconds", [600, 60, None])
def test_what_this_host_has_banned_is_neither_replaced_nor_lifted(
    lab: Lab, seconds: float | None
) -> None:
    lab.bans.add("203.0.113.1", seconds)
    lab.bans.add("2001:db8::7", seconds)
    scan_ban(lab, 2, "scan_bans")
    scan_ban(lab, 3, "bans")
    scan_ban(lab, 4, "overflow")
    before = lab.banned()
    assert lab.apply([row(1, 300), row(3, 300), ["2001:db8::8", 300, "r"]]) == {"local": 3}
    sources = [f"203.0.113.{n}" for n in (1, 2, 3, 4)]
    assert lab.apply(lift=[*sources, "2001:db8::7", "2001:db8::/64"]) == {}
    assert lab.banned() == before
    # To ban and to lift again is no way to lift either.
    assert lab.apply([row(2, 300), row(4, 300)]) == {"banned": 2}
    assert lab.apply(lift=sources) == {"lifted": 2}
    assert lab.banned() == before


def test_a_fleet_ban_pardons_nothing_that_was_counted(lab: Lab) -> None:
    key = Source(128, mapped("203.0.113.1")).key
    lab.maps["tracks2"].update(key, bytes(abi.TRACK.size))
    lab.apply([row(1)])
    lab.apply(lift=["203.0.113.1"])
    assert lab.maps["tracks2"].lookup(key) is not None


# The veto


def test_what_an_operator_unbans_stays_unbanned_until_the_fleets_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    lab.apply([row(1, 600), row(2, 600), ["2001:db8::7", 600, "r"]])
    lab.unban("203.0.113.1")
    lab.unban("2001:db8::1")
    assert list(lab.banned()) == ["203.0.113.2"]
    assert lab.apply([row(1, 600), row(2, 600), ["2001:db8::7", 9, "r"]]) == {"veto": 2, "kept": 1}
    # As long as the fleet bans it without interruption.
    now[0] += 590
    assert lab.apply([row(1, 600)]) == {"veto": 1}
    now[0] += 590
    assert lab.apply([row(1, 600)]) == {"veto": 1}
    now[0] += 601
    assert lab.apply([row(1, 600)]) == {"banned": 1}


@pytest.mark.parametrize("how", ["lift", "ban"])
def test_a_veto_ends_with_the_fleets_lift_and_with_a_ban_by_hand(lab: Lab, how: str) -> None:
    lab.apply([row(1)])
    lab.unban("203.0.113.1")
    assert lab.apply([row(1)]) == {"veto": 1}
    if how == "lift":
        assert lab.apply(lift=["203.0.113.1"]) == {}
    else:
        lab.bans.add("203.0.113.1", 60)
        lab.fleet.banned("203.0.113.1")
        lab.bans.remove(lab.banned()["203.0.113.1"])
    assert lab.apply([row(1)]) == {"banned": 1}


@pytest.mark.slow
def test_vetoes_outlast_the_agent_and_are_bounded(lab: Lab, tmp_path: Path) -> None:
    found = addresses(vetoes.MAX_VETOES + 1)
    for begin in range(0, len(found), MAX_ROWS):
        lab.apply(
            [[address, 60 + n, "r"] for n, address in enumerate(found, 0)][begin : begin + MAX_ROWS]
        )
    for address in found:
        lab.unban(address)
    later = Lab(tmp_path, lab.maps)
    rows = [[address, 3600, "r"] for address in found]
    # The one that ended first has made room.
    assert later.apply(rows[:3]) == {"banned": 1, "veto": 2}
    assert later.apply(rows[-3:]) == {"veto": 3}
    samples = later.fleet.values()["packetwatch_agent_fleet_vetoes"]
    assert samples == [({}, vetoes.MAX_VETOES)]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"x":1}', '{"203.0.113.1/32":"soon"}', '{"203.0.113.1/32":1e999}']
)
def test_damaged_vetoes_count_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / vetoes.FILE).write_text(text)
    assert Lab(tmp_path).apply([row(1)]) == {"banned": 1}


def test_a_forged_end_of_a_veto_is_bounded(tmp_path: Path) -> None:
    (tmp_path / vetoes.FILE).write_text('{"203.0.113.1/32":9e10}')
    lab = Lab(tmp_path)
    assert lab.apply([row(1)]) == {"veto": 1}
    (end,) = lab.fleet._vetoes._ends.values()
    assert end <= time.time() + 7 * 86400


# Lists and the stream


def test_fleet_bans_and_those_of_the_host_are_listed(lab: Lab) -> None:
    lab.apply([row(1, 60, "syn"), row(2, 300), ["2001:db8::7", 60, "r"]])
    lab.bans.add("203.0.113.9", None)
    for number, table in ((3, "scan_bans"), (4, "bans"), (5, "overflow")):
        scan_ban(lab, number, table)
    found = lab.listed()
    assert {name: item[1] for name, item in found.items()} == {
        "203.0.113.1": "syn",
        "203.0.113.2": "manual",
        "2001:db8::/64": "syn",
    }
    assert 299 < found["203.0.113.2"][0] <= 300
    own = lab.listed(of="host")
    assert set(own) == {"203.0.113.3", "203.0.113.4"}
    assert 59 < own["203.0.113.3"][0] <= 60


def test_a_single_address_of_a_net_of_ours_can_be_read_again(lab: Lab) -> None:
    near = abi.NET.struct.pack(64, bytes.fromhex("20010db8") + bytes(12))
    lab.maps["nets"].update(near, u32(abi.NET_SINGLE))
    lab.apply([["2001:db8::7", 60, "r"]])
    assert list(lab.listed()) == ["2001:db8::7/128"]
    assert lab.apply([["2001:db8::7/128", 60, "r"]]) == {"kept": 1}
    assert lab.apply(lift=list(lab.listed())) == {"lifted": 1}


def event(kind: int, number: int, flags: int = 0) -> Event:
    return Event(
        *(1, 1, time.monotonic_ns() + 600 * SECOND, 1, kind, 4, flags, 32),
        *(mapped(f"203.0.113.{number}"), mapped("192.0.2.1"), 999, 2222, 3, (3, 1, 2)),
    )


def test_the_stream_has_probes_bans_and_their_ends(lab: Lab) -> None:
    lines: list[str] = []
    lab.sightings.probe(event(abi.EVENT_PROBE, 1))
    answer = lab.fleet.commands()["fleet_watch"].run({})
    assert isinstance(answer, Follow) and answer.matches("")
    answer.source.tap = lines.extend
    lab.sightings.probe(event(abi.EVENT_PROBE, 1))
    lab.sightings.probe(event(abi.EVENT_PROBE, 1)._replace(dport=0))
    lab.sightings.scan(event(abi.EVENT_BAN, 2))
    lab.sightings.scan(event(abi.EVENT_BAN, 3, abi.EVENT_IN_OVERFLOW))
    lab.sightings.scan(event(abi.EVENT_BAN, 4, abi.EVENT_MONITOR))
    lab.sightings.scan(event(abi.EVENT_BAN, 8, abi.EVENT_ANSWER))
    scan_ban(lab, 2, "scan_bans")
    lab.unban("203.0.113.2")
    lab.bans.add("203.0.113.5", 0.01)
    lab.apply([row(6, 0.01)])
    time.sleep(0.02)
    lab.round()
    probe, ban, proved, *ends = map(json.loads, lines)
    assert proved["ban"][3] == "answer"
    assert probe == {"probe": ["203.0.113.1", 2222]}
    source, ports, seconds, evidence = ban["ban"]
    assert (source, ports, evidence) == ("203.0.113.2", [1, 2, 3], "syn")
    assert 599 < seconds <= 600
    # That of the fleet is no news for the fleet.
    assert ends == [{"end": ["203.0.113.2"]}, {"end": ["203.0.113.5"]}]


# Monitor mode


def test_monitor_mode_bans_nothing_and_says_what_it_would_do(tmp_path: Path) -> None:
    lab = Lab(tmp_path, PW_FLEET="monitor", PW_FLEET_MOST="2")
    lab.bans.add("203.0.113.9", 60)
    assert lab.apply([row(1), row(2), row(3), row(9)]) == {"banned": 2, "quota": 1, "local": 1}
    assert list(lab.banned()) == ["203.0.113.9"]
    (line,) = lab.written()
    assert line["packetwatch.sources"] == ["banned 203.0.113.1", "banned 203.0.113.2"]
    assert set(lab.listed()) == {"203.0.113.1", "203.0.113.2"}
    assert lab.apply([row(1)]) == {"kept": 1}
    lab.unban("203.0.113.1")
    assert lab.apply([row(1), row(3)], ["203.0.113.2"]) == {"veto": 1, "banned": 1, "lifted": 1}
    assert set(lab.listed()) == {"203.0.113.3"}


def test_a_ban_of_monitor_mode_ends_too(tmp_path: Path) -> None:
    lab = Lab(tmp_path, PW_FLEET="monitor", PW_FLEET_MOST="1")
    assert lab.apply([row(1, 0.02)]) == {"banned": 1}
    time.sleep(0.03)
    assert not lab.listed()
    assert lab.apply([row(2)]) == {"banned": 1}


def test_many_fleet_bans_do_not_keep_bans_by_hand_from_their_lines(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packetwatch_agent.keeper._MAX_FOLLOWED", 3)
    lab.apply([row(number) for number in range(1, 9)])
    lab.bans.add("203.0.113.9", 60)
    lab.round()
    logged = [line["packetwatch.origin"] for line in lab.written()]
    assert sorted(logged) == ["fleet", "fleet", "fleet", "manual"]
