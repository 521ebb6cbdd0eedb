# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prefixes that feeds must not deny, and the note about them."""

from __future__ import annotations

import stat
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton

import pytest

from packetwatch_core._active.lists import compile_lists
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.spare import (
    KEEP_BOGONS,
    NOTHING,
    FeedReport,
    LeftOut,
    Note,
    Spared,
    is_left_out,
    lasting,
    read_note,
    spared_now,
    unknown_networks,
    write_note,
)
from packetwatch_core._kernel.netlink import Address, Route
from packetwatch_core._network.protect import Network, compute, connected
from packetwatch_core._tables.reader import lookup

SPARED: Spared = {
    parse_prefix("45.1.2.0/24"): "connected",
    parse_prefix("2a01:4f8:1::/64"): "connected",
    parse_prefix("45.9.9.1"): "protected",
    parse_prefix("45.9.9.2"): "client",
}


def compiled(text: str, name: str = "feed-x", kind: str = "deny") -> FeedReport:
    lists = {name: text}
    state = State(deny=lists) if kind == "deny" else State(allow=lists)
    return compile_lists(state, SPARED).note.report


def left_out(text: str, **options: str) -> list[str]:
    found = compiled(text, **options).left_out
    return found["feed-x"].examples if found else []


@pytest.mark.parametrize(
    "entry",
    [
        "45.1.2.0/24",
        "45.1.2.7",
        "45.1.0.0/16",
        "0.0.0.0/0",
        "45.9.9.1",
        "45.9.9.0/31",
        "45.9.9.2",
        "2a01:4f8:1::/64",
        "2a01:4f8::/32",
        "2a01:4f8:1::7",
    ],
)
def test_an_entry_that_overlaps_with_one_is_left_out_whole(entry: str) -> None:
    assert left_out(f"{entry}\n45.7.7.7\n") == [entry]


@pytest.mark.parametrize(
    "entry",
    ["45.1.1.0/24", "45.1.3.0", "45.9.9.0", "45.9.9.3", "2a01:4f8:1:1::/64", "2a01:4f7::/32"],
)
def test_one_beside_them_is_not(entry: str) -> None:
    assert left_out(f"{entry}\n") == []


def test_allow_lists_and_other_owners_keep_theirs() -> None:
    assert left_out("45.1.2.7\n", kind="allow") == []
    assert left_out("45.1.2.7\n", name="ansible") == []


def test_a_feed_may_keep_connected_networks_but_no_protected_address() -> None:
    assert left_out(f"{KEEP_BOGONS}45.1.2.7\n45.9.9.1\n") == ["45.9.9.1"]


@pytest.mark.parametrize(
    ("entry", "owner", "kind", "expected"),
    [
        ("45.1.0.0/16", "feed-x", "deny", True),
        ("45.9.9.1", "feed-x", "deny", True),
        ("45.7.7.7", "feed-x", "deny", False),
        ("45.1.2.7", "feed-x", "allow", False),
        ("45.1.2.7", "ansible", "deny", False),
        ("45.7.7.7", "feed-y", "allow", True),
    ],
)
def test_whether_an_entry_is_active(entry: str, owner: str, kind: str, expected: bool) -> None:
    note = Note("ab12", SPARED, FeedReport({}, {"feed-y": "damaged"}))
    assert is_left_out(kind, owner, f"{entry}\n", parse_prefix(entry), note) is expected


def test_the_tables_go_without_them_and_the_counts_too() -> None:
    text = "45.1.2.7\n45.7.7.7\n2a01:4f8:1::7\n2a01:4f8:2::7\n"
    lists = compile_lists(State(deny={"feed-x": text}), SPARED)
    tables = lists.areas.tables()
    verdicts = [lookup(tables, 4, parse_prefix(item).value) for item in ("45.1.2.7", "45.7.7.7")]
    verdicts += [
        lookup(tables, 6, parse_prefix(item).value) for item in ("2a01:4f8:1::7", "2a01:4f8:2::7")
    ]
    assert verdicts == [0, 2, 0, 2]
    assert (lists.counts["deny"], lists.counts["left_out"]) == (2, 2)


def test_a_damaged_feed_is_left_out_alone() -> None:
    state = State(deny={"ansible": "45.7.7.7\n", "feed-x": "45.7.7.8\nx\n", "feed-y": "45.7.7.9\n"})
    lists = compile_lists(state)
    assert lists.counts["deny"] == 2
    assert list(lists.note.report.broken) == ["feed-x"]
    assert lists.note.report.broken["feed-x"].startswith(
        "deny.d/feed-x.list, line 2: 'x' is not an IP"
    )
    with pytest.raises(InvalidInput):
        compile_lists(State(deny={"team": "x\n"}))


def address(text: str, length: int) -> Address:
    packed = inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    return Address(6 if ":" in text else 4, packed, length, 2, 0, 0, packed)


def test_what_is_connected() -> None:
    gateway = inet_pton(AF_INET, "45.1.2.1")
    network = Network(
        [address("45.1.2.3", 24), address("45.3.3.3", 32), address("2a01:4f8:1::3", 64)],
        [
            Route(4, bytes(4), 0, (gateway,), 2),
            Route(6, inet_pton(AF_INET6, "2a01:4f8:2::"), 64, (), 2),
        ],
    )
    found = spared_now(network, compute([parse_prefix("45.6.0.0/16")], True, network, "/nowhere"))
    kinds = {prefix: kind for prefix, kind in found.items() if prefix.length not in (104, 8)}
    assert kinds == {
        parse_prefix("45.1.2.0/24"): "connected",
        parse_prefix("45.1.2.3"): "protected",
        parse_prefix("45.1.2.1"): "protected",
        parse_prefix("45.3.3.3"): "protected",
        parse_prefix("2a01:4f8:1::/64"): "connected",
        parse_prefix("2a01:4f8:1::3"): "protected",
        parse_prefix("2a01:4f8:2::/64"): "connected",
        parse_prefix("45.6.0.0/16"): "protected",
        parse_prefix("::1"): "protected",
    }
    assert len(connected(network)) == 4


def test_the_note(tmp_path: Path) -> None:
    path = tmp_path / "new/spared"
    report = FeedReport(
        {"feed-x": LeftOut(7, ["45.1.2.7", "45.1.2.8-45.1.2.10"])}, {"feed-y": "x y"}
    )
    note = Note("ab12", SPARED, report)
    assert read_note(str(path)) == NOTHING
    write_note(str(path), note)
    assert read_note(str(path)) == note
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert parse_prefix("45.9.9.2") not in lasting(read_note(str(path)).spared)
    write_note(str(path), NOTHING)
    assert not path.exists()
    write_note(str(path), NOTHING)


@pytest.mark.parametrize("text", ["connected x\n", "lists\n", "left_out feed-x y z\n", "\xff"])
def test_a_damaged_note_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "spared").write_text(text, encoding="latin-1")
    assert read_note(str(tmp_path / "spared")) == NOTHING


def test_networks_that_are_new(tmp_path: Path) -> None:
    path = str(tmp_path / "spared")
    network = Network([address("45.1.2.3", 24), address("45.4.4.4", 24)], [])
    assert unknown_networks(path, connected(network)) == set()
    write_note(path, Note("ab12", SPARED, FeedReport({}, {})))
    assert unknown_networks(path, connected(network)) == {"45.4.4.0/24"}
