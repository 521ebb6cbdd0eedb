# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much a feed may cover, and by how much a copy may differ, in addresses."""

from __future__ import annotations

from typing import Literal

import pytest

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.edit import FeedEdit, WantedFeed
from packetwatch_core._feeds.parse import Copy, Format, Rules, read_feed
from packetwatch_core._feeds.width import BOUNDS, Bounds

Kind = Literal["allow", "deny"]


def read(text: str, bounds: Bounds, kind: str = "plain", bogons: bool = False) -> Copy:
    return read_feed(text.encode(), Format(kind), "x", Rules(bogons, 0, bounds))


@pytest.mark.parametrize(
    ("kind", "text", "wide"),
    [
        ("deny", "44.0.0.0/8\n", ""),
        ("deny", "44.0.0.0/7\n", "44.0.0.0/7 is wider than /8: .* set widest.ipv4 to 7"),
        ("deny", "2a00::/19\n", ""),
        ("deny", "2a00::/18\n", "2a00::/18 is wider than /19: .* set widest.ipv6 to 18"),
        ("allow", "44.1.0.0/16\n", ""),
        ("allow", "44.0.0.0/15\n", "44.0.0.0/15 is wider than /16: .* set widest.ipv4 to 15"),
        ("allow", "2a00::/32\n", ""),
        ("allow", "2a00::/31\n", "2a00::/31 is wider than /32"),
    ],
)
def test_a_wide_entry_is_refused(kind: str, text: str, wide: str) -> None:
    text = f"{text}45.9.148.7\n2a06::7\n"
    if not wide:
        assert read(text, BOUNDS[kind]).entries == 3
        return
    with pytest.raises(InvalidInput, match=rf"feed x: {wide}"):
        read(text, BOUNDS[kind])


def eights(count: int) -> str:
    return "".join(f"{number}.0.0.0/8\n" for number in range(20, 20 + count))


def test_all_entries_together_are_bounded() -> None:
    assert read(eights(8), BOUNDS["deny"]).entries == 8
    with pytest.raises(InvalidInput) as caught:
        read(eights(12), BOUNDS["deny"])
    assert str(caught.value) == (
        "feed x covers more IPv4 addresses than a /5 has: check the feed; if it is right, set "
        "widest_sum.ipv4 to 4"
    )
    assert read(eights(12), BOUNDS["deny"]._replace(sum={4: 4, 6: 16})).entries == 12
    nineteens = "".join(f"2a{number:02x}::/19\n" for number in range(9))
    with pytest.raises(
        InvalidInput, match=r"more IPv6 addresses than a /16 has: .* widest_sum.ipv6 to 15"
    ):
        read(nineteens, BOUNDS["deny"])


def test_a_range_is_bounded_too() -> None:
    with pytest.raises(InvalidInput, match=r"is wider than /8|more IPv4 addresses than a /5"):
        read("203.0.114.0-223.255.255.255\n", BOUNDS["deny"], "ranges")


@pytest.mark.parametrize("text", ["224.0.0.0/3\n", "fc00::/7\n", "240.0.0.0/4\n10.0.0.0/8\n"])
def test_special_purpose_space_does_not_count(text: str) -> None:
    assert read(f"{text}45.9.148.7\n", BOUNDS["allow"]).text == "45.9.148.7\n"
    assert read(text, BOUNDS["allow"], bogons=True).entries == text.count("\n")
    with pytest.raises(InvalidInput, match=r"0.0.0.0/0 is wider than /16"):
        read("0.0.0.0/0\n", BOUNDS["allow"], bogons=True)


# The difference from the last good copy

HOSTS = [f"198.18.{number}.{number}" for number in range(200)]
BEFORE = "".join(f"{host}\n" for host in HOSTS)


def status(before: str, after: str, kind: Kind = "deny", limit: float = 50) -> tuple[str, str]:
    lists = {"feed-x": before}
    state = State(deny=lists) if kind == "deny" else State(allow=lists)
    edit = FeedEdit([WantedFeed("x", kind, after, limit)])
    edit(state)
    return edit.outcomes["x"]


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("198.19.0.0/16\n", "(0 of 200 IPv4 addresses gone, 65536 new)"),
        ("2001:db8::/32\n", "(0 of 0 IPv6 /64s gone, 4294967296 new)"),
        ("20.0.0.0/8\n", "(0 of 200 IPv4 addresses gone, 16777216 new)"),
        ("20.0.0.0/20\n", "(0 of 200 IPv4 addresses gone, 4096 new)"),
        ("2001:db8::/46\n", "(0 of 0 IPv6 /64s gone, 262144 new)"),
    ],
)
def test_few_entries_with_many_addresses_are_unlikely(new: str, words: str) -> None:
    found, reason = status(BEFORE, BEFORE + new)
    assert found == "kept"
    assert words in reason
    assert "max_change is 50" in reason


def test_some_entries_that_became_wide_are_unlikely() -> None:
    after = "".join(f"{line}\n" for line in HOSTS[2:]) + "198.19.0.0/16\n2001:db8::/32\n"
    assert status(BEFORE, after)[0] == "kept"
    wide = "".join(f"{line}\n" for line in HOSTS[12:]) + eights(12)
    assert status(BEFORE, wide)[0] == "kept"


@pytest.mark.parametrize("new", ["20.0.0.0/24\n", "20.0.0.0/21\n", "2a00::7\n", "2a00::/48\n"])
def test_a_short_list_may_get_a_network(new: str) -> None:
    assert status(BEFORE, BEFORE + new) == ("current", "")


def test_allow_feeds_are_stricter() -> None:
    assert status(BEFORE, BEFORE + "20.0.0.0/24\n", "allow")[0] == "current"
    assert status(BEFORE, BEFORE + "20.0.0.0/23\n", "allow")[0] == "kept"


def test_lost_addresses_count_too() -> None:
    before = f"20.0.0.0/12\n{BEFORE}"
    found, reason = status(before, BEFORE)
    assert found == "kept"
    assert "(1048576 of 1048776 IPv4 addresses gone, 0 new)" in reason
    assert status(before, BEFORE, limit=100) == ("current", "")
    six = "".join(f"2a00:{number:x}::/48\n" for number in range(100))
    found, reason = status(f"2a01::/32\n{six}", six)
    assert "(4294967296 of 4301520896 IPv6 /64s gone, 0 new)" in reason


def test_addresses_that_two_entries_cover_count_once() -> None:
    before = "20.0.0.0/12\n"
    after = "20.0.0.0/13\n20.8.0.0/13\n20.0.0.1\n"
    assert status(before, after, limit=300) == ("current", "")
    reason = status(before, after)[1]
    assert "(1 of 1 entries gone, 3 new)" in reason


def test_an_empty_list_may_fill_again() -> None:
    assert status("", BEFORE) == ("current", "")
