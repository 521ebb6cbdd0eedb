# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from packetwatch_core._base.clock import Clock
from packetwatch_core._declared.bulk import read_prefixes
from packetwatch_core._declared.describe import (
    count_entries,
    count_lists,
    describe,
    format_ranges,
    has_entries,
    list_entries,
)
from packetwatch_core._declared.store import State
from packetwatch_core._tables.ranges import LAST6, Ranges, Spans

BEFORE = State(
    allow={"ansible": "192.0.2.1\n"},
    deny={"ansible": "# head\n\n198.51.100.7 # scanner\n203.0.113.0/24\n", "local": "10.0.0.1\n"},
    policy={"default": {"PW_ACTION": "enforce"}},
    interfaces={"eth0": "auto"},
)


def test_a_diff_shows_of_lists_only_what_differs() -> None:
    after = BEFORE._replace(deny={**BEFORE.deny, "ansible": "203.0.113.0/24\n198.51.100.8\n"})
    old, new = describe(BEFORE, after)
    head = (
        "interface eth0: auto\npolicy default: PW_ACTION=enforce\n"
        "allow list ansible: present\ndeny list ansible: present\ndeny list local: present\n"
    )
    assert old == f"{head}deny ansible: 198.51.100.7\n"
    assert new == (
        f"{head}deny ansible: 198.51.100.8\n"
        "# more deny entries: 1, IPv4 addresses: 1\n# fewer deny entries: 1, IPv4 addresses: 1\n"
    )


def test_no_change_has_no_difference() -> None:
    old, new = describe(BEFORE, BEFORE)
    assert old == new


def test_comments_alone_are_no_difference_of_entries() -> None:
    after = BEFORE._replace(allow={"ansible": "192.0.2.1 # the office\n"})
    old, new = describe(BEFORE, after)
    assert old == new


def test_a_long_diff_is_cut() -> None:
    many = "".join(f"10.{i >> 8}.{i & 255}.1\n" for i in range(1000))
    dummy, new = describe(State(), State(deny={"ansible": many}))
    lines = new.splitlines()
    assert len(lines) == 203
    assert lines[-2:] == [
        "... and 800 more entries",
        "# more deny entries: 1000, IPv4 addresses: 1000",
    ]


def test_what_comes_and_goes_is_summed_up_without_overlaps() -> None:
    lists = {
        "a": "10.0.0.0/24\n10.0.0.7\n2001:db8::/48\n2001:db8:1::1 expires=2020-01-01T00:00:00Z\n"
    }
    dummy, new = describe(State(allow={"b": "2001:db8::7\n"}), State(deny=lists))
    assert new.splitlines()[-2:] == [
        "# fewer allow entries: 1, IPv6 addresses: 1",
        "# more deny entries: 4, IPv4 addresses: 256, IPv6 /64s: 65536",
    ]


def test_entries_are_counted_without_comments_and_blanks() -> None:
    assert count_entries("# head\n\n  \n10.0.0.1 # one\n10.0.0.2") == 2
    assert count_lists(BEFORE) == {"allow": 1, "deny": 3}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("\n", 0),
        ("10.0.0.1", 1),
        ("10.0.0.1\n10.0.0.2\n", 2),
        ("\n10.0.0.1\n\n10.0.0.2", 2),
        ("# nothing\n", 0),
        # Only \n ends a line, as for the readers of lists.
        ("# a\r10.0.0.1\n", 0),
        ("# a\u202810.0.0.1\n", 0),
        ("\ufeff# nothing\n", 0),
        ("\ufeff10.0.0.1\n", 1),
        ("\f\n\u2003\n \t\n10.0.0.1\r\n", 1),
    ],
)
def test_what_counts_as_an_entry(text: str, count: int) -> None:
    assert count_entries(text) == count
    assert has_entries(text) == bool(count)
    assert read_prefixes(text, "x", 0, True, "deny").entries == count


def test_ranges_have_one_notation() -> None:
    nothing = Spans([], [])
    hosts4, hosts6 = Spans([0x0A000001], [0x0A000001]), Spans([1, 0x01020304], [2, 0x01020304])
    families = Ranges(nothing, hosts4), Ranges(hosts6, Spans([1 << 127], [LAST6]))
    assert format_ranges(families) == {
        "allow": "::1-::2\n::102:304\n",
        "deny": "10.0.0.1\n8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n",
    }


def test_entries_are_listed_with_their_owners() -> None:
    found = list_entries(BEFORE, Clock(1.8e9, True))
    assert [(entry["kind"], entry["owner"], entry["prefix"]) for entry in found] == [
        ("allow", "ansible", "192.0.2.1"),
        ("deny", "ansible", "198.51.100.7"),
        ("deny", "ansible", "203.0.113.0/24"),
        ("deny", "local", "10.0.0.1"),
    ]
    assert found[1]["comment"] == "scanner"
    assert {entry["state"] for entry in found} == {"active"}


def test_an_entry_has_expired_or_will_or_nobody_knows() -> None:
    state = State(allow={"a": "192.0.2.1\n192.0.2.2 expires=2030-01-01T00:00:00Z\n"})
    soon = 1893456000

    def states(clock: Clock) -> list[str]:
        return [entry["state"] for entry in list_entries(state, clock)]

    assert states(Clock(soon - 1, True)) == ["active", "active"]
    assert states(Clock(soon, True)) == states(Clock(soon, False)) == ["active", "expired"]
    assert states(Clock(0, False)) == ["active", "undecided"]


def test_another_expiry_is_a_change_of_one_entry() -> None:
    before = State(deny={"a": "10.0.0.0/24\n10.1.0.1\n", "long": "192.0.2.1\n" * 5})
    after = State(
        deny={
            "a": "10.0.0.0/24 expires=2030-01-01T00:00:00Z\n10.1.0.2\n",
            "long": "192.0.2.1\n" * 5,
        }
    )
    old, new = describe(before, after)
    assert "- " not in old
    assert [line for line in new.splitlines() if line.startswith("#")] == [
        "# more deny entries: 1, IPv4 addresses: 1",
        "# fewer deny entries: 1, IPv4 addresses: 1",
        "# deny entries that expire at another time: 1",
    ]
    assert "192.0.2.1" not in old + new


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("\n", 0),
        ("\n\n\n10.0.0.1\n\n", 1),
        ("# a\n10.0.0.1 # b\n#\n\n10.0.0.2", 2),
        ("#", 0),
        (" # a\n\t\n 10.0.0.1\n", 1),
        ("\ufeff# a\n10.0.0.1\n", 1),
    ],
)
def test_lines_with_an_entry_are_counted(text: str, count: int) -> None:
    assert count_entries(text) == count
