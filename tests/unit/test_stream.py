# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From records to log lines: batches, events that are not logged, episodes."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.fake_maps import mapped
from unit.fake_ring import Memory

from packetwatch_agent.confirmed import Confirmed
from packetwatch_agent.control.talkers import Talkers
from packetwatch_agent.episodes import Episodes
from packetwatch_agent.events import Event, decode
from packetwatch_agent.lines import Lines
from packetwatch_agent.loop import BUSY, IDLE
from packetwatch_agent.output import Output
from packetwatch_agent.quota import BURST, INTERVAL, Quota
from packetwatch_agent.stream import Stream
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.ring import RingBuffer

SECOND = 10**9
V6 = bytes.fromhex("20010db8000700000000000000000007")


class Lab:
    """A stream from a ring in memory to a pipe."""

    def __init__(self, folder: Path) -> None:
        (folder / "1/policy.d").mkdir(parents=True)
        (folder / "1/policy.d/default.conf").write_text("PW_SCAN_WINDOW=60\n")
        (folder / "1/policy.d/quiet.conf").write_text("PW_LOG_CONNECTIONS=none\n")
        (folder / "current").symlink_to("1")
        confirmed = Confirmed(str(folder))
        confirmed.refresh()
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.memory = Memory()
        names = {2: "eth0", 3: "quiet"}
        self.bans: list[Event] = []
        self.lines = Lines("host", names.__getitem__, with_community_id=True)
        self.quota = Quota()
        self.episodes = Episodes(self.lines, confirmed, names.__getitem__, self.quota)
        self.stream = Stream(
            RingBuffer(self.memory),  # type: ignore[arg-type]
            self.lines,
            Output(writer, "host"),
            self.episodes,
            Talkers(),
            self.quota,
            self._on_ban,
            lambda index: confirmed.policy(names[index]).log_connections != "none",
        )
        self.now = time.monotonic_ns()

    def _on_ban(self, event: Event) -> Event:
        self.bans.append(event)
        return event

    def add(self, **values: Any) -> None:
        fields: dict[str, Any] = {
            "time": self.now,
            "sequence": 1,
            "ifindex": 2,
            "type": abi.EVENT_CONNECTION,
            "family": 4,
            "saddr": mapped("203.0.113.7"),
            "daddr": mapped("192.0.2.1"),
            "sport": 40000,
            "dport": 443,
        }
        record = abi.EVENT.pack(**(fields | values))
        is_short = values.get("type") != abi.EVENT_BAN
        self.memory.add(record[: abi.EVENT_SHORT] if is_short else record)

    def scan(self, *ports: int, after: float = 0, **values: Any) -> None:
        self.now += int(after * SECOND)
        count = len(ports)
        fields = {"plen": 32, "flags": abi.EVENT_MONITOR, "count": count, "listed": count}
        self.add(**(fields | values), type=abi.EVENT_BAN, ports=ports)

    def would_drop(self, after: float = 0, **values: Any) -> None:
        self.now += int(after * SECOND)
        fields = {"type": abi.EVENT_WOULD_DROP, "flags": abi.EVENT_MONITOR}
        self.add(**(fields | {"count": abi.WOULD_DENY} | values))

    def written(self) -> list[dict[str, Any]]:
        while self.stream.poll() != IDLE:
            pass
        try:
            data = os.read(self._reader, 1 << 20)
        except BlockingIOError:
            return []
        return [json.loads(line) for line in data.splitlines()]

    def ended(self, after: float | None) -> list[dict[str, Any]]:
        now = None if after is None else self.now + int(after * SECOND)
        return [json.loads(line) for line in self.episodes.end(now)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.memory.close()


def test_a_logged_probe_has_what_a_replay_needs(lab: Lab) -> None:
    lab.stream.consume(abi.EVENT_PROBE, lab.stream.log_probe)
    lab.add(dport=22)
    udp = abi.kind_flags("udp")
    lab.add(type=abi.EVENT_PROBE, sequence=0, plen=32, dport=22)
    lab.add(type=abi.EVENT_PROBE, sequence=0, plen=64, family=6, saddr=V6, daddr=V6, flags=udp)
    connection, first, second = lab.written()
    assert connection["event.action"] == "connection"
    assert first["@timestamp"] == connection["@timestamp"]
    assert first["event.action"] == "probe" and "event.sequence" not in first
    assert (first["source.ip"], first["destination.ip"]) == ("203.0.113.7", "192.0.2.1")
    assert (first["destination.port"], first["network.transport"]) == (22, "tcp")
    assert (first["packetwatch.prefix"], first["packetwatch.kind"]) == ("203.0.113.7/32", "syn")
    assert first["observer.ingress.interface.name"] == "eth0"
    assert (second["packetwatch.kind"], second["network.transport"]) == ("udp", "udp")
    assert second["packetwatch.prefix"].endswith("::/64")


def test_a_batch_of_connections(lab: Lab) -> None:
    for number in range(5):
        lab.add(sequence=number, time=lab.now + number * SECOND)
    lab.add(sequence=5, family=6, saddr=V6, daddr=V6, time=lab.now)
    assert lab.stream.poll() == BUSY
    lines = lab.written()
    assert [line["event.sequence"] for line in lines] == list(range(6))
    assert lines[0] == {
        "@timestamp": lines[0]["@timestamp"],
        "ecs.version": "8.17.0",
        "event.action": "connection",
        "event.kind": "event",
        "event.category": ["network"],
        "event.type": ["connection", "start"],
        "event.sequence": 0,
        "source.ip": "203.0.113.7",
        "source.port": 40000,
        "destination.ip": "192.0.2.1",
        "destination.port": 443,
        "network.community_id": lines[0]["network.community_id"],
        "network.type": "ipv4",
        "network.transport": "tcp",
        "host.name": "host",
        "observer.ingress.interface.name": "eth0",
    }
    seconds = [int(line["@timestamp"][17:19]) for line in lines]
    assert [(after - seconds[0]) % 60 for after in seconds] == [0, 1, 2, 3, 4, 0]
    assert (lines[5]["source.ip"], lines[5]["network.type"]) == ("2001:db8:7::7", "ipv6")


def test_a_batch_says_what_a_single_line_says(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.lines, "set_clock", lambda: None)
    for values in ({}, {"family": 6, "saddr": V6}, {"saddr": mapped("10.1.2.3"), "sport": 7}):
        lab.add(**values)
        (fast,) = lab.written()
        # Unusual records are written one by one.
        lab.add(**values, flags=1 << 7)
        (slow,) = lab.written()
        assert fast == slow


def test_an_ipv4_mapped_source_of_an_ipv6_packet_is_not_an_ipv4_address(lab: Lab) -> None:
    lab.add()
    lab.add(family=6)
    assert [line["source.ip"] for line in lab.written()] == ["203.0.113.7", "::ffff:203.0.113.7"]


def test_none_is_counted_and_not_written(lab: Lab) -> None:
    for ifindex in (3, 2, 3, 3):
        lab.add(ifindex=ifindex)
    assert [line["observer.ingress.interface.name"] for line in lab.written()] == ["eth0"]
    assert lab.stream.records["connection"] == 4


def test_foreign_records_among_others(lab: Lab) -> None:
    lab.add()
    lab.add(type=77)
    lab.add(family=5)
    lab.memory.add(b"short")
    lab.scan(1, 2, 3, plen=33)
    lab.add()
    assert len(lab.written()) == 2
    lab.add(type=abi.EVENT_PROBE, plen=33)
    assert lab.written() == []
    expected = {"connection": 2, "scan": 0, "would_drop": 0, "probe": 0, "unknown": 5}
    assert lab.stream.records == expected


@pytest.mark.parametrize("odd", [False, True])
def test_probes_are_handed_over_and_not_logged(lab: Lab, odd: bool) -> None:
    """Among connections they are picked out of a run; beside unusual records they are read one by one."""
    probes: list[Event] = []
    lab.stream.consume(abi.EVENT_PROBE, probes.append)
    for number in range(10):
        lab.add(sequence=number)
        fields = {"plen": 32} if number % 2 else {"plen": 64, "family": 6, "saddr": V6}
        lab.add(type=abi.EVENT_PROBE, sequence=0, dport=number, **fields)
    if odd:
        lab.add(sequence=10, flags=1 << 7)
    assert len(lab.written()) == 10 + odd
    assert lab.stream.records["probe"] == 10
    assert sorted(event.dport for event in probes) == list(range(10))
    sources = {event.source.text for event in probes}
    assert sources == {"203.0.113.7", "2001:db8:7::/64"}


def test_probes_that_nobody_asks_for_are_counted(lab: Lab) -> None:
    lab.add(type=abi.EVENT_PROBE, plen=32)
    assert lab.written() == []
    assert lab.stream.records["probe"] == 1


def test_scans_are_handed_over_after_they_were_judged(lab: Lab) -> None:
    scans: list[Event] = []
    lab.stream.consume(abi.EVENT_BAN, scans.append)
    lab.scan(1, 2, 3, flags=0)
    lab.scan(4, 5, 6)
    lab.written()
    assert [(event.banned, event.ports) for event in scans] == [
        (True, (1, 2, 3)),
        (False, (4, 5, 6)),
    ]
    assert len(lab.bans) == 1


def test_a_ban_is_logged_each_time(lab: Lab) -> None:
    for dummy in range(2):
        lab.scan(21, 22, 23, flags=0)
    assert [line["event.action"] for line in lab.written()] == ["ban", "ban"]
    assert len(lab.bans) == 2
    assert lab.ended(None) == []


def test_no_line_of_a_long_batch_is_written_twice(lab: Lab) -> None:
    """Short records whose lines are more than are kept in memory."""
    for number in range(300):
        lab.would_drop(sequence=number, saddr=mapped(f"10.0.{number // 256}.{number % 256}"))
    assert [line["event.sequence"] for line in lab.written()] == list(range(300))


def test_an_episode_is_logged_at_its_beginning_and_at_its_end(lab: Lab) -> None:
    lab.scan(21, 22, 23)
    for port in range(100, 140):
        lab.scan(port, port + 1, 23, after=30)
    (begin,) = lab.written()
    assert (begin["event.action"], begin["event.kind"]) == ("scan", "alert")
    assert begin["packetwatch.ports"] == [21, 22, 23]
    assert lab.ended(59) == []
    (end,) = lab.ended(60)
    assert (end["event.action"], end["event.kind"]) == ("scan_end", "event")
    assert end["packetwatch.events"] == 41
    assert end["packetwatch.ports_count"] == 41 * 3
    assert end["packetwatch.ports"] == [21, 22, 23, *range(100, 141)]
    assert end["event.duration"] == 40 * 30 * SECOND
    assert (end["source.ip"], end["packetwatch.reason"]) == ("203.0.113.7", "monitor")
    assert lab.ended(None) == []


def test_an_episode_of_one_event_has_no_end_line(lab: Lab) -> None:
    lab.scan(1, 2, 3)
    assert len(lab.written()) == 1
    assert lab.ended(60) == []


def test_after_a_pause_it_is_another_episode(lab: Lab) -> None:
    lab.scan(1, 2, 3)
    lab.scan(4, 5, 6, after=1)
    lab.scan(7, 8, 9, after=61)
    assert [line["event.action"] for line in lab.written()] == ["scan", "scan_end", "scan"]
    assert lab.episodes.begun["scan"] == 2


def test_sources_and_reasons_have_episodes_of_their_own(lab: Lab) -> None:
    lab.scan(1, 2, 3)
    lab.scan(1, 2, 3, flags=abi.EVENT_PROTECTED)
    lab.scan(1, 2, 3, saddr=mapped("203.0.113.8"))
    lab.scan(1, 2, 3, family=6, saddr=V6, plen=64)
    lab.scan(1, 2, 3, family=6, saddr=V6[:15] + b"\x99", plen=64)
    assert len(lab.written()) == 4


def test_an_endless_episode_is_logged_hourly(lab: Lab) -> None:
    for dummy in range(125):
        lab.scan(1, 2, 3, after=59)
    actions = [line["event.action"] for line in lab.written()]
    assert actions == ["scan", "scan_end", "scan", "scan_end", "scan"]


def test_more_episodes_than_are_followed(lab: Lab) -> None:
    for number in range(3000):
        source = mapped("10.0.0.0")[:12] + (0x0A000000 + number).to_bytes(4, "big")
        event = decode(
            abi.EVENT.pack(
                time=lab.now,
                ifindex=2,
                type=abi.EVENT_BAN,
                family=4,
                flags=abi.EVENT_MONITOR,
                plen=32,
                saddr=source,
                count=3,
                listed=3,
                ports=(1, 2, 3),
            )
        )
        assert event is not None
        for dummy in range(2):
            lab.episodes.note(event)
        lab.now += INTERVAL
    assert len(lab.episodes._open) <= 1024
    assert lab.episodes.begun["scan"] == 3000


def test_what_would_be_dropped_is_an_episode_too(lab: Lab) -> None:
    for dummy in range(10):
        lab.would_drop(after=1)
    lab.would_drop(count=abi.WOULD_DENY + 1)
    lab.would_drop(count=abi.WOULD_BOGUS)
    denied, banned, bogus = lab.written()
    assert (denied["event.action"], denied["packetwatch.reason"]) == ("would_drop", "deny")
    assert denied["event.type"] == ["allowed"]
    assert denied["destination.port"] == 443
    assert banned["packetwatch.reason"] == "ban"
    assert bogus["packetwatch.reason"] == "bogus" and bogus["source.ip"]
    (end,) = lab.ended(60)
    assert (end["event.action"], end["packetwatch.events"]) == ("would_drop_end", 10)
    assert lab.stream.records["would_drop"] == 12


FLAGS = {"ban": abi.EVENT_IN_OVERFLOW, "scan": abi.EVENT_MONITOR}


def flood(lab: Lab, numbers: range, flags: int | None) -> int:
    """Return the lines for scans with these flags, or for packets that would be dropped; each has its own source."""
    lines = 0
    for number in numbers:
        source = mapped(f"10.0.{number // 256}.{number % 256}")
        if flags is None:
            lab.would_drop(saddr=source)
        else:
            lab.scan(1, 2, 3, flags=flags, saddr=source)
        # The test's ring is small.
        if number % 50 == 49:
            lines += len(lab.written())
    return lines


@pytest.mark.parametrize("kind", ["ban", "scan", "would_drop"])
def test_of_a_kind_a_thousand_lines_at_once_and_then_a_hundred_a_second(
    lab: Lab, kind: str
) -> None:
    assert flood(lab, range(1200), FLAGS.get(kind)) == BURST
    assert lab.quota.suppressed[kind] == 200
    lab.now += SECOND
    assert flood(lab, range(1200, 1350), FLAGS.get(kind)) == 100
    assert lab.quota.suppressed == {"ban": 0, "scan": 0, "would_drop": 0} | {kind: 250}
    assert len(lab.bans) == (1350 if kind == "ban" else 0)


def test_bans_of_the_table_are_all_logged(lab: Lab) -> None:
    assert flood(lab, range(BURST + 100), 0) == BURST + 100


def test_tags_hide_everything_but_the_interface(lab: Lab) -> None:
    for dummy in range(3):
        lab.would_drop(
            after=1, count=abi.WOULD_VLAN, saddr=bytes(16), daddr=bytes(16), sport=0, dport=0
        )
    (line,) = lab.written()
    (end,) = lab.ended(60)
    assert (line["event.action"], end["event.action"]) == ("would_drop", "would_drop_end")
    assert end["packetwatch.events"] == 3
    for found in (line, end):
        assert found["packetwatch.reason"] == "vlan"
        assert found["observer.ingress.interface.name"] == "eth0"
        assert not [name for name in found if name.startswith(("source", "destination", "network"))]


def test_what_would_be_dropped_may_be_no_tcp(lab: Lab) -> None:
    lab.would_drop(sport=0, dport=0)
    (line,) = lab.written()
    assert "network.transport" not in line
    assert "network.community_id" not in line
    assert "destination.port" not in line
