# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources that are not the address of one other host: never counted or banned, and some are dropped."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from kernel.datapath import Datapath, Runner, difference
from kernel.packets import (
    ACK,
    HOST4,
    ICMP6,
    IPV4,
    IPV6,
    SYN,
    UDP,
    ethernet,
    ipv4,
    ipv6,
    syn4,
    syn6,
    udp4,
    udp6,
)

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._kernel import abi

LOOPBACK = 1
BOGUS = [
    *("127.0.0.1", "127.255.255.255", "224.0.0.1", "239.255.255.255", "255.255.255.255"),
    *("::1", "ff02::1", "ff0e::7", "::ffff:0:0", "::ffff:203.0.113.7"),
]
# No host has them, but packets may: to ask for an address, and in networks that use 240.0.0.0/4.
NOBODY = ["0.0.0.0", "240.0.0.1", "255.255.255.254", "::"]
# The first addresses beside them.
HOSTS = [
    *("0.0.0.1", "126.255.255.255", "128.0.0.0", "223.255.255.255"),
    *("::2", "::1:0:0", "::ffff:0:203.0.113.7", "0:0:0:1::", "feff:ffff::1"),
]


def syn(source: str, port: int, flags: int = SYN) -> bytes:
    return (syn6 if ":" in source else syn4)(source, port, flags=flags)


def udp(source: str) -> bytes:
    return udp6(source) if ":" in source else udp4(source)


def reasons(datapath: Datapath, frames: Sequence[bytes]) -> set[str]:
    return {fate.rpartition(" ")[0] for fate in datapath.fates(*frames)}


@pytest.mark.parametrize("scope", ["connections", "all"])
@pytest.mark.parametrize("source", BOGUS)
def test_bogus_sources_are_dropped_and_never_counted(
    datapath: Datapath, source: str, scope: str
) -> None:
    datapath.policy(ban_scope=scope)
    frames = [syn(source, port) for port in range(1, 7)]
    frames += [syn(source, 1, ACK), udp(source)]
    assert reasons(datapath, frames) == {"drop bogus"}
    assert not datapath.hits() and not datapath.banned()


@pytest.mark.parametrize("source", NOBODY)
def test_sources_that_are_nobody_pass_and_are_never_banned(datapath: Datapath, source: str) -> None:
    datapath.policy(ban_scope="all")
    frames = [syn(source, port) for port in range(1, 7)]
    assert reasons(datapath, [*frames, udp(source)]) == {"pass unlisted"}
    assert not datapath.hits() and not datapath.banned()


@pytest.mark.parametrize("source", HOSTS)
def test_the_addresses_beside_them_are_hosts(datapath: Datapath, source: str) -> None:
    fates = [datapath.fate(syn(source, port)).rpartition(" ")[0] for port in (1, 2, 3, 4)]
    assert fates == ["pass unlisted", "pass unlisted", "drop scan", "drop ban"]


def test_an_address_can_still_be_asked_for_after_a_forged_scan(datapath: Datapath) -> None:
    datapath.policy(ban_scope="all")
    for source in ("0.0.0.0", "::"):
        datapath.fates(*(syn(source, port) for port in range(1, 7)))
    discover = ethernet(IPV4, ipv4("0.0.0.0", "255.255.255.255", bytes((0, 68, 0, 67)), UDP))
    probe = ethernet(IPV6, ipv6("::", "ff02::1:ff00:1", b"\x87" + bytes(31), ICMP6, hop_limit=255))
    group = ethernet(IPV4, ipv4("0.0.0.0", "224.0.0.1", b"\x11" + bytes(7), 2))
    assert reasons(datapath, [discover, probe, group]) == {"pass unlisted"}


def test_a_ban_of_an_earlier_version_has_no_effect_on_them(datapath: Datapath) -> None:
    """That version banned ::/64 for ::1 or ::."""
    datapath.policy(ban_scope="all")
    source = datapath.bans.source_of("2001:db8::")
    ban = datapath.bans.add("2001:db8::", None)[0]
    datapath.bans.put(ban._replace(source=source._replace(address=bytes(16))))
    probe = ethernet(IPV6, ipv6("::", "ff02::1:ff00:1", b"\x87" + bytes(31), ICMP6))
    assert reasons(datapath, [probe, syn("::", 1)]) == {"pass unlisted"}


def test_loopback_sources_pass_on_the_loopback_device(datapath: Datapath) -> None:
    run = Runner(datapath.program, LOOPBACK)
    before = datapath.cells()
    for port in range(1, 7):
        run(syn("127.0.0.1", port))
        run(syn("::1", port))
    grown = difference(datapath.cells(), before)
    assert grown == {"pass unlisted ipv4": 6, "pass unlisted ipv6": 6}
    assert not datapath.hits()


def test_lists_come_first(datapath: Datapath) -> None:
    datapath.lists(allow=["224.0.0.0/4"], deny=["127.0.0.0/8", "ff00::/8"])
    assert datapath.fate(syn("224.0.0.1", 1)) == "pass allow ipv4"
    assert datapath.fate(syn("127.0.0.1", 1)) == "drop deny ipv4"
    assert datapath.fate(syn("ff02::1", 1)) == "drop deny ipv6"
    assert datapath.fate(syn("::1", 1)) == "drop bogus ipv6"


@pytest.mark.parametrize(("action", "reason"), [("monitor", "monitor_deny"), ("off", "off")])
def test_bogus_sources_pass_where_nothing_is_enforced(
    datapath: Datapath, action: str, reason: str
) -> None:
    datapath.policy(action=action)
    assert reasons(datapath, [syn("127.0.0.1", 9), udp("ff02::1")]) == {f"pass {reason}"}
    logged = [(event["type"], event["count"]) for event in datapath.events()]
    would_drop = (abi.EVENT_WOULD_DROP, abi.WOULD_BOGUS)
    assert logged == [would_drop] * (2 if action == "monitor" else 0)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "127.0.0.53", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::1/128", "ff02::1", "ff02::/64"),
    ],
)
def test_a_ban_by_hand_of_such_a_source_is_refused(datapath: Datapath, address: str) -> None:
    with pytest.raises(
        InvalidInput, match=r" address, which no other host has \(ban the address of"
    ):
        datapath.bans.add(address, 60)
    assert not datapath.banned()
    assert datapath.fate(syn4("203.0.113.9", 1, HOST4)) == "pass unlisted ipv4"
