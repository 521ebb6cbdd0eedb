# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Room for lists: it grows and shrinks by itself, within the limit, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import time

import pytest
from kernel.hosting import (
    DENIED,
    FULL,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Site,
    wait_gone,
)

from packetwatch_core._base.errors import TooLarge
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.libbpf import Map

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

MILLION = 1_000_000
LARGE = MILLION if FULL else 100_000
CROSSING = 60_000
CROSSINGS = 20 if FULL else 4


def hosts(count: int, first: int = 0) -> str:
    """Return addresses spread over 1.0.0.0 to 126.255.255.255, without duplicates."""
    step = 0x7E000000 // count
    numbers = (0x01000000 + (first + i) * step for i in range(count))
    return "".join(f"{socket.inet_ntoa(number.to_bytes(4, 'big'))}\n" for number in numbers)


def capacity(site: Site) -> int:
    """Return the pages of the active generation."""
    with Map.by_id(site.generation_id()) as pages:
        return pages.info.max_entries


@pytest.mark.slow
def test_ten_to_a_million_and_back(filtered: Site) -> None:
    small, large = hosts(10), hosts(LARGE)
    filtered.lists(f"{DENIED}\n{small}")
    before = filtered.objects()

    started = time.monotonic()
    filtered.lists(f"{DENIED}\n{large}")
    print(f"{LARGE} entries compiled and live: {time.monotonic() - started:.2f} s")
    between = filtered.objects()
    assert capacity(filtered) >= LARGE * 8 / abi.PAGE
    assert filtered.verdict("1.0.0.0") == filtered.verdict(DENIED) == XDP_DROP
    assert filtered.verdict(UNLISTED) == XDP_PASS
    wait_gone(before - between)

    filtered.lists(f"{DENIED}\n{small}")
    after = filtered.objects()
    assert capacity(filtered) < 16
    wait_gone(between - after)
    assert len(after) == len(before)
    assert filtered.left_open() == []


def test_lasting_maps_last(filtered: Site) -> None:
    maps = {path: os.stat(path).st_ino for path in filtered.pinned_maps()}
    filtered.lists(hosts(CROSSING))
    assert {path: os.stat(path).st_ino for path in filtered.pinned_maps()} == maps


def test_same_lists_again_change_nothing(filtered: Site) -> None:
    text = hosts(CROSSING)
    assert filtered.lists(text).changed
    before = filtered.snapshot()
    assert not filtered.lists(text).changed
    assert not filtered.host.apply().changed
    assert filtered.snapshot() == before


def test_another_order_or_comment_changes_no_verdict(filtered: Site) -> None:
    first = filtered.lists(f"{DENIED}\n{UNLISTED}")
    again = filtered.lists(f"{UNLISTED} # comes first\n{DENIED}\n")
    assert again.changed
    assert again.digest_after == first.digest_after
    assert not filtered.host.apply().changed


def test_small_changes_stay_in_their_slot(filtered: Site) -> None:
    filtered.lists(hosts(30_000))
    program = filtered.objects() & {item for item in filtered.objects() if item[0] == "program"}
    for count in (31_000, 29_000):
        filtered.lists(hosts(count))
        assert program <= filtered.objects()


@pytest.mark.slow
def test_crossings_leave_nothing_over(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    ever: set[tuple[str, int]] = set()
    large = hosts(CROSSING)
    for number in range(CROSSINGS):
        filtered.lists(large if number % 2 == 0 else DENIED)
        ever |= filtered.objects()
    assert len({item for item in ever if item[0] == "program"}) == CROSSINGS
    wait_gone(ever - filtered.objects())
    assert filtered.left_open() == []
    filtered.host.detach("pw1")
    filtered.host.detach("pw0")
    wait_gone(ever)


@pytest.mark.slow
def test_too_large_is_refused_before_anything_changes(filtered: Site) -> None:
    filtered.settings(PW_LIST_MEMORY="1")
    text = hosts(100_000)
    before = filtered.snapshot()
    with pytest.raises(TooLarge) as caught:
        filtered.lists(text)
    assert filtered.snapshot() == before
    words = str(caught.value).split()
    need = int(words[words.index("MiB") - 1])
    assert f"set packetwatch_list_memory (PW_LIST_MEMORY) to {need} or more" in str(caught.value)
    filtered.settings(PW_LIST_MEMORY=str(need))
    assert filtered.lists(text).changed


def test_too_large_is_foretold(site: Site) -> None:
    site.settings(PW_LIST_MEMORY="1")
    with pytest.raises(TooLarge):
        site.lists(hosts(100_000))
    assert site.host.store.read_current()[0] == 0


@pytest.mark.slow
def test_a_bound_lowered_later_holds_up_no_boot(filtered: Site) -> None:
    filtered.lists(f"{hosts(100_000)}{DENIED}\n")
    filtered.settings(PW_LIST_MEMORY="1")
    assert not filtered.host.apply().changed
    filtered.power_off()
    filtered.host.attach("pw0")
    assert filtered.verdict(DENIED) == XDP_DROP
    # Only a new declaration is refused.
    with pytest.raises(TooLarge):
        filtered.lists(hosts(100_001))
