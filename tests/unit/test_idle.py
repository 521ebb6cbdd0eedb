# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries without effect: which they are, and by what they are shadowed."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
import yaml

from packetwatch_core._active import lists
from packetwatch_core._active.idle import Idle
from packetwatch_core._active.lists import compile_lists
from packetwatch_core._base.address import BITS, Prefix, format_prefix, parse_prefix
from packetwatch_core._declared.edits import list_text
from packetwatch_core._declared.store import State

INVENTORY = """
packetwatch_allow__a: ["203.0.113.0/24"]
packetwatch_deny__b: ["203.0.113.66"]
packetwatch_allow__c: ["::/0"]
packetwatch_deny__d: ["2001:db8:5::/48"]
packetwatch_allow__e: ["198.51.100.9"]
packetwatch_deny__f: ["198.51.100.9"]
"""


def idle(state: State) -> Idle:
    found = compile_lists(state, judge=True).idle
    assert found is not None
    return found


def of_lists(allow: str, deny: str) -> Idle:
    return idle(State(allow={"local": allow}, deny={"feed-x": deny}))


def test_entries_of_variables_are_named_with_what_shadows_them() -> None:
    variables: dict[str, Any] = yaml.safe_load(INVENTORY)
    texts = {
        kind: list_text({name: value for name, value in variables.items() if kind in name}, kind)
        for kind in ("allow", "deny")
    }
    found = idle(
        State(allow={"ansible": texts["allow"].text}, deny={"ansible": texts["deny"].text})
    )
    assert found.counts == {"shadowed": 3, "impossible": 0, "expired": 0}
    assert found.texts == [
        "packetwatch_deny__f[0]: 198.51.100.9 has no effect: packetwatch_allow__e[0] allows it; "
        "remove one of the two",
        "packetwatch_deny__b[0]: 203.0.113.66 has no effect: packetwatch_allow__a[0] allows "
        "203.0.113.0/24; remove one of the two",
        "packetwatch_deny__d[0]: 2001:db8:5::/48 has no effect: packetwatch_allow__c[0] allows ::/0; "
        "remove one of the two",
    ]


def test_entries_of_other_lists_are_named_with_their_lists() -> None:
    assert of_lists("192.0.2.0/24 # ours\n", "192.0.2.7\n").texts == [
        "the deny list 'feed-x': 192.0.2.7 has no effect: the allow list 'local' allows 192.0.2.0/24; "
        "remove one of the two"
    ]


def test_several_entries_may_shadow_one() -> None:
    assert of_lists("192.0.2.0/25\n192.0.2.128/25\n", "192.0.2.0/24\n").texts == [
        "the deny list 'feed-x': 192.0.2.0/24 has no effect: several allowed prefixes cover it; "
        "remove one of the two"
    ]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("224.0.0.251", "no packet has a multicast address as its source; remove it"),
        ("239.0.0.0/8", "no packet has a multicast address as its source; remove it"),
        ("255.255.255.255", "no packet has the broadcast address as its source; remove it"),
        ("ff02::1", "no packet has a multicast address as its source; remove it"),
        (
            "::ffff:0:102:304",
            "no packet has a translated IPv4 address as its source; write 1.2.3.4 instead",
        ),
        (
            "::ffff:0:c000:200/120",
            "no packet has a translated IPv4 address as its source; write 192.0.2.0/24 instead",
        ),
    ],
)
def test_sources_that_no_packet_has(entry: str, why: str) -> None:
    found = of_lists("", f"{entry}\n")
    assert found.counts["impossible"] == 1
    assert found.texts == [f"the deny list 'feed-x': {entry} has no effect: {why}"]
    assert of_lists(f"{entry}\n", "").texts == [
        f"the allow list 'local': {entry} has no effect: {why}"
    ]


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        ("192.0.2.0/25", "192.0.2.0/24"),
        ("192.0.2.7", "192.0.2.0/24"),
        ("", "0.0.0.0/0"),
        ("", "::/0"),
        ("", "224.0.0.0/3"),
        ("", "::"),
        ("", "0.0.0.0"),
        ("::/0", "192.0.2.7"),
        ("192.0.2.7 expires=2020-01-01T00:00:00Z", "2001:db8::7"),
    ],
)
def test_others_have_an_effect(allow: str, deny: str) -> None:
    counts = of_lists(f"{allow}\n", f"{deny}\n").counts
    assert (counts["shadowed"], counts["impossible"]) == (0, 0)


def test_expired_entries_are_named() -> None:
    text = "192.0.2.7 expires=2020-01-01T00:00:00Z # old\n192.0.2.8 expires=2120-01-01T00:00:00Z\n"
    found = of_lists("", text)
    assert found.counts == {"shadowed": 0, "impossible": 0, "expired": 1}
    assert found.texts == [
        "the deny list 'feed-x': 192.0.2.7 has no effect: it expired at 2020-01-01T00:00:00Z; remove it"
    ]


def test_only_some_are_named_and_all_are_counted() -> None:
    deny = "".join(f"192.0.2.{number}\n" for number in range(256))
    found = of_lists("192.0.2.0/24\n", deny + "198.51.100.0/24\n")
    assert found.counts["shadowed"] == 256
    assert len(found.texts) == 5


@pytest.mark.parametrize("base", ["192.0.0.0/20", "2001:db8::/116"])
@pytest.mark.parametrize("size", [3, 40, 900])
def test_the_count_is_that_of_a_plain_comparison(base: str, size: int) -> None:
    """With few and with many allowed spans."""
    chance = random.Random(size)
    space = parse_prefix(base)

    def some(count: int) -> list[Prefix]:
        found = set()
        for dummy in range(count):
            size = 1 << chance.choice((0, 0, 0, 1, 2, 5))
            start = space.value + chance.randrange(4096) // size * size
            length = BITS[space.family] - size.bit_length() + 1
            found.add(Prefix(space.family, start, length))
        return sorted(found)

    allow, deny = some(size), some(500)
    allowed = {address for prefix in allow for address in range(prefix.value, prefix.last + 1)}
    expected = [
        prefix for prefix in deny if allowed.issuperset(range(prefix.value, prefix.last + 1))
    ]
    assert 0 < len(expected) < len(deny)
    texts = ["".join(f"{format_prefix(prefix)}\n" for prefix in part) for part in (allow, deny)]
    assert of_lists(*texts).counts["shadowed"] == len(expected)


def test_a_boot_does_not_look_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(allow={}, deny={"x": "224.0.0.1\n"})
    monkeypatch.setitem(sys.modules, lists.__name__.replace("lists", "idle"), None)
    assert compile_lists(state).idle is None
    with pytest.raises(ImportError):
        compile_lists(state, judge=True)
