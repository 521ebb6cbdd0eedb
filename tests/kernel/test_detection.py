# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which sources are banned, when, and for how long; two processors at once; more bans than fit."""

from __future__ import annotations

import random
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from kernel.datapath import Datapath, Runner, difference, in_step
from kernel.hosting import FULL, ip
from kernel.packets import (
    ACK,
    FIN,
    HOST4,
    HOST6,
    MORE_FRAGMENTS,
    PUSH,
    RST,
    SYN,
    ethernet,
    ipv4,
    syn4,
    syn6,
    tcp,
    udp4,
    udp6,
)

from packetwatch_core._bans.bans import Source
from packetwatch_core._base.address import mapped, parse_prefix
from packetwatch_core._declared import edits
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.first_ports import address_hash

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
PASSES4, PASSES6 = "pass unlisted ipv4", "pass unlisted ipv6"
SCAN4, SCAN6 = "drop scan ipv4", "drop scan ipv6"
BAN4, BAN6 = "drop ban ipv4", "drop ban ipv6"
WINDOW = 60
ROUNDS = 10_000 if FULL else 3_000
RING = 16384


def scan(datapath: Datapath, source: str, ports: Sequence[int] = (1, 2, 3)) -> list[str]:
    make = syn6 if ":" in source else syn4
    return [datapath.fate(make(source, port)) for port in ports]


def change_ban(datapath: Datapath, address: str, **values: Any) -> None:
    """Write other values into the scan ban of an address."""
    source = datapath.bans.source_of(address)
    before = abi.BAN.unpack(datapath.maps["scan_bans"].lookup(source.key) or b"")
    datapath.maps["scan_bans"].update(source.key, abi.BAN.pack(**before | values))


def change_shared(datapath: Datapath, **values: int) -> None:
    before = abi.SHARED.unpack(datapath.maps["shared"].lookup(bytes(4)) or b"")
    datapath.maps["shared"].update(bytes(4), abi.SHARED.pack(**before | values))


# With 3 ports of any kind in the window


def test_the_third_port_and_all_later_syns_are_dropped(datapath: Datapath) -> None:
    assert scan(datapath, SOURCE4, range(1, 40)) == [PASSES4, PASSES4, SCAN4, *[BAN4] * 36]
    assert scan(datapath, SOURCE6, range(1, 40)) == [PASSES6, PASSES6, SCAN6, *[BAN6] * 36]
    assert datapath.banned() == {SOURCE4, "2001:db8:7::/64"}


def test_hammering_one_port_is_allowed(datapath: Datapath) -> None:
    assert set(scan(datapath, SOURCE4, [443] * 300)) == {PASSES4}
    assert set(scan(datapath, SOURCE4, [443, 80] * 100)) == {PASSES4}


@pytest.mark.slow
def test_a_slow_scan_outside_the_window_is_allowed(datapath: Datapath) -> None:
    datapath.policy(scan_window=0.2)
    for port in range(1, 7):
        assert scan(datapath, SOURCE4, [port]) == [PASSES4]
        time.sleep(0.12)


def test_own_addresses_are_never_banned_when_protected(datapath: Datapath) -> None:
    datapath.protect(auto=True)
    assert scan(datapath, HOST4, range(1, 10))[2::3] == ["pass protected ipv4"] * 3
    assert scan(datapath, HOST6, range(1, 10))[2::3] == ["pass protected ipv6"] * 3
    assert not datapath.banned()


def test_own_addresses_are_banned_when_not_protected(datapath: Datapath) -> None:
    assert scan(datapath, HOST4)[2] == SCAN4
    assert scan(datapath, HOST6)[2] == SCAN6
    assert datapath.banned() == {HOST4, HOST6}


@pytest.mark.parametrize(
    "flags", [SYN | ACK, ACK, RST, RST | ACK, FIN | RST, FIN | ACK, PUSH | ACK]
)
def test_answers_and_later_segments_do_not_count(datapath: Datapath, flags: int) -> None:
    frames = [syn4(SOURCE4, port, flags=flags) for port in range(1, 20)]
    frames += [syn6(SOURCE6, port, flags=flags) for port in range(1, 20)]
    assert set(datapath.fates(*frames)) == {PASSES4, PASSES6}
    assert not datapath.maps["tracks2"].items()


@pytest.mark.parametrize("flags", [SYN | PUSH, SYN | FIN, SYN | RST, SYN | 0xC0])
def test_syns_with_other_flags_count(datapath: Datapath, flags: int) -> None:
    frames = [syn4(SOURCE4, port, flags=flags) for port in (1, 2, 3)]
    assert datapath.fates(*frames) == [PASSES4, PASSES4, SCAN4]


def test_port_zero_is_a_port(datapath: Datapath) -> None:
    assert scan(datapath, SOURCE4, (0, 0, 65535, 1)) == [PASSES4, PASSES4, PASSES4, SCAN4]


@pytest.mark.parametrize("threshold", [1, 2, 5, 63, 64])
def test_the_ban_comes_exactly_at_the_threshold(datapath: Datapath, threshold: int) -> None:
    datapath.policy(scan_ports=threshold)
    fates = scan(datapath, SOURCE4, range(1000, 1000 + threshold + 2))
    assert fates == [PASSES4] * (threshold - 1) + [SCAN4, BAN4, BAN4]
    ban = datapath.ban_of(SOURCE4)
    assert ban is not None and ban.ports == threshold


def test_sources_are_distinguished(datapath: Datapath) -> None:
    for port in range(1, 100):
        assert scan(datapath, f"198.51.100.{port}", [port]) == [PASSES4]


# The window slides


def test_less_than_the_threshold_in_any_window_is_never_a_scan(datapath: Datapath) -> None:
    datapath.policy(scan_ports=10, scan_window=WINDOW)
    for port in range(1, 25):
        assert scan(datapath, SOURCE4, [port]) == [PASSES4]
        datapath.age(WINDOW / 8)


def test_a_little_more_than_the_threshold_is_banned_at_once(datapath: Datapath) -> None:
    datapath.policy(scan_ports=10, scan_window=WINDOW)
    for port in range(1, 10):
        assert scan(datapath, SOURCE4, [port]) == [PASSES4]
        datapath.age(WINDOW / 11)
    assert scan(datapath, SOURCE4, [10]) == [SCAN4]


def test_what_left_the_window_does_not_count(datapath: Datapath) -> None:
    datapath.policy(scan_ports=10, scan_window=WINDOW)
    assert set(scan(datapath, SOURCE4, range(1, 10))) == {PASSES4}
    datapath.age(WINDOW * 1.05)
    assert scan(datapath, SOURCE4, [10]) == [PASSES4]


def test_a_scan_across_the_borders_of_fixed_windows_is_seen(datapath: Datapath) -> None:
    datapath.policy(scan_ports=10, scan_window=WINDOW)
    assert set(scan(datapath, SOURCE4, range(1, 6))) == {PASSES4}
    datapath.age(WINDOW * 0.7)
    assert scan(datapath, SOURCE4, range(6, 11)) == [PASSES4] * 4 + [SCAN4]


def test_a_port_that_is_hit_again_stays_in_the_window(datapath: Datapath) -> None:
    assert scan(datapath, SOURCE4, [1]) == [PASSES4]
    datapath.age(WINDOW * 0.7)
    assert scan(datapath, SOURCE4, [1, 2]) == [PASSES4] * 2
    datapath.age(WINDOW * 0.7)
    assert scan(datapath, SOURCE4, [3]) == [SCAN4]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_scans_match_a_model(datapath: Datapath, seed: int) -> None:
    """Time passes in steps of a tenth of the window; the real time that also passes is less than a step."""
    choice = random.Random(seed)
    threshold = choice.randint(2, 12)
    datapath.policy(scan_ports=threshold, scan_window=WINDOW)
    now, hits = 0, dict[int, int]()
    for _dummy in range(60):
        step = choice.choice((0, 0, 1, 2, 9, 10, 11))
        now += step
        if step:
            datapath.age(step * WINDOW / 10)
        port = choice.randrange(threshold * 2)
        hits[port] = now
        live = sum(now - hit < 10 for hit in hits.values())
        assert scan(datapath, SOURCE4, [port]) == [SCAN4 if live >= threshold else PASSES4]
        if live >= threshold:
            break


# Two processors


def sender(datapath: Datapath, ports: Sequence[int]) -> Callable[[int], None]:
    """Send SYNs to these ports, in each round from another source."""
    frames = [syn4("10.0.0.0", port) for port in ports]
    parts = [(frame[:26], frame[30:]) for frame in frames]
    run = datapath.run

    def send(number: int) -> None:
        source = (0x0A000000 + number).to_bytes(4, "big")
        for head, tail in parts:
            run(head + source + tail)

    return send


def scan_banned(datapath: Datapath) -> set[bytes]:
    return {key for name in ("scan_bans", "overflow") for key, dummy in datapath.maps[name].items()}


def sources(rounds: int) -> set[bytes]:
    mapped = bytes(10) + b"\xff\xff"
    return {
        Source(128, mapped + (0x0A000000 + number).to_bytes(4, "big")).key
        for number in range(1, rounds + 1)
    }


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [2, 6])
def test_two_processors_with_half_a_scan_each_miss_no_ban(
    datapath: Datapath, threshold: int
) -> None:
    datapath.policy(scan_ports=threshold, log_connections="none")
    ports = range(1, threshold + 1)
    before = datapath.cells()
    in_step(ROUNDS, [sender(datapath, ports[cpu::2]) for cpu in (0, 1)])
    assert sources(ROUNDS) - scan_banned(datapath) == set()
    grown = difference(datapath.cells(), before)
    assert sum(grown.values()) == ROUNDS * threshold
    assert grown[PASSES4] <= ROUNDS * (threshold - 1)


@pytest.mark.slow
def test_two_processors_with_the_same_ports_ban_nobody(datapath: Datapath) -> None:
    datapath.policy(scan_ports=6, log_connections="none")
    ports = (1, 2, 3, 4, 5)
    in_step(ROUNDS, [sender(datapath, ports * 2), sender(datapath, ports[::-1] * 2)])
    assert scan_banned(datapath) == set()
    assert datapath.counters()["tracks_failed"] == 0


def put_track(datapath: Datapath, hits: Sequence[tuple[int, float]]) -> None:
    """Write what another processor may have written: ports, and how many seconds ago they were hit."""
    datapath.run(syn4("203.0.113.99", 1))  # makes the seed
    seed = abi.SHARED.unpack(datapath.maps["shared"].lookup(bytes(4)) or b"")["seed"]
    tag = address_hash(mapped(parse_prefix(HOST4)), seed) >> 49
    now = time.monotonic_ns()
    slots = [
        (round(now - age * 1e9) >> abi.TIME_SHIFT & 0xFFFFFFFF) << 32 | tag << 16 | port
        for port, age in hits
    ]
    key = datapath.bans.source_of(SOURCE4).key
    datapath.maps["tracks2"].update(key, abi.TRACK.pack(slot=slots))


def test_a_hit_that_another_processor_saw_later_is_no_old_one(datapath: Datapath) -> None:
    put_track(datapath, [(1, -1), (2, -1)])
    assert scan(datapath, SOURCE4, [3]) == [SCAN4]


def test_a_later_hit_is_not_set_back(datapath: Datapath) -> None:
    put_track(datapath, [(1, -20)])
    assert scan(datapath, SOURCE4, [1, 2]) == [PASSES4] * 2
    datapath.age(WINDOW + 10)
    put_back = datapath.maps["tracks2"].items()[0][1]
    assert sum(slot != 0 for slot in abi.TRACK.unpack(put_back)["slot"]) == 2
    assert scan(datapath, SOURCE4, [3, 4]) == [PASSES4, SCAN4]


def test_a_port_that_two_processors_put_down_counts_once(datapath: Datapath) -> None:
    put_track(datapath, [(1, 5), (1, 4), (1, 3)])
    assert scan(datapath, SOURCE4, [2, 1, 2]) == [PASSES4] * 3
    assert scan(datapath, SOURCE4, [3]) == [SCAN4]


def test_slots_that_have_expired_make_room(datapath: Datapath) -> None:
    put_track(datapath, [(port, WINDOW + 5) for port in range(1, 65)])
    assert scan(datapath, SOURCE4, [100, 1, 101]) == [PASSES4, PASSES4, SCAN4]


@pytest.mark.parametrize("days", [50, 103, 105, 150, 207])
def test_slots_of_long_ago_are_past(datapath: Datapath, days: int) -> None:
    """Times of slots wrap after 208 days."""
    put_track(datapath, [(port, days * 86400) for port in (1, 2, 3)])
    assert scan(datapath, SOURCE4, [1, 9]) == [PASSES4] * 2
    assert scan(datapath, SOURCE4, [3]) == [SCAN4]


# Several addresses of the host


def test_one_port_of_several_addresses_is_a_scan(closed: Datapath) -> None:
    addresses = [f"10.77.0.{number}" for number in range(11, 16)]
    for address in addresses:
        ip(f"address add {address}/24 dev v0")
    closed.host.apply()
    try:
        fates = closed.fates(*(syn4(SOURCE4, 22, address) for address in addresses * 2))
    finally:
        for address in addresses:
            ip(f"address del {address}/24 dev v0")
    assert fates == [PASSES4] * 4 + [SCAN4] + [BAN4] * 5
    (event,) = (event for event in closed.events() if event["type"] == abi.EVENT_BAN)
    assert (event["count"], event["ports"][: event["listed"]]) == (5, (22,) * 5)


def test_a_port_of_each_address_counts_once(datapath: Datapath) -> None:
    datapath.policy(scan_ports=5)
    targets = (HOST6, "fe80::1", HOST6, "fe80::1")
    frames = [syn6(SOURCE6, port, target) for target in targets for port in (22, 80)]
    assert datapath.fates(*frames) == [PASSES6] * 8
    assert datapath.fate(syn6(SOURCE6, 22, "fd77::9")) == SCAN6


@pytest.mark.parametrize("seed", range(8))
def test_ports_of_one_address_are_told_apart_exactly(datapath: Datapath, seed: int) -> None:
    choice = random.Random(seed)
    datapath.policy(scan_ports=64)
    ports = choice.sample(range(65536), 64)
    fates = scan(datapath, SOURCE4, [port for port in ports[:63] for dummy in range(2)])
    assert set(fates) == {PASSES4}
    assert scan(datapath, SOURCE4, ports[63:]) == [SCAN4]
    (event,) = (event for event in datapath.events() if event["type"] == abi.EVENT_BAN)
    assert sorted(event["ports"]) == sorted(ports)


# IPv6


def test_addresses_of_one_slash_64_are_one_source(datapath: Datapath) -> None:
    frames = [syn6(f"2001:db8:7::{port}", port) for port in (1, 2, 3, 4)]
    assert datapath.fates(*frames) == [PASSES6, PASSES6, SCAN6, BAN6]
    assert datapath.fate(syn6("2001:db8:7:0:ffff::1", 1)) == BAN6
    assert datapath.fate(syn6("2001:db8:7:1::1", 1)) == PASSES6
    assert datapath.banned() == {"2001:db8:7::/64"}


def test_addresses_of_a_single_net_are_banned_one_by_one(datapath: Datapath) -> None:
    net = abi.NET.pack(plen=48, addr=bytes.fromhex("20010db80007") + bytes(10))
    datapath.maps["nets"].update(net, abi.NET_SINGLE.to_bytes(4, sys.byteorder))
    frames = [syn6(f"2001:db8:7::{port}", port) for port in (1, 2, 3, 4)]
    assert datapath.fates(*frames) == [PASSES6] * 4
    assert scan(datapath, "2001:db8:7::9", (1, 2, 3, 4)) == [PASSES6, PASSES6, SCAN6, BAN6]
    assert datapath.fate(syn6("2001:db8:7::8", 9)) == PASSES6
    assert datapath.banned() == {"2001:db8:7::9"}


@pytest.mark.parametrize("source", ["fd77::9", "fe80::9"])
def test_neighbours_are_banned_one_by_one(datapath: Datapath, source: str) -> None:
    assert scan(datapath, source) == [PASSES6, PASSES6, SCAN6]
    assert datapath.banned() == {source}


def test_an_allowed_address_inside_a_banned_slash_64_passes(datapath: Datapath) -> None:
    datapath.lists(allow=["2001:db8:7::100"])
    assert scan(datapath, SOURCE6) == [PASSES6, PASSES6, SCAN6]
    assert set(scan(datapath, "2001:db8:7::100", range(1, 20))) == {"pass allow ipv6"}
    assert datapath.fate(syn6("2001:db8:7::101", 1)) == BAN6


def test_a_denied_address_is_denied_whether_banned_or_not(datapath: Datapath) -> None:
    assert scan(datapath, SOURCE4)[2] == SCAN4
    datapath.lists(deny=[SOURCE4])
    assert scan(datapath, SOURCE4, [1]) == ["drop deny ipv4"]


# Enforcement


def test_monitor_bans_nothing_and_reports_it(datapath: Datapath) -> None:
    datapath.lists(deny=["203.0.113.0/24"])
    datapath.policy(action="monitor")
    datapath.bans.add("192.0.2.9", 600)
    datapath.events()
    noticed = "pass monitor_scan ipv4"
    assert scan(datapath, SOURCE4, range(1, 7)) == [PASSES4, PASSES4, noticed] * 2
    assert scan(datapath, "203.0.113.7", [1]) == ["pass monitor_deny ipv4"]
    assert scan(datapath, "192.0.2.9", [1]) == ["pass monitor_ban ipv4"]
    assert datapath.banned() == {"192.0.2.9"}
    scans = [event for event in datapath.events() if event["type"] == abi.EVENT_BAN]
    assert [(event["flags"], event["expires"]) for event in scans] == [(abi.EVENT_MONITOR, 0)] * 2


def test_off_lets_everything_pass(datapath: Datapath) -> None:
    datapath.lists(deny=["203.0.113.0/24"])
    datapath.bans.add(SOURCE4, 600)
    datapath.policy(action="off")
    assert set(scan(datapath, SOURCE4, range(1, 20))) == {"pass off ipv4"}
    assert scan(datapath, "203.0.113.7", [1]) == ["pass off ipv4"]
    assert not datapath.maps["tracks2"].items()


def test_an_interface_has_its_own_policy(datapath: Datapath) -> None:
    keys = {"PW_ACTION": "off", "PW_SCAN_PORTS": "7"}
    datapath.host.apply(edits.set_policy("v0", keys, replace=True))
    assert set(scan(datapath, SOURCE4, range(1, 20))) == {"pass off ipv4"}
    elsewhere = Runner(datapath.program, 1)
    before = datapath.cells()
    for port in (1, 2, 3, 4):
        elsewhere(syn4(SOURCE4, port))
    assert difference(datapath.cells(), before) == {PASSES4: 2, SCAN4: 1, BAN4: 1}
    ban = datapath.ban_of(SOURCE4)
    assert ban is not None and ban.ifindex == 1


def test_a_ban_drops_only_new_connections_by_default(datapath: Datapath) -> None:
    assert scan(datapath, SOURCE4)[2] == SCAN4
    assert datapath.fate(udp4(SOURCE4)) == PASSES4
    assert datapath.fate(syn4(SOURCE4, 1, flags=SYN | ACK)) == PASSES4
    assert datapath.fate(syn4(SOURCE4, 1, flags=ACK)) == PASSES4


def test_a_ban_with_scope_all_drops_everything(datapath: Datapath) -> None:
    datapath.policy(ban_scope="all")
    assert scan(datapath, SOURCE4)[2] == SCAN4
    assert scan(datapath, SOURCE6)[2] == SCAN6
    assert datapath.fates(udp4(SOURCE4), syn4(SOURCE4, 1, flags=ACK)) == [BAN4] * 2
    assert datapath.fates(udp6(SOURCE6), udp6("2001:db8:7::8")) == [BAN6] * 2
    ban = datapath.ban_of(SOURCE4)
    assert ban is not None and ban.dropped == 2


def test_a_ban_of_connections_drops_only_new_ones_whatever_the_scope(datapath: Datapath) -> None:
    datapath.policy(ban_scope="all")
    for address in (SOURCE4, SOURCE6):
        ban, dummy = datapath.bans.add(address, 600, abi.ORIGIN_FLEET)
        datapath.bans.put(ban._replace(flags=abi.BAN_CONNECTIONS))
    new = [syn4(SOURCE4, 1), syn4(SOURCE4, 1, flags=FIN), syn6(SOURCE6, 1)]
    assert datapath.fates(*new) == [BAN4, BAN4, BAN6]
    old = [udp4(SOURCE4), syn4(SOURCE4, 1, flags=ACK), udp6(SOURCE6)]
    assert datapath.fates(*old) == [PASSES4, PASSES4, PASSES6]
    found = datapath.ban_of(SOURCE4)
    assert found is not None and (found.dropped, found.flags) == (2, abi.BAN_CONNECTIONS)


def test_a_ban_of_connections_hides_no_ban_that_does_more(datapath: Datapath) -> None:
    datapath.policy(ban_scope="all")
    assert scan(datapath, SOURCE4)[2] == SCAN4
    assert scan(datapath, SOURCE6)[2] == SCAN6
    for address in (SOURCE4, f"{SOURCE6}/128"):
        ban, dummy = datapath.bans.add(address, 600, abi.ORIGIN_FLEET)
        datapath.bans.put(ban._replace(flags=abi.BAN_CONNECTIONS))
    assert datapath.fates(udp4(SOURCE4), udp6(SOURCE6)) == [BAN4, BAN6]


@pytest.mark.parametrize("protection", [SOURCE4, "198.51.100.0/24", "0.0.0.0/0"])
def test_a_protected_source_is_detected_but_never_banned(
    datapath: Datapath, protection: str
) -> None:
    datapath.protect(protection)
    datapath.events()
    fates = scan(datapath, SOURCE4, range(1, 7))
    assert fates == [PASSES4, PASSES4, "pass protected ipv4"] * 2
    assert not datapath.banned()
    scans = [event for event in datapath.events() if event["type"] == abi.EVENT_BAN]
    assert [event["flags"] for event in scans] == [abi.EVENT_PROTECTED] * 2


def test_protected_hosts_of_one_slash_64_are_counted_apart(datapath: Datapath) -> None:
    datapath.protect("2001:db8:7::/64")
    datapath.events()
    hosts = [f"2001:db8:7::{number}" for number in range(1, 5)]
    fates = [datapath.fate(syn6(source, port)) for port, source in enumerate(hosts)]
    assert fates == [PASSES6] * 4
    assert scan(datapath, "2001:db8:7::9") == [PASSES6, PASSES6, "pass protected ipv6"]
    scans = [event for event in datapath.events() if event["type"] == abi.EVENT_BAN]
    assert [(event["flags"], event["plen"]) for event in scans] == [(abi.EVENT_PROTECTED, 128)]


def test_protection_that_has_ended_protects_no_more(datapath: Datapath) -> None:
    key = bytes(10) + b"\xff\xff" + socket.inet_aton(SOURCE4)
    now = time.monotonic_ns()
    for expires, last in ((now + 60 * 10**9, "pass protected ipv4"), (now - 10**9, SCAN4)):
        datapath.maps["hosts"].update(key, abi.HOST.pack(expires=expires, origin=6))
        assert scan(datapath, SOURCE4)[2] == last


def test_protection_that_comes_after_the_ban_suspends_it(datapath: Datapath) -> None:
    datapath.policy(ban_scope="all")
    assert scan(datapath, SOURCE4)[2] == SCAN4
    datapath.protect(SOURCE4)
    assert datapath.fates(udp4(SOURCE4), syn4(SOURCE4, 1)) == ["pass protected ipv4"] * 2


def test_what_hides_its_ports_counts_as_one_more_port_each_time(datapath: Datapath) -> None:
    hidden = ethernet(0x0800, ipv4(SOURCE4, HOST4, bytes(8), fragment=1))
    first = ethernet(0x0800, ipv4(SOURCE4, HOST4, tcp(1, 9)[:8], fragment=MORE_FRAGMENTS))
    opaque = "pass opaque ipv4"
    assert datapath.fates(first, syn4(SOURCE4, 9), hidden) == [opaque, PASSES4, opaque]
    datapath.events()
    assert datapath.fate(hidden) == SCAN4
    (event,) = datapath.events()
    assert (event["count"], event["ports"][: event["listed"]]) == (3, (9,))


def test_what_hides_its_ports_never_counts_as_another_packet(datapath: Datapath) -> None:
    """With numbers of 16 bits, two of 64 would be equal for every thirtieth source."""
    datapath.policy(scan_ports=64, log_connections="none")
    opaque = "pass opaque ipv4"
    for number in range(60):
        hidden = ethernet(0x0800, ipv4(f"10.9.0.{number}", HOST4, bytes(8), fragment=1))
        assert datapath.fates(*[hidden] * 64) == [opaque] * 63 + [SCAN4]


# Duration of bans


@pytest.mark.slow
def test_a_ban_expires_at_its_time(datapath: Datapath) -> None:
    datapath.policy(ban_time=1)
    assert scan(datapath, SOURCE4) == [PASSES4, PASSES4, SCAN4]
    ban = datapath.ban_of(SOURCE4)
    assert ban is not None and ban.expires - ban.since == 10**9
    while time.monotonic_ns() < ban.expires + 50_000_000:
        time.sleep(0.05)
    assert scan(datapath, SOURCE4, (4, 5)) == [PASSES4, PASSES4]
    assert scan(datapath, SOURCE4, (6, 7)) == [SCAN4, BAN4]


def test_manual_bans_apply_at_once_until_they_are_lifted(datapath: Datapath) -> None:
    datapath.bans.add(SOURCE4, None)
    datapath.bans.add(SOURCE6, 600)
    assert datapath.fates(syn4(SOURCE4, 1), syn6("2001:db8:7::8", 1)) == [BAN4, BAN6]
    datapath.bans.lift(SOURCE4)
    datapath.bans.lift(SOURCE6)
    assert datapath.fates(syn4(SOURCE4, 1), syn6(SOURCE6, 1)) == [PASSES4, PASSES6]


def test_above_the_rate_earlier_bans_stay_and_new_scanners_are_still_banned(
    datapath: Datapath,
) -> None:
    datapath.policy(log_connections="none")
    before = datapath.counters()
    send = sender(datapath, (1, 2, 3))
    flood = RING // 4 + 1000
    for number in range(1, flood + 1):
        send(number)
    grown = {name: datapath.counters()[name] - before[name] for name in ("bans", "bans_overflow")}
    assert grown["bans"] + grown["bans_overflow"] == flood
    assert grown["bans"] >= RING // 4 and grown["bans_overflow"] > 0
    assert sources(flood) <= scan_banned(datapath)
    first = datapath.ban_of("10.0.0.1")
    assert first is not None and (first.table, first.flags) == ("scan_bans", 0)

    change_shared(datapath, ban_tat=time.monotonic_ns() + 3600 * 10**9)
    datapath.events()
    assert scan(datapath, SOURCE4, range(1, 5)) == [PASSES4, PASSES4, SCAN4, BAN4]
    ban = datapath.ban_of(SOURCE4)
    assert ban is not None and (ban.table, ban.flags) == ("overflow", abi.BAN_OVERFLOW)
    assert ban.expires - ban.since == 60 * 10**9
    (event,) = datapath.events()
    assert (event["flags"], event["expires"]) == (abi.EVENT_IN_OVERFLOW, ban.expires)


def test_the_ring_reuses_only_expired_entries(datapath: Datapath) -> None:
    first, second, third = "192.0.2.1", "192.0.2.2", "192.0.2.3"
    assert scan(datapath, first)[2] == SCAN4
    change_ban(datapath, first, expires=1)
    assert scan(datapath, first)[2] == SCAN4
    ban = datapath.ban_of(first)
    assert ban is not None and ban.slot == 1

    # Entry 0 names the first source, but the source's newer ban belongs to entry 1.
    change_shared(datapath, ring_head=RING)
    assert scan(datapath, second)[2] == SCAN4
    assert datapath.banned() == {first, second}

    # Entry 1 is used by a ban that has not expired.
    change_shared(datapath, ring_head=RING + 1)
    assert scan(datapath, third)[2] == SCAN4
    assert datapath.banned() == {first, second, third}
    ban = datapath.ban_of(third)
    assert ban is not None and ban.table == "overflow"

    change_ban(datapath, first, expires=1)
    change_shared(datapath, ring_head=RING + 1)
    assert scan(datapath, "192.0.2.4")[2] == SCAN4
    assert len(datapath.maps["scan_bans"].items()) == 2
    assert datapath.banned() == {second, third, "192.0.2.4"}


@pytest.mark.slow
def test_a_ring_full_of_expired_bans_refuses_none(datapath: Datapath) -> None:
    """Bans go twice around the ring: each entry's former ban makes room in the hash."""
    datapath.policy(scan_ports=1, log_connections="none")
    send = sender(datapath, (1,))
    before = datapath.counters()
    rounds = 2 * RING + 500
    for number in range(1, rounds + 1):
        if number % 4000 == 0:
            change_shared(datapath, ban_tat=0)
            _expire_all(datapath)
        send(number)
    grown = {
        name: datapath.counters()[name] - before[name]
        for name in ("bans", "bans_overflow", "bans_failed")
    }
    assert grown == {"bans": rounds, "bans_overflow": 0, "bans_failed": 0}
    assert len(datapath.maps["scan_bans"].items()) <= RING


def _expire_all(datapath: Datapath) -> None:
    items = datapath.maps["scan_bans"].items()
    over = [abi.BAN.pack(**abi.BAN.unpack(value) | {"expires": 1}) for dummy, value in items]
    keys = b"".join(key for key, dummy in items)
    datapath.maps["scan_bans"].update_many(keys, b"".join(over))
