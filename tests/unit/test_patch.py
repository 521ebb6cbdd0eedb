# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The active tables with a few entries changed: they are those of the changed lists, or there are none."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from packetwatch_core._active import patch
from packetwatch_core._active.lists import Known, Lists, compile_lists, keep_known, read_known
from packetwatch_core._active.patch import patched
from packetwatch_core._base.address import Prefix, format_prefix, parse_prefix
from packetwatch_core._base.clock import Clock
from packetwatch_core._declared.edits import drop_entries, put_entries
from packetwatch_core._declared.entries import entries_from_input
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.spare import NOTHING
from packetwatch_core._tables import ipv4, ipv4_halves

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
        put("deny", "203.0.113.0/24"),
        put("deny", "203.0.113.8"),  # the neighbour of a denied host
        put("allow", "192.0.2.9"),  # within a denied network
        put("deny", "0.0.0.0/0", "::/0"),
        put("deny", "0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        put("deny", "2001:db8::7"),
        put("allow", "2001:db8::/64", "2001:db8:1::/48", expires="2030-01-01T00:00:00Z"),
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
        put("deny", *(f"203.0.113.{2 * number + 101}" for number in range(9))),
        drop("203.0.113.40"),  # the next expiry may be another one
        STATE._replace(deny={**STATE.deny, "feed-long": LONG + "203.0.113.9\n"}),
    ],
)
def test_other_changes_are_compiled(state: State, tmp_path: Path) -> None:
    assert change(state, tmp_path) is None


class Layout(NamedTuple):
    """A list and how it is laid out.

    width: at least so wide is the top table. ratio: of all starts to those that are not single hosts, from
    which on its lines are halves. few: so many starts are all put into tables anew.
    """

    entries: int
    hosts: float
    width: int
    ratio: int
    few: int


LAYOUTS = {
    "small": Layout(300, 0.6, 8, 32, 1 << 14),
    "keys": Layout(2000, 0.6, 8, 32, 0),
    "wide": Layout(4000, 0.9, 16, 1 << 20, 0),
    "halves": Layout(3000, 0.97, 16, 3, 0),
    "narrow halves": Layout(3000, 0.99, 18, 4, 0),
}


class Prefixes(NamedTuple):
    """Random prefixes of both families, in crowds and alone."""

    random: Random
    hosts: float

    def prefix(self, family: int, crowd: int) -> Prefix:
        """Return a prefix; crowd: it lies among 2^crowd addresses, or anywhere if that is 0."""
        bits = 32 if family == 4 else 128
        base, free = (203 << 24, 31) if family == 4 else (0x20010DB8 << 96, 90)
        value = base + self.random.getrandbits(crowd) if crowd else self.random.getrandbits(free)
        if family == 6 and not crowd:
            value += base
        lengths = (9, 12, 16, 20, 24, 28, 30, 31) if family == 4 else (52, 64, 64, 72, 120, 126)
        single = self.random.random() < self.hosts
        length = bits if single else self.random.choice(lengths)
        return Prefix(family, value >> bits - length << bits - length, length)

    def any(self, *crowds: int) -> Prefix:
        """Return a prefix of any family."""
        return self.prefix(self.random.choice((4, 6)), self.random.choice(crowds))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("seed", range(3))
def test_any_change_gives_the_tables_that_compiling_gives(
    layout: Layout, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (ipv4, patch):
        monkeypatch.setattr(module, "MIN_TOP_WIDTH", layout.width)
    monkeypatch.setattr(ipv4_halves, "_MAIN_RATIO", layout.ratio)
    monkeypatch.setattr(patch, "_FEW", layout.few)
    random = Random(seed)
    lists = Prefixes(random, layout.hosts)
    denied = [lists.any(0, 0, 0, 0, 4, 8, 12) for _number in range(layout.entries)]
    allowed = [lists.any(0, 4, 8, 12) for _number in range(layout.entries // 50)]
    state = State(allow={"ansible": text_of(allowed)}, deny={"ansible": text_of(denied)})
    now = compile_lists(state, clock=CLOCK)
    assert bool(now.areas.v4_shift & ipv4_halves.HALVES) == (layout.ratio < 32)
    patches, own = 0, list[Prefix]()
    for _number in range(25):
        if random.random() < 0.65 or not own:
            near = random.choice(denied)
            value = near.value + random.choice((-1, 0, 1, 2))
            host = Prefix(near.family, max(value, 0), 32 if near.family == 4 else 128)
            added = [
                random.choice((host, lists.any(0, 0, 4, 6, 10)))
                for _each in range(random.choice((1, 3)))
            ]
            items = [{"address": format_prefix(prefix)} for prefix in added]
            kind = random.choice(("allow", "deny", "deny"))
            after = put_entries("local", kind, entries_from_input(items, "x"))(state)
            own += added
        else:
            gone = own.pop(random.randrange(len(own)))
            own = [prefix for prefix in own if prefix != gone]
            after = drop_entries("local", [gone], ("allow", "deny"))(state)
        known = Known(now.counts, now.shape, (now.areas.v4.digests, now.areas.v6.digests))
        found = patched(now.areas, known, (state, after), CLOCK, now.note)
        whole = compile_lists(after, clock=CLOCK)
        if found is not None:
            patches += 1
            assert found == whole._replace(note=found.note, shape=found.shape)
            # These digests have passed through all patches before.
            assert found.areas.digest() == whole.areas.digest()
        state, now = after, found or whole
    # Some changes need another layout.
    assert patches >= 20


def text_of(prefixes: list[Prefix]) -> str:
    return "".join(f"{format_prefix(prefix)}\n" for prefix in prefixes)


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
