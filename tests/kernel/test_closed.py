# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`scan_counts: closed`: which packets are evidence, with real listeners."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from socket import AF_INET, AF_INET6

import pytest
from kernel.datapath import GRACE, PASS, PORTS, Datapath, listening
from kernel.hosting import ip
from kernel.packets import ACK, HOST4, MORE_FRAGMENTS, ethernet, ipv4, syn4, syn6, tcp

from packetwatch_core._base.address import mapped, parse_prefix

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
MONOTONIC_COARSE = 6
PASSES4, PASSES6 = "pass unlisted ipv4", "pass unlisted ipv6"
SCAN4, SCAN6 = "drop scan ipv4", "drop scan ipv6"


def counts(datapath: Datapath, frame: bytes) -> bool:
    """Return whether a frame from a new source counts as evidence."""
    datapath.run(frame)
    found = datapath.hits()
    datapath.forget_hits()
    return bool(found)


def test_a_scan_of_closed_ports_is_banned_at_the_fifth(closed: Datapath) -> None:
    fates = closed.fates(*(syn4(SOURCE4, port) for port in range(1, 101)))
    assert fates == [PASSES4] * 4 + [SCAN4] + ["drop ban ipv4"] * 95
    fates = closed.fates(*(syn6(SOURCE6, port) for port in range(1, 101)))
    assert fates == [PASSES6] * 4 + [SCAN6] + ["drop ban ipv6"] * 95


def test_a_port_served_in_the_other_family_only_is_closed(closed: Datapath) -> None:
    with (
        listening(AF_INET, "0.0.0.0", 8101),
        listening(AF_INET6, "::", 8102, v6only=True),
        listening(AF_INET, "127.0.0.1", 8103),
    ):
        assert counts(closed, syn6(SOURCE6, 8101))
        assert counts(closed, syn4(SOURCE4, 8102))
        assert counts(closed, syn4(SOURCE4, 8103))
        assert not counts(closed, syn4(SOURCE4, 8101))
        assert not counts(closed, syn6(SOURCE6, 8102))


def test_what_one_address_lacks_another_may_serve(closed: Datapath) -> None:
    """This holds within one tick of the clock too, for which a closed port is remembered."""
    other, ports = "10.77.0.9", range(8501, 8517)
    ((dummy, value), *_rest) = closed.maps["local"].items()
    closed.maps["local"].update(mapped(parse_prefix(other)), value)
    with contextlib.ExitStack() as served:
        for port in ports:
            served.enter_context(listening(AF_INET, HOST4, port))
        for number, port in enumerate(ports):
            closed.run(syn4(f"203.0.113.{number}", port, other))
            assert closed.run(syn4(SOURCE4, port)) == PASS
            assert closed.hits() == number + 1


def test_a_port_closed_within_the_grace_is_not_counted(closed: Datapath) -> None:
    with listening(AF_INET, "0.0.0.0", 8201):
        assert not counts(closed, syn4(SOURCE4, 8201))
    assert not counts(closed, syn4(SOURCE4, 8201))
    key = (8201).to_bytes(4, sys.byteorder)
    for age, expected in ((GRACE - 10, False), (GRACE + 1, True)):
        seen = time.monotonic_ns() - age * 10**9
        closed.maps["open_ports"].update(key, seen.to_bytes(8, sys.byteorder))
        assert counts(closed, syn4(SOURCE4, 8201)) == expected


def test_the_grace_counts_from_the_last_syn_that_met_the_port_open(closed: Datapath) -> None:
    """Within a tick of the clock, which comes late on a busy machine. The SYNs come in longer steps."""
    key = (8203).to_bytes(4, sys.byteorder)
    tick = time.clock_getres(MONOTONIC_COARSE)
    with listening(AF_INET, "0.0.0.0", 8203):
        for _dummy in range(5):
            asked = time.monotonic_ns()
            closed.run(syn4(SOURCE4, 8203))
            seen = int.from_bytes(closed.maps["open_ports"].lookup(key) or b"", sys.byteorder)
            assert asked - 5 * tick * 1e9 <= seen <= time.monotonic_ns()
            time.sleep(20 * tick)


def test_without_grace_a_port_is_closed_at_once(closed: Datapath) -> None:
    closed.policy(scan_counts="closed", scan_ports=5, scan_grace=0)
    with listening(AF_INET, "0.0.0.0", 8202):
        assert not counts(closed, syn4(SOURCE4, 8202))
    assert counts(closed, syn4(SOURCE4, 8202))


def test_nothing_counts_until_services_had_time_to_start(closed: Datapath) -> None:
    day = 86400
    if time.monotonic() > day - 60:
        pytest.skip("this machine has been up for longer than the longest grace")
    closed.policy(scan_counts="closed", scan_ports=5, scan_grace=day)
    assert closed.fates(*(syn4(SOURCE4, port) for port in range(1, 20))) == [PASSES4] * 19


@pytest.mark.parametrize(
    "target", ["203.0.113.5", "10.77.0.2", "10.77.0.255", "255.255.255.255", "224.0.0.1"]
)
def test_what_is_not_for_this_host_is_no_evidence(closed: Datapath, target: str) -> None:
    frames = [syn4(SOURCE4, port, target) for port in range(1, 20)]
    assert closed.fates(*frames) == [PASSES4] * 19
    assert not closed.hits()


@pytest.mark.parametrize("target", ["2001:db8:1::5", "fd77::2", "ff02::1"])
def test_what_is_not_for_this_host_is_no_evidence_in_ipv6(closed: Datapath, target: str) -> None:
    frames = [syn6(SOURCE6, port, target) for port in range(1, 20)]
    assert closed.fates(*frames) == [PASSES6] * 19


ANY_IP = ("198.51.100.128/25", "203.0.113.77", "2001:db8:99::/48", "2001:db8:98::7")


@pytest.fixture
def any_ip(closed: Datapath) -> Iterator[Datapath]:
    """The host has addresses by routes alone; marked packets are all for it, as a proxy needs."""
    for prefix in ANY_IP:
        ip(f"route add local {prefix} dev lo")
    ip("route add local default dev lo table 100")
    closed.host.apply()
    yield closed
    for prefix in ANY_IP:
        ip(f"route del local {prefix} dev lo")
    ip("route del local default dev lo table 100")


@pytest.mark.parametrize(
    "target",
    ["198.51.100.129", "198.51.100.255", "203.0.113.77", "2001:db8:99:7::9", "2001:db8:98::7"],
)
def test_addresses_by_route_are_this_hosts_own(any_ip: Datapath, target: str) -> None:
    make, source = (syn6, SOURCE6) if ":" in target else (syn4, SOURCE4)
    with listening(AF_INET6, "::", 8401):
        assert not counts(any_ip, make(source, 8401, target))
    fates = [any_ip.fate(make(source, port, target)).split()[1] for port in range(1, 13)]
    assert fates == ["unlisted"] * 4 + ["scan"] + ["ban"] * 7


@pytest.mark.parametrize("target", ["198.51.100.127", "203.0.113.78", "2001:db8:9a::1"])
def test_addresses_beside_those_by_route_are_not(any_ip: Datapath, target: str) -> None:
    make, source = (syn6, SOURCE6) if ":" in target else (syn4, SOURCE4)
    assert not counts(any_ip, make(source, 1, target))


def test_only_syns_to_closed_ports_count(closed: Datapath) -> None:
    closed.policy(scan_counts="closed", scan_ports=5, scan_grace=GRACE, scan_kinds=["syn"])
    frames = [syn4(SOURCE4, port, flags=ACK) for port in range(1, 20)]
    assert closed.fates(*frames) == [PASSES4] * 19


def test_a_fragmented_scan_of_closed_ports_is_banned(closed: Datapath) -> None:
    def first(port: int) -> bytes:
        return ethernet(0x0800, ipv4(SOURCE4, HOST4, tcp(40000, port)[:8], fragment=MORE_FRAGMENTS))

    with listening(AF_INET, "0.0.0.0", 8301):
        assert not counts(closed, first(8301))
    fates = closed.fates(*(first(port) for port in range(1, 6)))
    assert fates == ["pass opaque ipv4"] * 4 + [SCAN4]


def test_hidden_ports_count_only_towards_this_host(closed: Datapath) -> None:
    assert counts(closed, ethernet(0x0800, ipv4(SOURCE4, HOST4, bytes(8), fragment=1)))
    away = ethernet(0x0800, ipv4(SOURCE4, "203.0.113.5", bytes(8), fragment=1))
    assert not counts(closed, away)


@pytest.mark.parametrize("ports", ["1-65535", "63,64,127-128,65535"])
def test_published_ports_are_taken_exactly(closed: Datapath, ports: str) -> None:
    closed.policy(scan_counts="closed", scan_ports=5, scan_grace=GRACE, published_ports=ports)
    published = set(range(1, PORTS)) if "1-" in ports else {63, 64, 127, 128, 65535}
    for port in (0, 1, 62, 63, 64, 65, 126, 127, 128, 129, 1000, 65534, 65535):
        assert counts(closed, syn4(SOURCE4, port)) == (port not in published), port
