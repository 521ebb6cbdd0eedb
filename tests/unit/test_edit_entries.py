# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Edits of single entries: the rest of a list stays unchanged."""

from __future__ import annotations

import pytest

from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.edits import drop_entries, put_entries
from packetwatch_core._declared.entries import Entry
from packetwatch_core._declared.store import State

STATE = State(
    allow={"ansible": "192.0.2.7\n"},
    deny={
        "ansible": "198.51.100.0/24\n",
        "local": "# by hand\n203.0.113.9   # noisy\n2001:DB8::/32\n",
    },
)


def an_entry(text: str, comment: str = "", expires: str | None = None) -> Entry:
    return Entry(parse_prefix(text), comment, expires)


def test_new_entries_come_last_and_lines_by_hand_stay() -> None:
    state = put_entries("local", "deny", [an_entry("203.0.113.10", "ticket")])(STATE)
    assert state.deny["local"] == f"{STATE.deny['local']}203.0.113.10 # ticket\n"
    assert state.allow == STATE.allow


def test_an_entry_that_is_there_changes_nothing() -> None:
    assert put_entries("local", "deny", [an_entry("203.0.113.9")])(STATE) == STATE
    assert put_entries("local", "deny", [an_entry("2001:db8::/32")])(STATE) == STATE


def test_an_entry_with_another_expiry_replaces_the_old_one() -> None:
    entry = an_entry("203.0.113.9", "", "2099-01-01T00:00:00Z")
    state = put_entries("local", "deny", [entry])(STATE)
    assert state.deny["local"] == (
        "# by hand\n2001:DB8::/32\n203.0.113.9 expires=2099-01-01T00:00:00Z # noisy\n"
    )


def test_allowing_takes_it_off_the_own_deny_list_only() -> None:
    entries = [an_entry("203.0.113.9"), an_entry("198.51.100.0/24")]
    state = put_entries("local", "allow", entries)(STATE)
    assert state.deny["local"] == "# by hand\n2001:DB8::/32\n"
    assert state.deny["ansible"] == STATE.deny["ansible"]
    assert state.allow["local"] == "198.51.100.0/24\n203.0.113.9\n"


def test_removing() -> None:
    state = drop_entries(
        "local", [*map(parse_prefix, ("203.0.113.9", "2001:db8::/32"))], ("allow", "deny")
    )(STATE)
    assert state.deny["local"] == "# by hand\n"
    only = State(deny={"local": "192.0.2.1\n"})
    assert drop_entries("local", [parse_prefix("192.0.2.1")], ("deny",))(only).deny == {}


@pytest.mark.parametrize(
    ("prefix", "kinds", "message"),
    [
        ("198.51.100.0/24", ("allow", "deny"), "deny list 'ansible'"),
        ("203.0.113.9", ("allow",), "deny list 'local'"),
    ],
)
def test_what_is_not_there_is_named_with_its_owner(
    prefix: str, kinds: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        drop_entries("local", [parse_prefix(prefix)], kinds)(STATE)


def test_what_is_on_no_list_is_not_there_to_remove() -> None:
    edit = drop_entries("local", [parse_prefix("192.0.2.99")], ("allow", "deny"))
    assert edit(STATE) == STATE


def test_a_line_that_is_wrong_is_named() -> None:
    state = State(deny={"local": "\nnonsense\n"})
    with pytest.raises(InvalidInput, match=r"deny.d/local.list, line 2"):
        put_entries("local", "deny", [an_entry("192.0.2.1")])(state)
