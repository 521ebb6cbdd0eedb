# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events: the content of a record, and the program's limits."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from kernel.datapath import Datapath
from kernel.packets import HOST4, HOST6, ethernet, ipv4, syn4, syn6

from packetwatch_core._declared import edits
from packetwatch_core._kernel import abi

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
SECOND = 10**9
COUNTS = ("events", "events_suppressed", "events_lost")


def text_of(address: bytes) -> str:
    if address.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def hammer(datapath: Datapath, count: int) -> None:
    frame, run = syn4(SOURCE4, 443), datapath.run
    for _dummy in range(count):
        run(frame)


def counted(datapath: Datapath, before: dict[str, Any]) -> dict[str, int]:
    after = datapath.counters()
    return {name: after[name] - before[name] for name in COUNTS}


def test_a_connection_is_reported_with_all_its_fields(datapath: Datapath) -> None:
    begun = time.monotonic_ns() - SECOND
    datapath.fates(syn4(SOURCE4, 443), syn6(SOURCE6, 22))
    first, second = datapath.events()
    assert begun < first["time"] <= second["time"] <= time.monotonic_ns()
    assert first["size"] == second["size"] == abi.EVENT_SHORT
    for event, family, source, target, port in (
        (first, 4, SOURCE4, HOST4, 443),
        (second, 6, SOURCE6, HOST6, 22),
    ):
        assert event["type"] == abi.EVENT_CONNECTION
        assert event["ifindex"] == datapath.ifindex
        assert (event["family"], event["flags"], event["plen"]) == (family, 0, 0)
        assert (text_of(event["saddr"]), text_of(event["daddr"])) == (source, target)
        assert (event["sport"], event["dport"]) == (40000, port)
        assert (event["count"], event["listed"], event["expires"]) == (0, 0, 0)
    assert (first["sequence"], second["sequence"]) == (1, 2)


@pytest.mark.parametrize(
    ("source", "family", "plen"), [(SOURCE4, 4, 32), (SOURCE6, 6, 64), ("fd77::9", 6, 128)]
)
def test_a_ban_is_reported_with_its_ports(
    datapath: Datapath, source: str, family: int, plen: int
) -> None:
    make = syn6 if family == 6 else syn4
    datapath.fates(*(make(source, port) for port in (22, 80, 65535, 1)))
    *connections, event = datapath.events()
    assert [connection["dport"] for connection in connections] == [22, 80, 65535]
    ban = datapath.ban_of(source)
    assert ban is not None
    assert event["size"] == abi.EVENT.size
    assert (event["type"], event["flags"]) == (abi.EVENT_BAN, 0)
    assert (event["family"], event["plen"]) == (family, plen)
    assert (event["expires"], event["time"]) == (ban.expires, ban.since)
    assert (text_of(event["saddr"]), event["dport"]) == (source, 65535)
    assert (event["count"], event["listed"]) == (3, 3)
    assert sorted(event["ports"][:3]) == [22, 80, 65535]
    assert event["sequence"] == connections[-1]["sequence"] + 1


def test_sixty_four_ports_are_all_reported(datapath: Datapath) -> None:
    datapath.policy(scan_ports=64)
    ports = range(1000, 1064)
    datapath.fates(*(syn4(SOURCE4, port) for port in ports))
    event = datapath.events()[-1]
    assert (event["count"], event["listed"]) == (64, 64)
    assert sorted(event["ports"]) == list(ports)


def test_a_hidden_upper_layer_is_marked(datapath: Datapath) -> None:
    frame = ethernet(0x0800, ipv4(SOURCE4, HOST4, bytes(8), fragment=1))
    datapath.fates(*[frame] * 3)
    (event,) = datapath.events()
    assert event["flags"] == abi.EVENT_OPAQUE
    assert (event["sport"], event["dport"], event["count"]) == (0, 0, 3)


def test_each_source_has_a_limit_and_the_rest_is_counted(datapath: Datapath) -> None:
    """The limit is a burst of 200, then 100 a second."""
    before, begun = datapath.counters(), time.monotonic()
    hammer(datapath, 3000)
    spent = time.monotonic() - begun
    grown = counted(datapath, before)
    assert grown["events"] + grown["events_suppressed"] == 3000
    assert 200 <= grown["events"] <= 202 + 100 * spent
    sequence = [event["sequence"] for event in datapath.events()]
    assert sequence == list(range(1, grown["events"] + 1))
    datapath.run(syn4("198.51.100.8", 443))
    assert len(datapath.events()) == 1


def test_addresses_of_one_slash_64_share_a_limit(datapath: Datapath) -> None:
    begun = time.monotonic()
    for number in range(1000):
        datapath.run(syn6(f"2001:db8:7::{number:x}", 443))
    assert len(datapath.events()) <= 202 + 100 * (time.monotonic() - begun)


def test_all_sources_together_have_a_limit(datapath: Datapath) -> None:
    """Bans are still made and counted."""
    late = abi.SHARED.pack(event_tat=time.monotonic_ns() + 3600 * SECOND)
    datapath.maps["shared"].update(bytes(4), late)
    before = datapath.counters()
    frames = (syn4(SOURCE4, port) for port in (1, 2, 3))
    assert datapath.fates(*frames)[2] == "drop scan ipv4"
    assert counted(datapath, before) == {"events": 0, "events_suppressed": 4, "events_lost": 0}
    assert datapath.banned() == {SOURCE4}


def test_sampled_reports_one_connection_a_second(datapath: Datapath) -> None:
    datapath.policy(log_connections="sampled")
    before, begun = datapath.counters(), time.monotonic()
    hammer(datapath, 500)
    spent = time.monotonic() - begun
    grown = counted(datapath, before)
    assert grown["events"] + grown["events_suppressed"] == 500
    assert 1 <= grown["events"] <= 2 + spent


def test_none_reports_bans_only(datapath: Datapath) -> None:
    datapath.policy(log_connections="none")
    before = datapath.counters()
    datapath.fates(*(syn4(SOURCE4, port) for port in (1, 2, 3)))
    assert [event["type"] for event in datapath.events()] == [abi.EVENT_BAN]
    assert counted(datapath, before) == {"events": 1, "events_suppressed": 0, "events_lost": 0}
    assert datapath.counters()["connections"][1] - before["connections"][1] == 3


def test_events_that_find_no_room_are_counted_and_leave_a_gap(datapath: Datapath) -> None:
    count = datapath.maps["events"].info.max_entries // (abi.EVENT_SHORT + 8) + 500
    before, run = datapath.counters(), datapath.run
    frame = syn4("0.0.0.0", 443)
    for number in range(count):
        run(frame[:26] + (0x0A000000 + number).to_bytes(4, "big") + frame[30:])
    grown = counted(datapath, before)
    assert grown["events_lost"] > 0 and sum(grown.values()) == count
    assert len(datapath.events()) == grown["events"]
    run(syn4(SOURCE4, 443))
    (event,) = datapath.events()
    assert event["sequence"] == grown["events"] + grown["events_lost"] + 1


def test_scans_are_reported_when_connections_have_used_up_the_limit(datapath: Datapath) -> None:
    """Half of the burst is reserved for scans."""
    burst = 2 * SECOND
    spent = abi.SHARED.pack(event_tat=time.monotonic_ns() + burst + SECOND)
    datapath.maps["shared"].update(bytes(4), spent)
    datapath.fates(*(syn4(SOURCE4, port) for port in (1, 2, 3)))
    assert [event["type"] for event in datapath.events()] == [abi.EVENT_BAN]


def test_what_monitoring_lets_pass_is_reported_once_a_second(datapath: Datapath) -> None:
    """This holds for all packets of a denied source, not only for new connections."""
    datapath.policy(action="monitor", log_connections="none")
    datapath.lists(deny=[SOURCE4, SOURCE6])
    before, begun = datapath.counters(), time.monotonic()
    datagram = ethernet(0x0800, ipv4(SOURCE4, HOST4, bytes(8), protocol=17))
    assert datapath.fate(datagram) == "pass monitor_deny ipv4"
    hammer(datapath, 300)
    assert datapath.fate(syn6(SOURCE6, 22)) == "pass monitor_deny ipv6"
    first, *more, last = datapath.events()
    assert len(more) <= 1 + time.monotonic() - begun
    assert {event["type"] for event in (first, *more, last)} == {abi.EVENT_WOULD_DROP}
    flags = abi.EVENT_MONITOR | abi.kind_flags("udp")
    assert (first["count"], first["flags"]) == (abi.WOULD_DENY, flags)
    assert (text_of(first["saddr"]), first["sport"], first["dport"]) == (SOURCE4, 0, 0)
    assert (text_of(last["saddr"]), last["sport"], last["dport"]) == (SOURCE6, 40000, 22)
    assert counted(datapath, before)["events_suppressed"] == 0


def test_bans_that_monitoring_lets_pass_are_reported(datapath: Datapath) -> None:
    datapath.policy(action="monitor")
    datapath.bans.add(SOURCE4, 60)
    assert datapath.fate(syn4(SOURCE4, 22)) == "pass monitor_ban ipv4"
    (event,) = datapath.events()
    assert (event["type"], event["dport"]) == (abi.EVENT_WOULD_DROP, 22)
    assert abi.REASONS[event["count"]] == ("pass", "monitor_ban")


def test_enforcing_reports_no_such_event(datapath: Datapath) -> None:
    datapath.lists(deny=[SOURCE4])
    datapath.fates(syn4(SOURCE4, 22), syn4(SOURCE4, 23))
    assert datapath.events() == []


@pytest.mark.parametrize("log", abi.LOGS)
def test_metrics_do_not_depend_on_what_is_logged(datapath: Datapath, log: str) -> None:
    datapath.policy(log_connections=log)
    before = datapath.counters()
    hammer(datapath, 50)
    datapath.fates(*(syn4("198.51.100.9", port) for port in (1, 2, 3)))
    after = datapath.counters()
    assert after["connections"][1] - before["connections"][1] == 53
    assert sum(after["scans"]) - sum(before["scans"]) == 1
    assert after["bans"] - before["bans"] == 1


def test_each_interface_has_its_own_log(datapath: Datapath) -> None:
    """v0 logs all connections, other interfaces none."""
    datapath.policy(log_connections="none")
    datapath.host.apply(edits.set_policy("v0", {"PW_LOG_CONNECTIONS": "all"}, replace=True))
    datapath._forget()
    hammer(datapath, 5)
    assert len(datapath.events()) == 5
