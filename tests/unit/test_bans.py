# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bans: scope, refusal, lifting, explaining."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from unit.fake_maps import mapped, run_maps, u32

from packetwatch_core._bans.bans import Bans, Source
from packetwatch_core._base.errors import InvalidInput, TooLarge
from packetwatch_core._kernel import abi
from packetwatch_core._network import protect

NOW = 5_000_000_000_000
SECOND = 1_000_000_000


def v6(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


@pytest.fixture
def maps() -> dict[str, Any]:
    return run_maps()


@pytest.fixture
def bans(maps: dict[str, Any]) -> Bans:
    return Bans(maps, clock=lambda: NOW)


def scan(maps: dict[str, Any], source: Source, expires: int, table: str = "scan_bans") -> None:
    value = abi.BAN.pack(since=NOW, expires=expires, origin=abi.ORIGIN_SCAN, ports=5, slot=3)
    maps[table].update(source.key, value)


def single(maps: dict[str, Any], plen: int, network: str, flags: int = abi.NET_SINGLE) -> None:
    maps["nets"].update(abi.NET.struct.pack(plen, v6(network)), u32(flags))


def test_add_writes_a_manual_ban_and_the_hint_first(maps: dict[str, Any], bans: Bans) -> None:
    ban, is_new = bans.add("203.0.113.7", 60)
    assert is_new
    assert ban.source.text == "203.0.113.7"
    assert (ban.since, ban.expires) == (NOW, NOW + 60 * SECOND)
    assert ban.origin_name == "manual"
    assert abi.SHARED.unpack(maps["shared"].lookup(bytes(4)))["has_bans"] == 1


def test_hint_leaves_the_counters_beside_it_alone(maps: dict[str, Any], bans: Bans) -> None:
    bans.add("203.0.113.7", 60)
    bans.add("203.0.113.8", 60)
    assert abi.SHARED.unpack(maps["shared"].lookup(bytes(4)))["sequence"] == 99
    assert not maps["shared"].log


def test_add_for_ever(bans: Bans) -> None:
    ban, dummy = bans.add("203.0.113.7", None)
    assert ban.expires == 0
    assert bans.active() == [ban]


def test_add_again_replaces(bans: Bans) -> None:
    bans.add("203.0.113.7", 60)
    ban, is_new = bans.add("203.0.113.7", 120)
    assert not is_new
    assert bans.active() == [ban]


@pytest.mark.parametrize("duration", [0, -1, 1e30, float("nan")])
def test_duration_is_refused(bans: Bans, duration: float) -> None:
    with pytest.raises(InvalidInput, match="duration"):
        bans.add("203.0.113.7", duration)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7/128", "2001:db8:1:2::7"),
        ("2001:db8:5::7", "2001:db8:5::7"),
        ("203.0.113.7/32", "203.0.113.7"),
    ],
)
def test_ipv6_scope(maps: dict[str, Any], bans: Bans, address: str, text: str) -> None:
    single(maps, 64, "2001:db8:5::")
    assert bans.source_of(address).text == text


@pytest.mark.parametrize("address", ["203.0.113.0/24", "2001:db8::/32", "2001:db8::/65"])
def test_networks_are_refused(bans: Bans, address: str) -> None:
    with pytest.raises(InvalidInput, match="deny networks by list"):
        bans.add(address, 60)


def test_protected_address_is_refused_with_its_reason(maps: dict[str, Any], bans: Bans) -> None:
    maps["hosts"].update(mapped("192.0.2.1"), abi.HOST.pack(origin=protect.GATEWAY))
    with pytest.raises(InvalidInput, match=r"192\.0\.2\.1 is protected \(gateway\)"):
        bans.add("192.0.2.1", 60)
    assert not maps["bans"].entries


@pytest.mark.parametrize(("expires", "is_protected"), [(0, True), (NOW + 1, True), (NOW, False)])
def test_protection_ends_by_the_same_clock_as_bans(
    maps: dict[str, Any], bans: Bans, expires: int, is_protected: bool
) -> None:
    maps["hosts"].update(mapped("203.0.113.7"), abi.HOST.pack(expires=expires, origin=1))
    assert bool(bans.why("203.0.113.7").protected) is is_protected


def test_address_in_protected_prefix_is_refused(maps: dict[str, Any], bans: Bans) -> None:
    maps["nets"].update(abi.NET.struct.pack(120, mapped("192.0.2.0")), u32(abi.NET_PROTECTED))
    with pytest.raises(InvalidInput, match="lies in a protected prefix"):
        bans.add("192.0.2.200", 60)
    bans.add("192.0.3.1", 60)


def test_prefix_that_holds_a_protected_address_is_refused(maps: dict[str, Any], bans: Bans) -> None:
    single(maps, 64, "2001:db8:5::")
    with pytest.raises(InvalidInput, match="ban single addresses"):
        bans.add("2001:db8:5::/64", 60)


def test_full_map_is_named() -> None:
    bans = Bans(run_maps(bans=1))
    bans.add("203.0.113.7", 60)
    with pytest.raises(TooLarge, match="room for 1 bans"):
        bans.add("203.0.113.8", 60)


def test_lift_takes_a_source_out_of_all_maps(maps: dict[str, Any], bans: Bans) -> None:
    source = Source(64, v6("2001:db8:1:2::"))
    for table in ("bans", "scan_bans", "overflow"):
        scan(maps, source, NOW + SECOND, table)
    scan(maps, Source(128, v6("2001:db8:1:2::7")), NOW + SECOND)
    assert len(bans.lift("2001:db8:1:2::7")) == 4
    assert not list(bans.walk())
    assert bans.lift("2001:db8:1:2::7") == []


def test_why_names_protection_and_bans(maps: dict[str, Any], bans: Bans) -> None:
    scan(maps, Source(128, mapped("203.0.113.7")), NOW + SECOND)
    scan(maps, Source(128, mapped("203.0.113.7")), NOW - SECOND, "overflow")
    maps["hosts"].update(mapped("203.0.113.7"), abi.HOST.pack(origin=protect.SSH_CLIENT))
    why = bans.why("203.0.113.7")
    assert why.protected == "203.0.113.7 is protected (SSH client)"
    assert [ban.table for ban in why.bans] == ["scan_bans"]
    assert bans.why("203.0.113.8") == ("", [])


def test_active_leaves_out_expired_bans(maps: dict[str, Any], bans: Bans) -> None:
    scan(maps, Source(128, mapped("203.0.113.7")), NOW)
    scan(maps, Source(128, mapped("203.0.113.8")), NOW + 1)
    assert [ban.source.text for ban in bans.active()] == ["203.0.113.8"]


def test_prolonged_ban_moves_to_the_first_map(maps: dict[str, Any], bans: Bans) -> None:
    source = Source(128, mapped("203.0.113.7"))
    scan(maps, source, NOW + SECOND)
    bans.prolong(next(bans.walk()), NOW + 9 * SECOND)
    (ban,) = bans.walk()
    assert (ban.table, ban.expires, ban.ports) == ("bans", NOW + 9 * SECOND, 5)


def test_evidence_is_noted_where_the_ban_is(maps: dict[str, Any], bans: Bans) -> None:
    """All else stays, also the entry of the ring; a ban that was made anew has no evidence of the former."""
    source = Source(128, mapped("203.0.113.7"))
    scan(maps, source, NOW + SECOND)
    before = abi.BAN.unpack(maps["scan_bans"].entries[source.key]) | {"slot": 77, "dropped": 9}
    maps["scan_bans"].update(source.key, abi.BAN.pack(**before))
    (ban,) = bans.walk()
    assert bans.prove(ban)
    after = abi.BAN.unpack(maps["scan_bans"].entries[source.key])
    assert after == before | {"flags": before["flags"] | abi.BAN_ANSWER}
    assert not bans.prove(ban._replace(since=ban.since + 1))
    maps["scan_bans"].entries.clear()
    assert not bans.prove(ban)
    assert list(bans.walk()) == []


def test_remove_spares_what_was_banned_anew(maps: dict[str, Any], bans: Bans) -> None:
    source = Source(128, mapped("203.0.113.7"))
    scan(maps, source, NOW - SECOND)
    (ban,) = bans.walk()
    scan(maps, source, NOW + SECOND)
    assert not bans.remove(ban)
    assert len(bans.active()) == 1
