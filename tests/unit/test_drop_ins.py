# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An edit does not read the drop-ins that it does not change, and never trusts the digest of an edited file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from packetwatch_core._active.lists import digest_of
from packetwatch_core._base.errors import Unreadable
from packetwatch_core._declared.drop_ins import DIGESTS, DropIns, note_digests
from packetwatch_core._declared.edits import set_lists
from packetwatch_core._declared.store import State, Store

LONG = "203.0.113.7\n203.0.113.8\n"
OTHER = "203.0.113.7\n203.0.113.9\n"
STATE = State(allow={"ansible": "192.0.2.7\n"}, deny={"ansible": LONG, "local": "192.0.2.8\n"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a confirmed state, whose notes are some milliseconds younger than its lists."""
    made = Store(str(tmp_path / "etc"))
    with made.lock(0):
        made.declare(STATE)
    settle(made)
    return made


def settle(store: Store) -> None:
    time.sleep(0.02)
    number, state = store.read_current()
    lists = {"allow": DropIns.of(state.allow), "deny": DropIns.of(state.deny)}
    note_digests(f"{store.root}/{number}", lists)


def path_of(store: Store, number: int = 1) -> Path:
    return Path(store.root, str(number), "deny.d/ansible.list")


def declare(store: Store, state: State) -> int:
    with store.lock(0):
        number = store.write_candidate(state)
        store.confirm(number)
        return number


def test_an_edit_reads_only_what_it_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    really = os.open

    def watched(path: str, flags: int, *rest: int, dir_fd: int | None = None) -> int:
        if flags & os.O_ACCMODE == os.O_RDONLY and path.endswith(".list"):
            opened.append(path)
        return really(path, flags, *rest, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", watched)
    before = store.read_current(reads_all=False)[1]
    after = set_lists("local", {"deny": "192.0.2.9\n"}, True)(before)
    assert before != after
    assert digest_of(after) == digest_of(
        STATE._replace(deny={"ansible": LONG, "local": "192.0.2.9\n"})
    )
    assert opened == [f"{store.root}/1/deny.d/local.list"]
    declare(store, after)
    monkeypatch.undo()
    assert store.read(2).deny == {"ansible": LONG, "local": "192.0.2.9\n"}
    assert store.read(1) == STATE


def in_place(path: Path) -> None:
    with path.open("r+") as file:
        file.write(OTHER)


def in_place_with_its_time(path: Path) -> None:
    status = path.stat()
    in_place(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def by_rename(path: Path) -> None:
    draft = path.with_name(".draft")
    draft.write_text(OTHER)
    draft.rename(path)


@pytest.mark.parametrize("edit", [in_place, in_place_with_its_time, by_rename])
def test_an_edit_by_hand_is_read(store: Store, edit: Callable[[Path], None]) -> None:
    edit(path_of(store))
    dummy, found = store.read_current(reads_all=False)
    edited = STATE._replace(deny={**STATE.deny, "ansible": OTHER})
    assert (digest_of(found), found) == (digest_of(edited), edited)
    assert declare(store, found) == 2
    assert store.read(2) == edited


@pytest.mark.parametrize("edit", [in_place, by_rename])
def test_an_edit_by_hand_leaves_the_former_state(
    store: Store, edit: Callable[[Path], None]
) -> None:
    state = store.read_current(reads_all=False)[1]
    assert declare(store, state._replace(interfaces={"eth0": "auto"})) == 2
    edit(path_of(store, 2))
    assert store.read(1) == STATE
    assert store.read_former().deny["ansible"] == LONG


def test_an_edit_by_hand_during_a_change_refuses_it(store: Store) -> None:
    state = store.read_current(reads_all=False)[1]
    in_place(path_of(store))
    with pytest.raises(Unreadable, match=r"ansible\.list was edited while .*; try again"):
        declare(store, state._replace(interfaces={"eth0": "auto"}))
    with pytest.raises(Unreadable, match=r"ansible\.list was edited while .*; try again"):
        state.deny["ansible"]
    assert store.number() == 1


@pytest.mark.parametrize("damage", [b"", b"[1]", b"\xff", b'{"deny.d/ansible.list": 7}', None])
def test_a_damaged_note_is_as_good_as_none(store: Store, damage: bytes | None) -> None:
    note = Path(store.root, "1", DIGESTS)
    note.unlink() if damage is None else note.write_bytes(damage)
    path_of(store).write_text(OTHER)
    assert store.read_current(reads_all=False)[1].deny["ansible"] == OTHER


def test_a_note_that_others_can_write_does_not_count(store: Store) -> None:
    note = Path(store.root, "1", DIGESTS)
    note.write_text(note.read_text().replace(note.read_text()[25:30], "00000"))
    note.chmod(0o666)
    assert digest_of(store.read_current(reads_all=False)[1]) == digest_of(STATE)


def test_text_that_is_read_otherwise_than_it_was_written_is_not_noted(store: Store) -> None:
    declare(store, STATE._replace(deny={"ansible": LONG.replace("\n", "\r\n")}))
    time.sleep(0.02)
    assert digest_of(store.read_current(reads_all=False)[1]) == digest_of(
        STATE._replace(deny={"ansible": LONG})
    )
