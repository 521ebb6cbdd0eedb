# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""New probes: which ones the program reports, what it writes, and its limit for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from socket import AF_INET
from typing import Any

import pytest
from kernel.datapath import Datapath, listening
from kernel.packets import FIN, HOST4, ethernet, ipv4, syn4, syn6

from packetwatch_core._kernel import abi

SOURCE4, SOURCE6, SINGLE6 = "198.51.100.7", "2001:db8:7::7", "fd77::9"
OPEN = 8901
SECOND = 10**9
COUNTS = ("probes", "probes_lost", "events", "events_suppressed", "events_lost")


def probes(datapath: Datapath) -> list[dict[str, Any]]:
    """Return the reports of probes since the last call."""
    return [event for event in datapath.events() if event["type"] == abi.EVENT_PROBE]


def ports(datapath: Datapath) -> list[int]:
    return [event["dport"] for event in probes(datapath)]


def spend(datapath: Datapath, ahead: int) -> None:
    """Move the limit's next due time so many nanoseconds ahead."""
    spent = abi.SHARED.pack(probe_tat=time.monotonic_ns() + ahead)
    datapath.maps["shared"].update(bytes(4), spent)


@pytest.mark.parametrize(
    ("make", "source", "family", "plen"),
    [(syn4, SOURCE4, 4, 32), (syn6, SOURCE6, 6, 64), (syn6, SINGLE6, 6, 128)],
    ids=["ipv4", "ipv6", "single"],
)
def test_a_probe_is_reported_once_with_its_fields(
    closed: Datapath, make: Callable[..., bytes], source: str, family: int, plen: int
) -> None:
    """Alone, with a second port, and in a track; each time it is tried twice."""
    closed.policy(scan_counts="closed", scan_ports=9, log_connections="none")
    before, begun = closed.counters(), time.monotonic_ns() - SECOND
    for port in (7001, 7002, 7003, 7004):
        closed.run(make(source, port))
        closed.run(make(source, port))
        (event,) = closed.events()
        assert event["size"] == abi.EVENT_SHORT
        assert (event["type"], event["sequence"], event["flags"]) == (abi.EVENT_PROBE, 0, 0)
        assert (event["ifindex"], event["family"], event["plen"]) == (closed.ifindex, family, plen)
        assert (event["sport"], event["dport"], event["count"]) == (40000, port, 0)
        assert begun < event["time"] <= time.monotonic_ns()
        assert event["daddr"].endswith(b"\x01") and event["saddr"][-1] in (7, 9)
    for port in (7004, 7001):
        closed.run(make(source, port))
    assert probes(closed) == []
    after = closed.counters()
    assert {name: after[name] - before[name] for name in COUNTS} == dict.fromkeys(COUNTS, 0) | {
        "probes": 4
    }


def test_the_probe_that_completes_a_scan_is_reported_before_the_ban(closed: Datapath) -> None:
    closed.policy(scan_counts="closed", scan_ports=3, log_connections="none")
    closed.fates(*(syn4(SOURCE4, port) for port in (1, 2, 3, 4)))
    types = [(event["type"], event["dport"]) for event in closed.events()]
    assert types == [(abi.EVENT_PROBE, port) for port in (1, 2, 3)] + [(abi.EVENT_BAN, 3)]


def test_one_port_suffices_where_one_is_a_scan(closed: Datapath) -> None:
    closed.policy(scan_counts="closed", scan_ports=1)
    closed.run(syn4(SOURCE4, 7001))
    assert ports(closed) == [7001]


def test_a_probe_is_new_again_after_the_window(closed: Datapath) -> None:
    for count in (1, 3):
        for dummy in range(2):
            for port in range(7001, 7001 + count):
                closed.run(syn4(SOURCE4, port))
            assert ports(closed) == list(range(7001, 7001 + count))
            closed.age(61)


def test_what_is_not_a_probe_of_a_closed_port_is_not_reported(closed: Datapath) -> None:
    hidden = ethernet(0x0800, ipv4(SOURCE4, HOST4, bytes(8), fragment=1))
    with listening(AF_INET, HOST4, OPEN):
        closed.run(syn4(SOURCE4, OPEN))
        closed.run(hidden)
        assert probes(closed) == []
        # A stealth probe counts on an open port too.
        closed.run(syn4(SOURCE4, OPEN, flags=FIN))
        (event,) = probes(closed)
        assert (event["dport"], event["flags"]) == (OPEN, abi.kind_flags("stealth"))
    closed.policy(scan_counts="any")
    closed.run(syn4("198.51.100.8", 7001))
    assert probes(closed) == []


@pytest.mark.parametrize("action", ["monitor", "off"])
def test_monitor_reports_and_off_does_not(closed: Datapath, action: str) -> None:
    closed.policy(scan_counts="closed", action=action)
    closed.run(syn4(SOURCE4, 7001))
    assert ports(closed) == ([7001] if action == "monitor" else [])


def test_a_banned_source_makes_no_probes(closed: Datapath) -> None:
    closed.bans.add(SOURCE4, 60)
    closed.run(syn4(SOURCE4, 7001))
    assert probes(closed) == []


def test_probes_have_a_limit_of_their_own(closed: Datapath) -> None:
    """It is a burst of 2,000, then 200 a second."""
    closed.policy(scan_counts="closed", log_connections="none")
    before, begun = closed.counters(), time.monotonic()
    frame = syn4(SOURCE4, 7001)
    for number in range(4000):
        closed.run(frame[:26] + (0x0A000000 + number).to_bytes(4, "big") + frame[30:])
    spent = time.monotonic() - begun
    after = closed.counters()
    grown = {name: after[name] - before[name] for name in COUNTS}
    assert grown["probes"] + grown["probes_lost"] == 4000
    assert 2000 <= grown["probes"] <= 2002 + 200 * spent
    assert len(probes(closed)) == grown["probes"]
    assert (grown["events"], grown["events_suppressed"], grown["events_lost"]) == (0, 0, 0)


def test_no_limit_takes_from_the_other(closed: Datapath) -> None:
    spend(closed, 3600 * SECOND)
    closed.fates(syn4(SOURCE4, 7001), syn6(SOURCE6, 7002))
    assert [event["type"] for event in closed.events()] == [abi.EVENT_CONNECTION] * 2
    late = abi.SHARED.pack(event_tat=time.monotonic_ns() + 3600 * SECOND)
    closed.maps["shared"].update(bytes(4), late)
    closed.run(syn6(SOURCE6, 7003))
    assert [event["type"] for event in closed.events()] == [abi.EVENT_PROBE]


def test_a_full_ring_loses_probes_without_a_gap(closed: Datapath) -> None:
    closed.policy(scan_counts="closed")
    room = closed.maps["events"].info.max_entries // (abi.EVENT_SHORT + 8)
    filler = syn4("0.0.0.0", 7000)
    for number in range(room + 500):
        closed.run(filler[:26] + (0x0B000000 + number).to_bytes(4, "big") + filler[30:])
    before = closed.counters()
    spend(closed, 0)
    closed.run(syn4(SOURCE4, 7001))
    after = closed.counters()
    assert after["probes_lost"] - before["probes_lost"] == 1
    assert after["probes"] == before["probes"]
    closed.events()
