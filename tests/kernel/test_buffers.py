# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packets of several buffers: wherever the first buffer ends, the verdict is the same.

Drivers may hand over an empty first buffer, such as mlx5 with striding receive queues.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import pytest
from kernel.datapath import Datapath
from kernel.packets import (
    ACK,
    DESTINATION,
    HOST4,
    HOST6,
    IPV4,
    IPV6,
    MORE_FRAGMENTS,
    SYN,
    UDP,
    VLAN,
    VLAN_S,
    ethernet,
    ipv4,
    ipv6,
    syn4,
    syn6,
    tcp,
    udp4,
    udp6,
)
from kernel.test_link_control import CONTROL, NO_CONTROL

from packetwatch_core._kernel import abi

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
DENIED4, DENIED6 = "203.0.113.5", "2001:db8:dead::1"
ALLOWED4, ALLOWED6 = "203.0.113.200", "2001:db8:dead:1::1"
BANNED4, BANNED6 = "100.64.0.1", "2001:db8:64::1"
HIDDEN = [DESTINATION] * 9
TAGS: list[list[int]] = [[], [VLAN], [VLAN_S, VLAN]]


def frames(tags: Sequence[int]) -> list[tuple[bytes, str]]:
    """Return frames of all kinds with what becomes of them."""
    fragment4 = ipv4(SOURCE4, HOST4, tcp(40000, 80)[:8], fragment=MORE_FRAGMENTS)
    options4 = ipv4(SOURCE4, HOST4, tcp(40000, 80), options=b"\x01" * 40)
    return [
        (udp4(DENIED4, tags=tags), "drop deny ipv4"),
        (udp6(DENIED6, tags=tags), "drop deny ipv6"),
        (syn4(DENIED4, 80, flags=ACK, tags=tags), "drop deny ipv4"),
        (syn6(DENIED6, 80, flags=ACK, tags=tags), "drop deny ipv6"),
        (syn4(ALLOWED4, 80, tags=tags), "pass allow ipv4"),
        (syn6(ALLOWED6, 80, tags=tags), "pass allow ipv6"),
        (syn4(BANNED4, 80, tags=tags), "drop ban ipv4"),
        (syn6(BANNED6, 80, tags=tags), "drop ban ipv6"),
        (syn6(BANNED6, 80, tags=tags, kinds=HIDDEN), "drop ban ipv6"),
        (syn4(BANNED4, 80, flags=ACK, tags=tags), "pass unlisted ipv4"),
        (syn6(BANNED6, 80, flags=ACK, tags=tags), "pass unlisted ipv6"),
        (syn4(SOURCE4, 80, tags=tags), "pass unlisted ipv4"),
        (syn6(SOURCE6, 80, tags=tags), "pass unlisted ipv6"),
        (syn6(SOURCE6, 80, tags=tags, kinds=[DESTINATION] * 8), "pass unlisted ipv6"),
        (syn6(SOURCE6, 80, tags=tags, kinds=HIDDEN), "pass opaque ipv6"),
        (ethernet(IPV4, options4, tags), "pass unlisted ipv4"),
        (ethernet(IPV4, fragment4, tags), "pass opaque ipv4"),
        (ethernet(IPV4, ipv4(SOURCE4, HOST4, bytes(8), UDP, words=4), tags), "pass malformed ipv4"),
        (ethernet(IPV4, ipv4(SOURCE4, HOST4, tcp(40000, 80)[:13]), tags), "pass malformed ipv4"),
        (ethernet(IPV6, ipv6(SOURCE6, HOST6, tcp(40000, 80)[:13]), tags), "pass malformed ipv6"),
        (ethernet(0x0806, bytes(46), tags), "pass not_ip other"),
        (syn4(SOURCE4, 80, tags=[*tags, VLAN, VLAN, VLAN]), "drop vlan other"),
    ]


@pytest.fixture
def buffered(datapath: Datapath) -> Datapath:
    """Lists, bans, and a kernel that makes test packets with a short first buffer."""
    try:
        datapath.run(udp4(SOURCE4), 20)
    except AssertionError as error:
        if os.strerror(errno.EINVAL) in str(error):
            pytest.skip("this kernel puts all of a test packet into the first buffer")
        raise
    datapath.lists(
        allow=["203.0.113.128/25", "2001:db8:dead:1::/64"],
        deny=["203.0.113.0/24", "2001:db8:dead::/48"],
    )
    for source in (BANNED4, BANNED6):
        datapath.bans.add(source, 600)
    return datapath


@pytest.mark.parametrize("tags", TAGS, ids=len)
def test_the_verdict_is_the_same_wherever_the_first_buffer_ends(
    buffered: Datapath, tags: list[int]
) -> None:
    for number, (frame, fate) in enumerate(frames(tags)):
        for linear in range(len(frame)):
            assert buffered.fate(frame, linear) == fate, (number, linear)
            if "opaque" in fate:
                buffered.forget_hits()


def test_link_control_passes_wherever_the_first_buffer_ends(buffered: Datapath) -> None:
    buffered.lists(deny=["0.0.0.0/0", "::/0"])
    for name, frame in CONTROL.items():
        fates = {buffered.fate(frame, linear).split()[1] for linear in range(len(frame))}
        assert fates == {"link_control"}, name
    for name, frame in NO_CONTROL.items():
        fates = {buffered.fate(frame, linear).split()[1] for linear in range(len(frame))}
        assert fates == {"deny"}, name


@pytest.mark.parametrize("linear", [0, 13, 14, 33, 47, 53, 60])
def test_a_scan_in_short_buffers_is_banned_with_its_ports(buffered: Datapath, linear: int) -> None:
    buffered.policy(scan_ports=3)
    for make, source in ((syn4, SOURCE4), (syn6, SOURCE6)):
        buffered.events()
        fates = [buffered.fate(make(source, port), linear).split()[1] for port in (7, 7, 8, 9, 10)]
        assert fates == ["unlisted", "unlisted", "unlisted", "scan", "ban"]
        (ban,) = (event for event in buffered.events() if event["type"] == abi.EVENT_BAN)
        assert sorted(ban["ports"][: ban["listed"]]) == [7, 8, 9]
        assert (ban["sport"], ban["dport"]) == (40000, 9)


def test_an_ack_behind_many_headers_in_a_short_buffer_is_no_evidence(buffered: Datapath) -> None:
    frame = syn6(SOURCE6, 80, flags=SYN | ACK, kinds=[DESTINATION] * 8)
    assert {buffered.fate(frame, linear) for linear in range(60)} == {"pass unlisted ipv6"}
    assert not buffered.hits()
