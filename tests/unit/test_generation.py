# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib

import pytest

from packetwatch_core._active.build import build
from packetwatch_core._active.generation import Areas, Image, capacity_for, fits
from packetwatch_core._active.loaded import check_memory
from packetwatch_core._base.digest import sha256
from packetwatch_core._base.errors import InvalidInput, TooLarge
from packetwatch_core._declared.policy import resolve_policies
from packetwatch_core._kernel import abi
from packetwatch_core._tables.area import Area, Place

CODE = b"c" * 32
EMPTY = Areas(Area(), 0, Area(), Place(), b"l" * 32, 0)
PAGE = bytes(abi.PAGE)


def image(
    areas: Areas = EMPTY,
    policies: dict[str, dict[str, str]] | None = None,
    ifindexes: dict[str, int] | None = None,
) -> Image:
    return build(areas, resolve_policies(policies or {}), ifindexes or {}, CODE)


def policy(found: Image, ifindex: int) -> dict[str, int]:
    """Return the policy of an interface, found in the way of the XDP program."""
    for probe in range(abi.POLICY_PROBES):
        place = (ifindex + probe) % abi.POLICY_SLOTS
        offset = abi.POLICY_OFFSET + place * abi.POLICY.size
        values = abi.POLICY.unpack(found.first, offset)
        if values["ifindex"] == ifindex:
            return values
    return abi.POLICY.unpack(found.first, abi.POLICY_OFFSET)


def test_there_is_always_room_and_never_too_much() -> None:
    for pages in range(1, 3000):
        capacity = capacity_for(pages)
        assert pages < capacity
        assert capacity <= max(pages + 2, pages * 5 / 4 + 16)
        assert fits(pages, capacity)


def test_a_little_more_or_less_fits_the_same_slot() -> None:
    capacity = capacity_for(100)
    assert all(fits(pages, capacity) for pages in range(capacity // 4, capacity + 1))
    assert not fits(capacity + 1, capacity)
    assert not fits(capacity // 4 - 1, capacity)


def test_memory_needed_is_named() -> None:
    most = (64 << 20) // abi.PAGE
    check_memory(most, 64)
    with pytest.raises(
        TooLarge, match=r"need 65 MiB .* list_memory is 64; .*\(PW_LIST_MEMORY\) to 65"
    ):
        check_memory(most + 1, 64)


def test_areas_follow_the_header() -> None:
    found = image(
        EMPTY._replace(v4=Area.from_pages([PAGE] * 2), v4_shift=20, v6=Area.from_pages([PAGE] * 3))
    )
    header = abi.HEADER.unpack(found.first)
    assert found.pages == header["pages"] == 6
    assert (header["v4_page"], header["v6_page"]) == (1, 3)
    assert header["features"] == abi.F_LISTS4 | abi.F_LISTS6 | abi.F_ENFORCED | abi.F_ACK
    assert (header["lists"], header["bytecode"]) == (b"l" * 32, CODE)
    assert header["digest"].hex() == found.digest


def test_nothing_listed_takes_one_page() -> None:
    found = image()
    assert found.pages == 1
    assert abi.HEADER.unpack(found.first)["features"] == abi.F_ENFORCED | abi.F_ACK


@pytest.mark.parametrize("action", ["monitor", "off"])
@pytest.mark.parametrize("where", ["default", "pw1"])
def test_the_program_looks_at_policies_if_one_does_not_enforce(action: str, where: str) -> None:
    found = image(policies={where: {"PW_ACTION": action}}, ifindexes={"pw0": 7})
    assert not abi.HEADER.unpack(found.first)["features"] & abi.F_ENFORCED


def test_digest_is_of_what_decides_verdicts() -> None:
    one = image()
    assert image(EMPTY._replace(lists=b"m" * 32, next_expiry=9)).digest == one.digest
    assert one.made_for(b"d" * 32).digest == one.digest
    assert image(EMPTY._replace(v4=Area.from_pages([PAGE]))).digest != one.digest
    assert image(policies={"default": {"PW_SCAN_PORTS": "9"}}).digest != one.digest
    assert image(ifindexes={"pw0": 3}).digest == one.digest


def test_image_for_another_program_differs_in_that_alone() -> None:
    one = image(
        EMPTY._replace(v4=Area.from_pages([PAGE])), {"default": {"PW_PUBLISHED_PORTS": "80"}}
    )
    other = one.made_for(b"d" * 32)
    assert other.bytecode == b"d" * 32
    assert other.made_for(CODE) == one


def test_interfaces_have_their_policy_or_the_default() -> None:
    keys = {"default": {"PW_SCAN_PORTS": "9"}, "a": {"PW_ACTION": "off"}, "gone": {}}
    found = image(policies=keys, ifindexes={"a": 3, "b": 4})
    assert policy(found, 3)["action"] == abi.ACTIONS.index("off")
    assert policy(found, 3)["scan_ports"] == policy(found, 4)["scan_ports"] == 9
    assert policy(found, 4)["ifindex"] == 0


def test_policies_of_colliding_interface_indexes_find_room() -> None:
    slots = abi.POLICY_SLOTS
    numbers = {"a": 5, "b": 5 + slots, "c": 5 + 2 * slots, "d": 6, "e": slots}
    found = image(policies={name: {} for name in numbers}, ifindexes=numbers)
    assert [policy(found, number)["ifindex"] for number in numbers.values()] == [*numbers.values()]


def test_policies_without_room_are_refused() -> None:
    slots = abi.POLICY_SLOTS
    numbers = {f"v{i}": 5 + i * slots for i in range(abi.POLICY_PROBES + 1)}
    with pytest.raises(InvalidInput, match="no free policy slot for v4"):
        image(policies={name: {} for name in numbers}, ifindexes=numbers)


@pytest.mark.parametrize(
    ("keys", "features"),
    [
        ({"PW_SCAN_KINDS": "syn"}, 0),
        ({"PW_SCAN_KINDS": "ack"}, abi.F_ACK),
        ({"PW_SCAN_KINDS": "udp"}, abi.F_PROTOCOLS),
        ({"PW_SCAN_KINDS": "sctp"}, abi.F_PROTOCOLS),
        ({"PW_SCAN_KINDS": "proto"}, abi.F_PROTOCOLS),
        ({"PW_SCAN_KINDS": "ack,udp", "PW_SCAN_COUNTS": "any"}, 0),
    ],
)
def test_the_program_looks_only_at_packets_that_may_count(
    keys: dict[str, str], features: int
) -> None:
    found = image(policies={"default": keys})
    assert abi.HEADER.unpack(found.first)["features"] == features | abi.F_ENFORCED


def test_published_ports_are_bits() -> None:
    found = image(policies={"default": {"PW_PUBLISHED_PORTS": "1,63-64,65535,53/udp,2/sctp"}})
    words = abi.HEADER.unpack(found.first)["published"]
    assert {i: word for i, word in enumerate(words) if word} == {
        0: 2 | 1 << 63,
        1: 1,
        1023: 1 << 63,
        1024: 1 << 53,
        2048: 1 << 2,
    }


def test_ban_rate_never_takes_more_than_the_ring_within_a_ban_time() -> None:
    for seconds in ("1", "600", "86400"):
        header = abi.HEADER.unpack(image(policies={"default": {"PW_BAN_TIME": seconds}}).first)
        interval, burst = header["ban_interval_ns"], header["ban_burst_ns"]
        bans = burst // interval + int(seconds) * 10**9 // interval + 1
        assert bans <= header["ring_capacity"]


def test_digests_are_sha256() -> None:
    assert sha256(PAGE).digest() == hashlib.sha256(PAGE).digest()
