# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`closed_ports: drop`: ports that nobody serves answer nothing, and all others answer as before."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
from kernel.datapath import GRACE, Datapath, listening, reaches, wait_for
from kernel.packets import (
    ACK,
    FIN,
    HOST4,
    IPV4,
    MORE_FRAGMENTS,
    UDP,
    ethernet,
    ipv4,
    syn4,
    syn6,
    tcp,
    udp,
)
from kernel.test_ack_kinds import set_stack

from packetwatch_core._kernel import abi

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
OPEN, PUBLISHED, CLOSED = 8751, 8752, 8753
POLICY: dict[str, Any] = {
    "scan_counts": "closed",
    "scan_ports": 5,
    "scan_grace": GRACE,
    "closed_ports": "drop",
    "published_ports": str(PUBLISHED),
}
FAMILIES: list[tuple[Callable[..., bytes], str]] = [(syn4, SOURCE4), (syn6, SOURCE6)]


@pytest.fixture
def silent(closed: Datapath) -> Iterator[Datapath]:
    closed.policy(**POLICY)
    set_stack(closed)
    with listening(AF_INET6, "::", OPEN):
        yield closed


@pytest.mark.parametrize(("make", "source"), FAMILIES, ids=["ipv4", "ipv6"])
def test_ports_that_nobody_serves(
    silent: Datapath, make: Callable[..., bytes], source: str
) -> None:
    ports = (CLOSED, OPEN, PUBLISHED, CLOSED, CLOSED + 1, CLOSED + 2, CLOSED + 3, CLOSED + 4)
    fates = [silent.fate(make(source, port)).split()[1] for port in ports]
    assert fates == ["closed", "unlisted", "unlisted", *["closed"] * 4, "scan"]


@pytest.mark.parametrize("flags", [FIN, 0, ACK, FIN | ACK])
def test_all_probes_of_tcp(silent: Datapath, flags: int) -> None:
    assert silent.fate(syn4(SOURCE4, CLOSED, flags=flags)) == "drop closed ipv4"


def test_probes_of_kinds_that_do_not_count_are_answered(silent: Datapath) -> None:
    silent.policy(**POLICY | {"scan_kinds": ["syn"]})
    probes = [syn4(SOURCE4, CLOSED, flags=flags) for flags in (FIN, ACK)]
    probes.append(ethernet(IPV4, ipv4(SOURCE4, HOST4, udp(40000, CLOSED), UDP)))
    assert silent.fates(*probes) == ["pass unlisted ipv4"] * 3
    silent.policy(**POLICY | {"scan_kinds": ["udp"]})
    assert silent.fate(probes[2]) == "drop closed ipv4"


def test_the_default_answers(silent: Datapath) -> None:
    options = {key: value for key, value in POLICY.items() if key != "closed_ports"}
    silent.policy(**options)
    assert silent.fate(syn4(SOURCE4, CLOSED)) == "pass unlisted ipv4"


def test_forwarded_packets_pass(silent: Datapath) -> None:
    assert silent.fate(syn4(SOURCE4, CLOSED, "203.0.113.5")) == "pass unlisted ipv4"
    assert silent.fate(syn6(SOURCE6, CLOSED, "2001:db8:1::5")) == "pass unlisted ipv6"


def test_allowed_and_protected_sources_get_their_answer(silent: Datapath) -> None:
    silent.lists(allow=[SOURCE4])
    assert silent.fate(syn4(SOURCE4, CLOSED)) == "pass allow ipv4"
    silent.protect(SOURCE6)
    assert silent.fate(syn6(SOURCE6, CLOSED)) == "pass protected ipv6"


def test_a_denied_source_is_denied(silent: Datapath) -> None:
    silent.lists(deny=[SOURCE4])
    assert silent.fate(syn4(SOURCE4, CLOSED)) == "drop deny ipv4"


def test_monitor_mode_reports_them(silent: Datapath) -> None:
    silent.policy(**POLICY | {"action": "monitor"})
    silent.events()
    assert silent.fate(syn4(SOURCE4, CLOSED)) == "pass monitor_deny ipv4"
    found = [event for event in silent.events() if event["type"] == abi.EVENT_WOULD_DROP]
    assert [event["count"] for event in found] == [abi.WOULD_CLOSED]


def test_a_port_closed_within_the_grace_is_answered(silent: Datapath) -> None:
    with listening(AF_INET, "0.0.0.0", CLOSED):
        assert silent.fate(syn4(SOURCE4, CLOSED)) == "pass unlisted ipv4"
    assert silent.fate(syn4(SOURCE4, CLOSED)) == "pass unlisted ipv4"
    silent.maps["open_ports"].update(CLOSED.to_bytes(4, sys.byteorder), bytes(8))
    assert silent.fate(syn4(SOURCE4, CLOSED)) == "drop closed ipv4"


def test_a_port_that_opens_is_answered_at_once(silent: Datapath) -> None:
    assert silent.fate(syn4(SOURCE4, CLOSED)) == "drop closed ipv4"
    with contextlib.closing(socket.create_server((HOST4, CLOSED))):
        # From other sources, and after the tick of the clock within which closed ports are remembered.
        sources = (f"198.51.100.{number}" for number in range(256))
        wait_for(lambda: silent.fate(syn4(next(sources), CLOSED)) == "pass unlisted ipv4", 1)


def test_what_hides_its_port_is_not_known_to_be_closed(silent: Datapath) -> None:
    hidden = ethernet(IPV4, ipv4(SOURCE4, HOST4, bytes(8), fragment=1))
    assert silent.fate(hidden) == "pass opaque ipv4"
    known = tcp(40000, CLOSED)[:8]
    first = ethernet(IPV4, ipv4(SOURCE4, HOST4, known, fragment=MORE_FRAGMENTS))
    assert silent.fate(first) == "drop closed ipv4"


@pytest.mark.usefixtures("plugged_in")
def test_real_clients(silent: Datapath) -> None:
    with silent.peer():
        for port in (CLOSED, CLOSED + 1):
            with pytest.raises(TimeoutError):
                socket.create_connection((HOST4, port), 0.3)
        socket.create_connection((HOST4, OPEN), 5).close()
    silent.protect("10.77.0.2")
    with silent.peer():
        assert reaches(HOST4), "a refused connection is an answer"
