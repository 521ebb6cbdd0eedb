# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from pathlib import Path

import pytest

from packetwatch_core._active.lists import compile_lists, digest_of, is_current
from packetwatch_core._active.protected import check_protected
from packetwatch_core._base import clock as clock_module
from packetwatch_core._base.address import Prefix, mapped, mapped_length, parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared import bulk, entries
from packetwatch_core._declared.edits import list_text, read_list
from packetwatch_core._declared.store import State
from packetwatch_core._kernel import abi
from packetwatch_core._network.protect import DECLARED, OWN, Protection

SOON = "2030-01-01T00:00:00Z"
SOON_SECONDS = 1893456000


def protection(*declared: str, own: tuple[str, ...] = ()) -> Protection:
    found = Protection({}, {}, set(), [])
    for text in declared:
        prefix = parse_prefix(text)
        if prefix.is_host:
            found.hosts[mapped(prefix)] = DECLARED
        else:
            found.nets[mapped_length(prefix), mapped(prefix)] = abi.NET_PROTECTED
    for text in own:
        found.hosts[mapped(parse_prefix(text))] = OWN
    return found


def state(deny: str, allow: str = "") -> State:
    return State(allow={"ansible": allow}, deny={"ansible": deny})


@pytest.mark.parametrize(
    ("deny", "protected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.0/24", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.0/24"),
        ("192.0.2.255", "192.0.2.0/24"),
        ("0.0.0.0/0", "192.0.2.0/24"),
        ("192.0.2.0", "192.0.2.0/24"),
        ("2001:db8::/32", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("::/0", "2001:db8::/64"),
        ("2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:db8::/64"),
    ],
)
def test_a_deny_of_what_is_protected_is_refused(deny: str, protected: str) -> None:
    areas = compile_lists(state(deny)).areas
    with pytest.raises(InvalidInput, match=f"would deny protected addresses: {protected}"):
        check_protected(areas, protection(protected))
    check_protected(compile_lists(state(deny, allow=protected)).areas, protection(protected))


@pytest.mark.parametrize(
    ("deny", "protected"),
    [
        ("192.0.3.0/24", "192.0.2.0/24"),
        ("192.0.1.255", "192.0.2.0/24"),
        ("2001:db8::/32", "192.0.2.0/24"),
        ("0.0.0.0/0", "2001:db8::1"),
        ("", "192.0.2.1"),
    ],
)
def test_a_deny_beside_what_is_protected_is_not(deny: str, protected: str) -> None:
    check_protected(compile_lists(state(deny)).areas, protection(protected))


def test_a_long_list_of_protected_addresses_is_cut() -> None:
    own = tuple(f"192.0.2.{i}" for i in range(8))
    with pytest.raises(
        InvalidInput, match=r"192\.0\.2\.0 \(own address\).* and 3 more; allow them"
    ):
        check_protected(compile_lists(state("192.0.2.0/24")).areas, protection(own=own))


def test_wrong_line_is_named_with_its_drop_in() -> None:
    with pytest.raises(InvalidInput, match=r"deny\.d/team-x\.list, line 2"):
        compile_lists(State(deny={"ansible": "10.0.0.1\n", "team-x": "10.0.0.1\nnone\n"}))


def test_digest_differs_between_lists() -> None:
    states = [
        State(),
        state(""),
        state("10.0.0.1"),
        state("", "10.0.0.1"),
        State(deny={"a": "10.0.0.1"}),
        State(deny={"a": "10.0.0.1\n"}),
        State(deny={"a": "", "b": "10.0.0.1"}),
    ]
    assert len({digest_of(item) for item in states}) == len(states)
    assert digest_of(State(deny={"a": "", "b": ""})) == digest_of(State(deny={"b": "", "a": ""}))


def test_the_variable_that_has_an_entry_changes_no_digest() -> None:
    for comment in ("", " # ticket 7"):
        plain = state(f"10.0.0.1{comment}\n10.0.0.2\n")
        digests = {
            digest_of(state(f"10.0.0.1{comment or ' #'} ({origin})\n10.0.0.2\n"))
            for origin in ("packetwatch_deny[0]", "packetwatch_deny__web[17]")
        }
        assert digests == {digest_of(plain)}
    assert digest_of(state("10.0.0.1 # (packetwatch_deny)\n")) != digest_of(state("10.0.0.1\n"))


def test_tables_are_current_until_an_entry_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = state(f"10.0.0.1 expires={SOON}\n10.0.0.2 expires=2031-01-01T00:00:00Z")
    clock = [SOON_SECONDS - 10.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(clock_module, "clock_synchronised", lambda: True)
    lists = compile_lists(declared)
    assert lists.areas.next_expiry == SOON_SECONDS
    assert is_current(lists.areas, declared)
    assert not is_current(lists.areas, state("10.0.0.1"))
    clock[0] = SOON_SECONDS
    assert not is_current(lists.areas, declared)
    later = compile_lists(declared)
    assert later.counts["expired"] == 1
    assert later.areas.v4 != lists.areas.v4


def test_what_an_unsettled_clock_decided_is_decided_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = state("10.0.0.1 expires=2001-01-01T00:00:00Z")
    clock, settled = [SOON_SECONDS * 1.0], [False]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(clock_module, "clock_synchronised", lambda: settled[0])
    lists = compile_lists(declared)
    assert lists.areas.v4.pages, "an expired deny stays in until the clock can be believed"
    assert is_current(lists.areas, declared)
    clock[0] += 61
    settled[0] = True
    assert not is_current(lists.areas, declared)
    assert not compile_lists(declared).areas.v4.pages


def test_for_good_leaves_out_what_is_allowed_for_a_while() -> None:
    allow = "192.0.2.1 expires=2099-01-01T00:00:00Z\n192.0.2.2\n"
    areas = compile_lists(state("192.0.2.0/24", allow=allow), for_good=True).areas
    check_protected(areas, protection("192.0.2.2"))
    with pytest.raises(InvalidInput, match=r"192\.0\.2\.1"):
        check_protected(areas, protection("192.0.2.1"))


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is parsed: single prefixes, and pieces of texts."""
    parsed: list[str] = []
    read_piece = bulk._read_piece

    def counting_prefix(text: str) -> Prefix:
        parsed.append(text)
        return parse_prefix(text)

    def counting_piece(piece: str) -> bulk.Contents:
        parsed.append(piece)
        return read_piece(piece)

    monkeypatch.setattr(entries, "parse_prefix", counting_prefix)
    monkeypatch.setattr(bulk, "_read_piece", counting_piece)
    return parsed


def compiled_twice(text: str) -> tuple[int, int]:
    """Compile an allow list, then again without what expires, as a change does; count the entries."""
    declared = State(allow={"ansible": text})
    both = compile_lists(declared), compile_lists(declared, for_good=True)
    return both[0].counts["allow"], both[1].counts["allow"]


def test_an_entry_of_a_variable_is_parsed_once(parses: list[str]) -> None:
    given = ["192.0.2.7", {"address": "2001:db8::/32", "expires": SOON}, "192.0.2.0/30"]
    assert compiled_twice(list_text(given, "allow").text) == (3, 2)
    assert parses == ["192.0.2.7", "2001:db8::/32", "192.0.2.0/30"]


def test_a_file_is_parsed_once(parses: list[str], tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("192.0.2.7\n198.51.100.0/24\n")
    assert compiled_twice(read_list(str(path))) == (2, 2)
    assert parses == [path.read_text()]


def test_a_parsed_drop_in_says_the_same_as_its_text() -> None:
    given = ["192.0.2.7", {"address": "2001:db8::/32", "expires": SOON}, "192.0.2.0/30", "::/0"]
    drop_in = list_text(given, "deny").text
    plain = compile_lists(state(str(drop_in)))
    assert compile_lists(state(drop_in)).areas == plain.areas
    assert compile_lists(state(drop_in)).counts == plain.counts
