# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The active tables with a few hosts changed: they are those of the changed lists, or there are none."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from packetwatch_core._active.lists import Lists, compile_lists, keep_known
from packetwatch_core._active.patch import patched, read_known
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.clock import Clock
from packetwatch_core._declared.edits import drop_entries, put_entries
from packetwatch_core._declared.entries import entries_from_input
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.spare import NOTHING

CLOCK = Clock(1.8e9, True)
RANDOM = Random(20)
LONG = "".join(
    f"{RANDOM.randrange(1, 224)}.{RANDOM.randrange(256)}.{RANDOM.randrange(256)}.{2 * number % 256}\n"
    for number in range(5000)
)
STATE = State(
    allow={"ansible": "192.0.2.7\n203.0.113.80 expires=2040-01-01T00:00:00Z\n"},
    deny={
        "ansible": "192.0.2.0/24\n198.51.100.5 # scrapers\n",
        "feed-long": LONG,
        "local": "203.0.113.7 # mine\n203.0.113.40 expires=2039-01-01T00:00:00Z\n",
    },
)


def change(state: State, tmp_path: Path, clock: Clock = CLOCK) -> Lists | None:
    """The patched lists of a state that follows `STATE`; the file in between is part of it."""
    before = compile_lists(STATE, clock=CLOCK)
    keep_known(str(tmp_path / "run/tables.json"), before)
    known = read_known(str(tmp_path / "run/tables.json"), before.areas)
    assert known is not None
    return patched(before.areas, known, (STATE, state), clock, before.note or NOTHING)


def put(kind: str, *addresses: str, expires: str | None = None) -> State:
    items = [{"address": address, "expires": expires} for address in addresses]
    return put_entries("local", kind, entries_from_input(items, "x"))(STATE)


def drop(*addresses: str) -> State:
    prefixes = [parse_prefix(address) for address in addresses]
    return drop_entries("local", prefixes, ("allow", "deny"))(STATE)


@pytest.mark.parametrize(
    "state",
    [
        put("deny", "203.0.113.9"),
        put("deny", "203.0.113.9", "203.0.113.11", "198.51.100.9"),
        put("deny", "203.0.113.9", expires="2030-01-01T00:00:00Z"),
        put("deny", "203.0.113.9", expires="2050-01-01T00:00:00Z"),
        put("allow", "203.0.113.9"),
        put("allow", "203.0.113.7"),
        put("allow", "198.51.100.5"),
        put("deny", "192.0.2.7"),
        put("deny", "192.0.2.9"),
        put("deny", "198.51.100.5"),
        put("deny", "203.0.113.80"),
        drop("203.0.113.7"),
    ],
)
def test_the_tables_are_those_of_the_changed_lists(state: State, tmp_path: Path) -> None:
    found = change(state, tmp_path)
    whole = compile_lists(state, clock=CLOCK)
    assert found is not None
    assert found == whole._replace(note=found.note, shape=found.shape)
    assert found.note.lists == whole.note.lists


@pytest.mark.parametrize(
    "state",
    [
        put("deny", "203.0.113.0/24"),
        put("deny", "2001:db8::7"),
        put("deny", "203.0.113.8"),  # the neighbour of a denied host
        put("allow", "192.0.2.9"),  # within a denied network
        put("deny", *(f"203.0.113.{2 * number + 101}" for number in range(9))),
        drop("203.0.113.40"),  # the next expiry may be another one
        STATE._replace(deny=STATE.deny | {"feed-long": LONG + "203.0.113.9\n"}),
    ],
)
def test_other_changes_are_compiled(state: State, tmp_path: Path) -> None:
    assert change(state, tmp_path) is None


def test_while_the_clock_is_not_trusted_all_is_compiled(tmp_path: Path) -> None:
    assert change(put("deny", "203.0.113.9"), tmp_path, Clock(1.8e9, False)) is None


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '["00", 0, {}, [1, 2, 3, 4]]'])
def test_what_is_not_known_of_the_tables_is_not_guessed(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "tables.json"
    if content is not None:
        path.write_text(content)
    assert read_known(str(path), compile_lists(STATE, clock=CLOCK).areas) is None
