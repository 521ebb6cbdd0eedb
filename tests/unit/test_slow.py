# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Slow scans: what is counted of a source over hours, and in how much memory."""

from __future__ import annotations

import os
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from unit.fake_maps import mapped

from packetwatch_agent.confirmed import Confirmed
from packetwatch_agent.events import Event
from packetwatch_agent.output import Output
from packetwatch_agent.probes import FIRSTS, TRACKS, Probes, slot_of
from packetwatch_agent.slow import Slow
from packetwatch_core._base.errors import TooLarge
from packetwatch_core._kernel import abi

SECOND = 10**9
DAY = 86400
BEGIN = 1000


def key(number: int) -> bytes:
    return abi.SOURCE.struct.pack(128, (0xFFFF << 32 | number).to_bytes(16, "big"))


def test_distinct_probes_are_counted_in_a_sliding_window() -> None:
    """Compare with a plain list of all probes, for sources that probe a few ports again and again."""
    probes, choice, window = Probes(), random.Random(1), 100
    history: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for time in range(BEGIN, BEGIN + 3000):
        source, port = choice.randrange(20), choice.randrange(12)
        history[source].append((time, port))
        wanted = {port for seen, port in history[source] if seen >= time - window}
        found = probes.add(key(source), slot_of(time, port), window)
        assert {slot & 0xFFFF for slot in found} == wanted
        assert len(found) == len(wanted)
    assert probes.evicted == 0


def test_it_counts_soon_after_a_boot_too() -> None:
    """The window begins before the clock does."""
    probes = Probes()
    assert [len(probes.add(key(1), slot_of(5, port), DAY)) for port in (1, 1, 2, 3)] == [1, 1, 2, 3]


def test_a_source_that_is_forgotten_begins_again() -> None:
    probes = Probes()
    for count in (1, 5):
        for port in range(count):
            probes.add(key(1), slot_of(BEGIN, port), DAY)
        probes.forget(key(1))
        assert (probes.firsts, probes.tracks) == (0, 0)
        assert len(probes.add(key(1), slot_of(BEGIN, 99), DAY)) == 1
        probes.forget(key(1))


def test_sources_with_one_probe_evict_no_track() -> None:
    probes = Probes(firsts=64, tracks=8)
    for port in range(3):
        probes.add(key(1), slot_of(BEGIN, port), DAY)
    for number in range(2, 1002):
        probes.add(key(number), slot_of(BEGIN + number, 22), DAY)
    assert (probes.firsts, probes.tracks) == (64, 1)
    assert probes.evicted == 1000 - 64
    assert len(probes.add(key(1), slot_of(BEGIN + 2000, 99), DAY)) == 4


def test_the_track_that_has_paused_for_longest_is_evicted_and_counted() -> None:
    probes = Probes(firsts=64, tracks=2)
    for time, number in enumerate([1, 1, 2, 2, 1, 3, 3]):
        found = probes.add(key(number), slot_of(BEGIN + time, time), 100)
    assert (len(found), probes.tracks, probes.evicted) == (2, 2, 1)
    assert len(probes.add(key(1), slot_of(BEGIN + 10, 99), 100)) == 4
    # Those that are older than the window are not counted as evicted.
    for number in (4, 4, 5, 5):
        probes.add(key(number), slot_of(BEGIN + 500 + number, random.randrange(1000)), 100)
    assert probes.evicted == 1


def test_memory_is_bounded() -> None:
    """Full tables have the size that the docs state, with the default of 20 ports for each track."""
    probes = Probes()
    for port in range(19):
        for number in range(TRACKS):
            probes.add(key(number), slot_of(BEGIN, port), DAY)
    for number in range(2 * FIRSTS):
        probes.add(key(1 << 20 | number), slot_of(BEGIN, 1), DAY)
    assert probes.firsts > FIRSTS * 0.97 and probes.tracks == TRACKS
    tracks = probes._tracks
    parts = [probes._hashes, probes._slots, tracks, *tracks, *tracks.values()]
    assert sum(map(sys.getsizeof, parts)) < 1_300_000


class Lab:
    """The part with a policy, and what it asks for."""

    def __init__(self, folder: Path, policy: str) -> None:
        (folder / "1/policy.d").mkdir(parents=True)
        (folder / "1/policy.d/default.conf").write_text(policy)
        (folder / "1/policy.d/eth1.conf").write_text("PW_SLOW_SCAN_PORTS=0\n")
        (folder / "current").symlink_to("1")
        confirmed = Confirmed(str(folder))
        confirmed.refresh()
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self.reported: list[Event] = []
        self.is_banned = False
        self.refusals: list[Exception] = []
        output = Output(writer, "host")
        names = {2: "eth0", 3: "eth1"}.__getitem__
        self.slow = Slow(confirmed, names, self._impose, self.reported.append, output)

    def _impose(self, scan: Event, interface: str) -> Event | None:
        assert interface == "eth0"
        for refusal in self.refusals:
            raise refusal
        return None if self.is_banned else scan._replace(expires=7)

    def probe(self, port: int, second: int = 0, **values: Any) -> None:
        self.slow.probe(self.event(port, second, **values))

    def event(self, port: int, second: int = 0, **values: Any) -> Event:
        fields: dict[str, Any] = {
            "time": (BEGIN + second) * SECOND,
            "sequence": 0,
            "expires": 0,
            "ifindex": 2,
            "type": abi.EVENT_PROBE,
            "family": 4,
            "flags": 0,
            "plen": 32,
            "saddr": mapped("203.0.113.7"),
            "daddr": mapped("192.0.2.1"),
            "sport": 40000,
            "dport": port,
            "distinct": 0,
        }
        return Event(**(fields | values))

    def said(self) -> str:
        try:
            return os.read(self._reader, 1 << 16).decode()
        except BlockingIOError:
            return ""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, "PW_SLOW_SCAN_PORTS=4\nPW_SLOW_SCAN_WINDOW=100\n")


def test_the_last_probe_completes_a_scan_with_all_ports(lab: Lab) -> None:
    for second, port in ((0, 22), (30, 23), (60, 22), (90, 80)):
        lab.probe(port, second)
    assert lab.reported == []
    lab.probe(21, 100, sport=5)
    (scan,) = lab.reported
    assert (scan.type, scan.kind, scan.sequence) == (abi.EVENT_BAN, "slow", 0)
    assert (scan.ports, scan.distinct) == ((21, 22, 23, 80), 4)
    assert (scan.sport, scan.dport, scan.expires) == (5, 21, 7)
    assert scan.banned
    values = lab.slow.values()
    assert values["packetwatch_scans_total"] == [({"kind": "slow"}, 1)]
    # Its count begins again.
    lab.probe(99, 101)
    assert len(lab.reported) == 1


def test_probes_that_are_too_far_apart_are_no_scan(lab: Lab) -> None:
    for number in range(20):
        lab.probe(number, 34 * number)
    assert lab.reported == []


def test_one_port_of_several_addresses_counts_for_each(lab: Lab) -> None:
    for number in range(4):
        lab.probe(22, number, daddr=mapped(f"192.0.2.{number}"))
    (scan,) = lab.reported
    assert (scan.distinct, scan.ports) == (4, (22,))


def test_a_port_of_another_protocol_is_another_probe(lab: Lab) -> None:
    for kind in ("syn", "stealth", "ack", "udp", "sctp"):
        assert lab.reported == []
        lab.probe(53, flags=abi.kind_flags(kind))
    lab.probe(54)
    (scan,) = lab.reported
    assert (scan.distinct, scan.ports) == (4, (53, 54))


def test_a_slash_64_is_one_source(lab: Lab) -> None:
    for number in range(4):
        source = bytes.fromhex("20010db8000700000000000000000000")[:15] + bytes([number])
        lab.probe(number, number, family=6, plen=64, saddr=source)
    (scan,) = lab.reported
    assert scan.source.text == "2001:db8:7::/64"


def test_zero_ports_switch_it_off(lab: Lab) -> None:
    for number in range(100):
        lab.probe(number, ifindex=3)
    assert lab.reported == []


def test_a_scan_or_a_pardon_ends_the_count(lab: Lab) -> None:
    for end in (lab.slow.scan, lambda event: lab.slow.forget(event.source)):
        for port in (1, 2, 3):
            lab.probe(port)
        end(lab.event(1))
        lab.probe(4)
        assert lab.reported == []
        lab.slow.forget(lab.event(1).source)


def test_a_source_that_is_banned_already_is_not_reported(lab: Lab) -> None:
    lab.is_banned = True
    for number in range(4):
        lab.probe(number)
    assert lab.reported == []
    assert lab.slow.values()["packetwatch_scans_total"] == [({"kind": "slow"}, 0)]


def test_a_ban_without_room_is_logged_once(lab: Lab) -> None:
    lab.refusals = [TooLarge("there is no room")]
    for number in range(8):
        lab.probe(number)
    assert lab.said().count("a slow scan leads to no ban: there is no room") == 1
