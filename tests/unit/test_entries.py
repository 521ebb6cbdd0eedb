# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""List files and inventory entries: read, merge, write; and the bulk reader agrees."""

from __future__ import annotations

from datetime import UTC, date, datetime
from random import Random
from typing import Any, Literal

import pytest
from unit.comparing import as_lists

from packetwatch_core._base.address import Prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput, InvalidInputs
from packetwatch_core._declared import bulk
from packetwatch_core._declared.bulk import read_prefixes
from packetwatch_core._declared.entries import (
    Entry,
    entries_from_input,
    expires_at,
    format_list,
    merge_inputs,
    parse_list,
)
from packetwatch_core._tables.ranges import Prefixes, Spans, unite

NEW_YEAR = "2027-01-01T00:00:00Z"
NEW_YEAR_SECONDS = 1798761600.0


def an_entry(text: str, comment: str = "", expires: str | None = None, origin: str = "") -> Entry:
    return Entry(parse_prefix(text), comment, expires, origin)


# Reading list files


def test_list_with_everything_that_a_line_may_have() -> None:
    text = (
        "# our friends\n"
        "\n"
        "192.0.2.7\n"
        "  203.0.113.0/24   # a customer\r\n"
        "2001:DB8::/32\texpires=2027-01-01T01:00:00+01:00#short\n"
        "192.0.2.8 expires=2027-01-01t00:00:00z"
    )
    assert parse_list(text, "x.list") == [
        an_entry("192.0.2.7"),
        an_entry("203.0.113.0/24", "a customer"),
        an_entry("2001:db8::/32", "short", NEW_YEAR),
        an_entry("192.0.2.8", "", NEW_YEAR),
    ]


def test_empty_list() -> None:
    assert parse_list("", "x.list") == []
    assert parse_list("\n# nothing\n", "x.list") == []
    assert format_list([]) == ""


def test_byte_order_mark_means_nothing() -> None:
    assert parse_list("\ufeff192.0.2.7\n", "x.list") == [an_entry("192.0.2.7")]
    assert read(b"\xef\xbb\xbf192.0.2.7\n").entries == 1


WRONG_LINES = [
    ("192.0.2.7/24", "write 192.0.2.0/24"),
    ("192.0.2.7 192.0.2.8", "one prefix per line"),
    ("192.0.2.7 expires=2027-01-01T00:00:00Z forever", "one prefix per line"),
    ("192.0.2.7 until=tomorrow", "one prefix per line"),
    ("192.0.2.7 // a comment", "begins with #"),
    ("192.0.2.7 expires=2027-01-01", "not a time with a zone"),
    ("192.0.2.7 expires=2027-01-01T00:00:00", "not a time with a zone"),
    ("192.0.2.7 expires=2027-02-30T00:00:00Z", "not a time with a zone"),
    ("192.0.2.7 expires=20270101T000000Z", "not a time with a zone"),
    ("192.0.2.7 expires=", "not a time with a zone"),
    ("expires=2027-01-01T00:00:00Z", "is not an IP address"),
    ("::ffff:192.0.2.7", "write 192.0.2.7"),
    ("::ffff:192.0.2.0/120", "write 192.0.2.0/24"),
    ("2001:db8::1/64", "write 2001:db8::/64"),
    ("192.0.2.0/024", "write /24"),
    ("192.0.2.0/", "a number from 0 to 32"),
    ("192.0.2.01", "leading zeros"),
    ("1.2.3", "is not an IP address"),
    ("192.0.2.7,", "is not an IP address"),
    ("192.0.2.\ufffd", "is not an IP address"),
    ("fe80::1%eth0", "write 'fe80::1'"),
]


@pytest.mark.parametrize(("line", "remedy"), WRONG_LINES)
def test_wrong_line_is_named_with_its_file(line: str, remedy: str) -> None:
    text = f"# first\n192.0.2.1\n2001:db8::/32\n{line}\n192.0.2.9\n"
    for parse in (parse_list, read_as_list):
        with pytest.raises(InvalidInput) as caught:
            parse(text, "feed.list")
        assert str(caught.value).startswith("feed.list, line 4: ")
        assert remedy in str(caught.value)


# Writing list files


def test_list_is_sorted_by_family_address_and_length() -> None:
    texts = ["2001:db8::1", "10.0.0.0/9", "::/0", "9.255.0.0/16", "10.0.0.0/8", "10.0.0.0"]
    assert format_list(an_entry(text) for text in texts).split() == [
        "9.255.0.0/16",
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.0.0.0",
        "::/0",
        "2001:db8::1",
    ]


def test_line_has_expiry_before_comment() -> None:
    assert format_list([an_entry("192.0.2.7", "a # b", NEW_YEAR)]) == (
        f"192.0.2.7 expires={NEW_YEAR} # a # b\n"
    )


def test_written_list_reads_back_and_stays_the_same() -> None:
    entries = [
        an_entry("192.0.2.7", "x"),
        an_entry("192.0.2.8", "", NEW_YEAR),
        an_entry("::/0", "# y"),
    ]
    text = format_list(entries)
    assert parse_list(text, "x") == [*entries[:2], an_entry("::/0", "# y")]
    assert format_list(parse_list(text, "x")) == text


def test_equal_prefixes_become_one_line_with_the_first_comment() -> None:
    entries = [
        an_entry("192.0.2.7"),
        an_entry("192.0.2.7", "first"),
        an_entry("192.0.2.7", "second"),
    ]
    assert format_list(entries) == "192.0.2.7 # first\n"


def test_equal_prefixes_with_different_expiry_are_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        format_list([an_entry("192.0.2.7", "", NEW_YEAR), an_entry("192.0.2.7")])
    assert "192.0.2.7 expires never" in str(caught.value)
    assert f"192.0.2.7 expires at {NEW_YEAR}" in str(caught.value)


# Inventory input


def test_input_as_texts_and_dictionaries() -> None:
    assert entries_from_input(
        [
            "203.0.113.0/24",
            {"address": "2001:DB8::/32", "comment": "lab", "expires": "2027-01-01T02:00:00+02:00"},
            {"address": "192.0.2.7", "state": "present", "comment": None, "expires": None},
        ],
        "packetwatch_deny",
    ) == [
        an_entry("203.0.113.0/24", origin="packetwatch_deny[0]"),
        an_entry("2001:db8::/32", "lab", NEW_YEAR, "packetwatch_deny[1]"),
        an_entry("192.0.2.7", origin="packetwatch_deny[2]"),
    ]


def test_absent_withdraws_a_prefix_before_and_after_it() -> None:
    values: list[Any] = [
        "192.0.2.7",
        {"address": "192.0.2.7/32", "state": "absent"},
        {"address": "192.0.2.7", "expires": NEW_YEAR},
        "192.0.2.0/24",
    ]
    assert entries_from_input(values, "x") == [an_entry("192.0.2.0/24")]


def test_duplicate_input_is_one_entry() -> None:
    assert entries_from_input(["10.0.0.0/8", "10.0.0.0/8"], "x") == [an_entry("10.0.0.0/8")]


def test_input_that_disagrees_about_the_expiry_names_both_items() -> None:
    values = ["192.0.2.7", {"address": "192.0.2.7", "expires": NEW_YEAR}]
    with pytest.raises(InvalidInput, match=r"x\[1\].*x\[0\]"):
        entries_from_input(values, "x")


def test_comment_of_several_lines_becomes_one() -> None:
    (entry,) = entries_from_input([{"address": "192.0.2.7", "comment": " a\n b\x1b\t# c "}], "x")
    assert entry.comment == "a b # c"
    assert parse_list(format_list([entry]), "x") == [entry]


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("192.0.2.7/24", "write 192.0.2.0/24"),
        ("", "is empty"),
        (" 192.0.2.7", "write '192.0.2.7'"),
        (True, "True is a boolean, not the text of an address"),
        (167772161, "a number, not the text of an address: put the address in quotes"),
        (10.1, "a number"),
        (None, "the entry is empty: write an address after its dash, or remove it"),
        (["192.0.2.7"], "['192.0.2.7'] is a list inside a list: write its entries one level up"),
        (
            {"198.51.100.0/24": "scrapers"},
            "198.51.100.0/24: scrapers is a dictionary, because of the colon: write address: 198.51.100.0/24",
        ),
        (date(2027, 1, 1), "a date"),
        ({}, "has no address"),
        ({"address": 1}, "address is 1, a number: put the address in quotes"),
        ({"address": ["192.0.2.7"]}, "a list"),
        ({"address": "192.0.2.7", "ttl": 5}, "ttl: unknown key"),
        ({"adress": "192.0.2.7"}, "adress: unknown key"),  # codespell:ignore
        ({"address": "192.0.2.7", "state": "gone"}, "present or absent"),
        ({"address": "192.0.2.7", "state": True}, "present or absent"),
        ({"address": "192.0.2.7", "comment": {}}, "put the comment in quotes"),
        ({"address": "192.0.2.7", "comment": False}, "put the comment in quotes"),
        ({"address": "192.0.2.7", "expires": date(2027, 1, 1)}, "write it in quotes"),
        (
            {"address": "192.0.2.7", "expires": datetime(2027, 1, 1, tzinfo=UTC)},
            "write it in quotes",
        ),
        ({"address": "192.0.2.7", "expires": 1798761600}, "write a time in quotes"),
        ({"address": "192.0.2.7", "expires": True}, "write a time in quotes"),
        ({"address": "192.0.2.7", "expires": "tomorrow"}, "not a time with a zone"),
        ({"address": "192.0.2.7", "expires": "0001-01-01T00:00:00+01:00"}, "out of range"),
    ],
)
def test_wrong_item_is_named_with_its_index(value: object, remedy: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        entries_from_input(["192.0.2.1", value], "packetwatch_allow")
    assert str(caught.value).startswith("packetwatch_allow[1]: ")
    assert remedy in str(caught.value)


@pytest.mark.parametrize("values", ["192.0.2.7", None, {"address": "192.0.2.7"}, 7, True])
def test_input_that_is_no_list(values: object) -> None:
    with pytest.raises(InvalidInput, match=r"packetwatch_deny is .*: write a list of addresses"):
        entries_from_input(values, "packetwatch_deny")


def test_times_are_unix_seconds() -> None:
    assert expires_at(NEW_YEAR) == NEW_YEAR_SECONDS
    assert expires_at("2027-01-01T00:00:00.25-05:00") == NEW_YEAR_SECONDS + 5 * 3600 + 0.25
    with pytest.raises(InvalidInput, match="RFC 3339"):
        expires_at("2027-01-01 00:00:00Z")


def test_all_wrong_items_are_named_at_once() -> None:
    with pytest.raises(InvalidInputs) as caught:
        merge_inputs({"a": ["x", "192.0.2.7", None], "b": None, "c": "192.0.2.7"})
    assert [text.partition(" ")[0] for text in caught.value.problems] == [
        "a[0]:",
        "a[2]:",
        "b",
        "c",
    ]
    assert str(caught.value) == "; ".join(caught.value.problems)


# Variables that merge


def test_variables_merge_and_duplicates_are_counted() -> None:
    entries, repeated, origins = merge_inputs(
        {
            "packetwatch_deny": ["192.0.2.7", {"address": "198.51.100.7", "state": "absent"}],
            "packetwatch_deny__web": [
                {"address": "192.0.2.7", "comment": "scraper"},
                "198.51.100.7",
                "192.0.2.7",
                {"address": "203.0.113.0/24", "comment": "ticket", "expires": NEW_YEAR},
            ],
        }
    )
    assert entries == [
        an_entry("192.0.2.7", "scraper", origin="packetwatch_deny[0]"),
        an_entry("203.0.113.0/24", "ticket", NEW_YEAR, "packetwatch_deny__web[3]"),
    ]
    assert repeated == 2
    assert origins == {
        parse_prefix("192.0.2.7"): "packetwatch_deny[0]",
        parse_prefix("203.0.113.0/24"): "packetwatch_deny__web[3]",
    }


def test_variables_that_disagree_are_named_with_their_indices() -> None:
    item = {"address": "192.0.2.7", "expires": NEW_YEAR}
    with pytest.raises(
        InvalidInput,
        match=r"packetwatch_deny__web\[1\]: 192\.0\.2\.7 expires at .*, but in packetwatch_deny\[0\]",
    ):
        merge_inputs(
            {"packetwatch_deny": ["192.0.2.7"], "packetwatch_deny__web": ["192.0.2.8", item]}
        )


# Reading in bulk


def read(
    text: str | bytes,
    now: float = 0.0,
    synchronised: bool = True,
    kind: Literal["allow", "deny"] = "deny",
) -> Prefixes:
    return read_prefixes(text, "x.list", now, synchronised, kind)


def read_as_list(text: str, name: str) -> Prefixes:
    return read_prefixes(text, name, 0.0, True, "allow")


def spans(found: Prefixes) -> tuple[Spans, Spans]:
    return as_lists(unite(found.v4)), as_lists(unite(found.v6))


def spans_of(prefixes: list[Prefix]) -> tuple[Spans, Spans]:
    expected = Prefixes()
    for prefix in prefixes:
        blocks = expected.v4 if prefix.family == 4 else expected.v6
        blocks.starts.extend([prefix.value])
        blocks.ends.extend([prefix.last])
    return spans(expected)


LINES = (
    "192.0.2.7",
    "192.0.2.8/32",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "::",
    "::1/128",
    "2001:db8::/32",
    "2001:DB8::1",
    "::/0",
    "::/64",
    "",
    "# 1.2.3.4",
    "192.0.2.9 # a",
    "192.0.2.10# 2001:db8::7 a/b",
    "  192.0.2.11\r",
    "192.0.2.12\x0b",
    "\t2001:db8::2   expires=2027-01-01T00:00:00Z # x",
    "10.9.0.0/16 expires=2027-01-01T00:00:00Z",
)


def test_bulk_reads_what_the_parser_of_lists_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(1)
    for size in (1, 30, 1 << 18):
        monkeypatch.setattr(bulk, "_PIECE", size)
        for count in range(60):
            text = "\n".join(random.choices(LINES, k=count)) + random.choice(("", "\n"))
            entries = parse_list(text, "x")
            for form in (text, text.encode()):
                found = read(form)
                assert found.entries == len(entries)
                assert spans(found) == spans_of([entry.prefix for entry in entries])


def test_wrong_line_far_after_the_first_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_PIECE", 100)
    lines = ["192.0.2.7 # a comment"] * 500
    lines[345] = "2001:db8::1/3"
    with pytest.raises(InvalidInput, match=r"^x\.list, line 346: "):
        read("\n".join(lines))


def test_comment_in_another_encoding_is_no_error() -> None:
    assert read(b"192.0.2.7 # caf\xe9\n").entries == 1  # codespell:ignore
    with pytest.raises(InvalidInput, match="line 1"):
        read(b"192.0.2.7\xe9\n")


EXPIRING = f"192.0.2.7\n192.0.2.8 expires={NEW_YEAR}\n192.0.2.9 expires=2027-06-01T00:00:00Z\n"


def test_entry_holds_until_the_second_of_its_expiry() -> None:
    before = read(EXPIRING, now=NEW_YEAR_SECONDS - 0.1)
    assert (before.entries, before.expired, before.next_expiry) == (3, 0, NEW_YEAR_SECONDS)
    after = read(EXPIRING, now=NEW_YEAR_SECONDS)
    assert (after.entries, after.expired) == (2, 1)
    assert after.next_expiry == expires_at("2027-06-01T00:00:00Z")
    last = read(EXPIRING, now=NEW_YEAR_SECONDS * 2)
    assert (last.entries, last.expired, last.next_expiry) == (1, 2, None)


def test_before_the_clock_is_right_deny_stays_in_and_allow_stays_out() -> None:
    deny = read(EXPIRING, 0.0, synchronised=False, kind="deny")
    assert (deny.entries, deny.expired, deny.undecided, deny.next_expiry) == (3, 0, 2, None)
    allow = read(EXPIRING, 0.0, synchronised=False, kind="allow")
    assert (allow.entries, allow.expired, allow.undecided, allow.next_expiry) == (1, 0, 2, None)


@pytest.mark.parametrize("kind", ["allow", "deny"])
@pytest.mark.parametrize("synchronised", [True, False])
def test_what_has_expired_once_stays_expired(
    kind: Literal["allow", "deny"], synchronised: bool
) -> None:
    found = read(EXPIRING, NEW_YEAR_SECONDS * 2, synchronised=synchronised, kind=kind)
    assert (found.entries, found.expired, found.undecided, found.next_expiry) == (1, 2, 0, None)


def test_lists_are_united() -> None:
    union = read("192.0.2.7\n2001:db8::/32\n", now=1.0)
    union.add(read(f"192.0.2.8 expires={NEW_YEAR}\n10.0.0.0/8\n::1\n", now=1.0))
    union.add(read("192.0.2.6 expires=2026-01-01T00:00:00Z\n", now=NEW_YEAR_SECONDS))
    assert (union.entries, union.expired, union.next_expiry) == (5, 1, NEW_YEAR_SECONDS)
    texts = ["10.0.0.0/8", "192.0.2.7", "192.0.2.8", "::1", "2001:db8::/32"]
    assert spans(union) == spans_of([parse_prefix(text) for text in texts])


def test_an_entry_knows_the_variable_that_has_it() -> None:
    found = merge_inputs(
        {
            "packetwatch_deny": ["192.0.2.1", {"address": "192.0.2.2", "comment": "ticket 7"}],
            "packetwatch_deny__security": [
                "192.0.2.2",
                {"address": "192.0.2.3", "expires": NEW_YEAR},
            ],
            "deny": ["192.0.2.4"],
        }
    ).entries
    text = format_list(found)
    assert text == (
        "192.0.2.1 # (packetwatch_deny[0])\n"
        "192.0.2.2 # ticket 7 (packetwatch_deny[1])\n"
        f"192.0.2.3 expires={NEW_YEAR} # (packetwatch_deny__security[1])\n"
        "192.0.2.4\n"
    )
    assert parse_list(text, "x") == found
    assert read(text, now=0.0).entries == 4


@pytest.mark.parametrize(
    "comment",
    [
        "(packetwatch_deny)",
        "packetwatch_deny[0]",
        "(packetwatch_deny[x])",
        "(packetwatch_deny[0]) x",
    ],
)
def test_other_comments_are_comments(comment: str) -> None:
    (entry,) = parse_list(f"192.0.2.1 # {comment}\n", "x")
    assert (entry.comment, entry.origin) == (comment, "")
