# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lists of the fleet: a file that a process which was taken over may have written."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from packetwatch_core._active.lists import compile_lists
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput, Unreadable
from packetwatch_core._declared import fleet
from packetwatch_core._declared.drop_ins import DropIns
from packetwatch_core._declared.fleet import limit_fleet, parse, read_file, set_fleet
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.edit import FeedEdit
from packetwatch_core._network.fleet import permitted_lists

BOTH = ("allow", "deny")


def text(*deny: Any, allow: Any = (), name: str = "web", **other: Any) -> bytes:
    lists = {name: {"allow": list(allow), "deny": list(deny)}}
    return json.dumps({"v": 1, "lists": lists} | other).encode()


def entry(address: Any, **other: Any) -> dict[str, Any]:
    return {"address": address, **other}


def test_entries_become_canonical_drop_ins() -> None:
    data = text(
        entry("203.0.113.0/24", comment="noisy\n# x", expires="2026-12-01T01:00:00+01:00"),
        entry("198.51.100.7", expires=1796083200, added="a later field"),
        entry("2001:db8::/32"),
        allow=[entry("192.0.2.1", comment="office")],
        later=True,
    )
    found = parse(data, BOTH)
    assert found.texts["deny"] == (
        "198.51.100.7 expires=2026-12-01T00:00:00Z\n"
        "203.0.113.0/24 expires=2026-12-01T00:00:00Z # noisy # x\n"
        "2001:db8::/32\n"
    )
    assert found.texts["allow"] == "192.0.2.1 # office\n"
    assert found.ignored == 0


def test_a_host_takes_only_the_kinds_that_it_wants() -> None:
    data = text(entry("203.0.113.0/24"), allow=[entry("192.0.2.1"), entry("192.0.2.2")])
    found = parse(data, ("deny",))
    assert (list(found.texts), found.ignored) == (["deny"], 2)
    assert parse(data, ()) == fleet.FleetLists({}, 3)


def test_lists_are_joined_and_the_longer_entry_counts() -> None:
    lists = {
        "a": {"deny": [entry("203.0.113.1", expires="2026-12-01T00:00:00Z"), entry("203.0.113.2")]},
        "b": {"deny": [entry("203.0.113.1", expires="2027-12-01T00:00:00Z")]},
        "c": {"deny": [entry("203.0.113.2", expires=1)], "allow": []},
        "d": {},
    }
    found = parse(json.dumps({"v": 1, "lists": lists}).encode(), BOTH)
    assert found.texts == {"deny": "203.0.113.1 expires=2027-12-01T00:00:00Z\n203.0.113.2\n"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not of version 1"),
        (b'{"lists":{}}', "not of version 1"),
        (b'{"v":true,"lists":{}}', "not of version 1"),
        (b'{"v":2,"lists":{}}', "not of version 1"),
        (b'{"v":1}', "lists is not an object"),
        (b'{"v":1,"lists":[]}', "lists is not an object"),
        (b'{"v":1,"lists":{"a":[]}}', "'a' is not a list of entries"),
        (b'{"v":1,"lists":{"a":{"deny":{}}}}', "'a' is not a list of entries"),
        (text("203.0.113.1"), r"deny of list 'web'\[0\]: .* is not an entry"),
        (text(entry("203.0.113.1"), entry("host")), r"\[1\]: 'host' is not an IP address"),
        (text(entry(7)), "address is 7"),
        (text({}), "has no address"),
        (text(entry("203.0.113.1/24")), "203.0.113.0/24"),
        (text(entry("0.0.0.0/0")), "too wide: the fleet may list /8 and longer"),
        (text(entry("10.0.0.0/7")), "too wide"),
        (text(entry("::/0")), "too wide: the fleet may list /32 and longer"),
        (text(entry("2001:db8::/31")), "2001:db8::/31|too wide"),
        (text(allow=[entry("128.0.0.0/1")]), "allow of list .* too wide"),
        (text(entry("203.0.113.1", comment=["x"])), "comment is not a text"),
        (text(entry("203.0.113.1", comment="x" * 201)), "at most 200 characters"),
        (text(entry("203.0.113.1", expires="soon")), "is not a time"),
        (text(entry("203.0.113.1", expires=-1)), "expires is -1"),
        (text(entry("203.0.113.1", expires=1e300)), "expires is"),
        (text(entry("203.0.113.1", expires=True)), "expires is True"),
        (text(*[entry("203.0.113.1")] * 10_001), "10001 entries; allowed: up to 10000"),
        (json.dumps({"v": 1, "lists": {str(n): {} for n in range(65)}}).encode(), "at most 64"),
    ],
)
def test_a_fault_anywhere_refuses_the_whole(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        parse(data, ("deny",))
    assert len(str(caught.value)) < 500


def test_ten_thousand_entries_are_taken() -> None:
    rows = [
        entry(f"198.18.{n // 256}.{n % 256}", expires="2026-12-01T00:00:00Z") for n in range(10_000)
    ]
    assert len(parse(text(*rows), BOTH).texts["deny"].contents.expiring) == 10_000


# The file


def test_a_file_of_the_folders_owner_is_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_file(str(tmp_path / "lists.json"))
    (tmp_path / "lists.json").write_bytes(b"{}")
    assert read_file(str(tmp_path / "lists.json")) == b"{}"


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _hard_link(path: Path) -> None:
    (path.parent / "other").write_text("{}")
    os.link(path.parent / "other", path)


def _foreign(path: Path) -> None:
    path.write_text("{}")
    os.chown(path.parent, 62_005, 62_005)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_link, "symbolic links"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.mkdir(), "directory"),
        (_socket, "No such device|not a regular file"),
        (_hard_link, "has 2 names"),
        pytest.param(
            *(_foreign, "belongs to user 0"),
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="changes the owner"),
        ),
        (_huge, "more than 4194304 bytes"),
    ],
)
def test_anything_else_is_refused_at_once(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "lists.json"
    make(path)
    with pytest.raises(Unreadable, match=message) as caught:
        read_file(str(path))
    assert "stay as they were" in str(caught.value)


def test_the_folder_may_not_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/lists.json").write_text("{}")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Unreadable):
        read_file(str(tmp_path / "link/lists.json"))


# The edit


def test_only_the_fleets_own_drop_ins_change() -> None:
    state = State(
        allow=DropIns({"ansible": "192.0.2.1\n", "fleet": "192.0.2.2\n"}),
        deny=DropIns({"feed-x": "203.0.113.1\n"}),
    )
    after = set_fleet({"deny": "203.0.113.2\n"})(state)
    assert dict(after.allow) == {"ansible": "192.0.2.1\n"}
    assert dict(after.deny) == {"feed-x": "203.0.113.1\n", "fleet": "203.0.113.2\n"}
    assert set_fleet({"deny": "203.0.113.2\n"})(after) == after
    assert limit_fleet(("deny",))(after) == after
    assert dict(limit_fleet(())(after).deny) == {"feed-x": "203.0.113.1\n"}
    assert FeedEdit([])(after).deny["fleet"] == "203.0.113.2\n"


@pytest.mark.parametrize(
    ("action", "kinds", "permitted"),
    [("enforce", BOTH, BOTH), ("enforce", (), ()), ("monitor", BOTH, ()), ("off", BOTH, ())],
)
def test_lists_count_only_where_bans_of_the_fleet_do(
    action: str, kinds: tuple[str, ...], permitted: tuple[str, ...]
) -> None:
    assert permitted_lists(action, kinds) == permitted


def test_entries_that_match_this_host_are_left_out() -> None:
    state = State(
        deny=DropIns({"fleet": "203.0.113.0/24\n198.51.100.0/24\n", "ansible": "192.0.2.0/24\n"})
    )
    spared = {parse_prefix("203.0.113.9"): "protected", parse_prefix("192.0.2.9"): "protected"}
    found = compile_lists(state, spared)
    assert found.note.report.left_out["fleet"] == (1, ["203.0.113.0/24"])
    assert found.counts["deny"] == 2
