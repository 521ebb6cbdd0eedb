# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store: readers see the old or the new state, never a mix, at whatever point a writer dies."""

from __future__ import annotations

import builtins
import json
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from packetwatch_core._base.errors import InvalidInput, Locked, PacketwatchError, Unreadable
from packetwatch_core._declared.nexts import Next
from packetwatch_core._declared.store import State, Store, check_interface, check_name

OLD = State(
    allow={"ansible": "192.0.2.7 # office\n"},
    deny={"feed-one": "203.0.113.0/24\n", "local": ""},
    policy={"default": {"PW_ACTION": "monitor"}, "eth0.100": {"PW_SCAN_PORTS": "3"}},
    interfaces={"eth0.100": "auto", "ve_A": "generic"},
)
NEXT = "int next(struct xdp_md *context) { return XDP_PASS; }"
NEW = State(
    deny={"ansible": "198.51.100.0/24\n"},
    interfaces={"eth0": "native"},
    next={"eth0": Next(path="/sys/fs/bpf/x"), "eth0.100": Next(source=NEXT)},
)
# The calls with which a writer changes the file system.
STEPS = ("mkdir", "rename", "symlink", "unlink", "rmdir", "fsync", "chmod", "fchmod", "open")


def put(store: Store, state: State) -> int:
    """Write and confirm a state, like `Host.apply`."""
    with store.lock(0):
        number = store.write_candidate(state)
        store.confirm(number)
        store.prune()
    return number


def names(store: Store) -> set[str]:
    return set(os.listdir(store.root))


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace fsync: no test can cut the power, so tests check that and when it is called."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "packetwatch"))


def test_nothing_was_ever_written(store: Store) -> None:
    assert store.read_current() == (0, State())
    assert not os.path.exists(store.root)


def test_what_was_written_is_read_again(store: Store) -> None:
    assert put(store, OLD) == 1
    assert store.read_current() == (1, OLD)
    assert put(store, NEW) == 2
    assert store.read_current() == (2, NEW)
    assert store.read(1) == OLD
    assert Path(store.root, "2/next.d/eth0.path").read_text() == "/sys/fs/bpf/x\n"
    assert Path(store.root, "2/next.d/eth0.100.c").read_text() == NEXT


def test_files_as_documented(store: Store) -> None:
    put(store, OLD)
    root = Path(store.root)
    assert os.readlink(root / "current") == "1"
    texts = {
        str(path.relative_to(root / "1")): path.read_text()
        for path in (root / "1").rglob("*")
        if path.is_file()
    }
    assert json.loads(texts.pop("digests")).keys() == {name for name in texts if ".list" in name}
    assert texts == {
        "allow.d/ansible.list": "192.0.2.7 # office\n",
        "deny.d/feed-one.list": "203.0.113.0/24\n",
        "deny.d/local.list": "",
        "policy.d/default.conf": "PW_ACTION=monitor\n",
        "policy.d/eth0.100.conf": "PW_SCAN_PORTS=3\n",
        "interfaces": "eth0.100 auto\nve_A generic\n",
    }


def test_the_agent_can_read_it_whatever_the_umask(store: Store) -> None:
    before = os.umask(0o077)
    try:
        put(store, OLD)
    finally:
        os.umask(before)
    root = Path(store.root)
    for path in (root, *(root / "1").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    assert (root / "lock").stat().st_mode & 0o777 == 0o600


def test_a_candidate_leaves_the_current_state_as_it_is(store: Store) -> None:
    put(store, OLD)
    with store.lock(0):
        assert store.write_candidate(NEW) == 2
    assert store.read_current() == (1, OLD)
    assert store.read(2) == NEW
    with store.lock(0):
        assert store.write_candidate(State()) == 2
    assert store.read(2) == State()


def test_the_current_state_and_the_one_before_it_are_kept(store: Store) -> None:
    for _round in range(4):
        put(store, OLD)
    assert names(store) == {"3", "4", "current", "lock"}


def test_rollback_to_the_one_before(store: Store) -> None:
    put(store, OLD)
    put(store, NEW)
    with store.lock(0):
        store.confirm(1)
    assert store.read_current() == (1, OLD)
    assert put(store, NEW) == 2


def test_confirming_what_does_not_exist_is_refused(store: Store) -> None:
    put(store, OLD)
    with store.lock(0), pytest.raises(Unreadable, match="/7 does not exist"):
        store.confirm(7)
    assert store.read_current() == (1, OLD)


# Crashes


def crash_at(step: int, work: Callable[[], object]) -> bool:
    """Run the work in a child process that is killed before the given step; return whether it was."""
    child = os.fork()
    if child == 0:
        try:
            left = step

            def dying(function: Callable[..., Any]) -> Callable[..., Any]:
                def wrapped(*args: Any, **kwargs: Any) -> Any:
                    nonlocal left
                    if left == 0:
                        os._exit(9)
                    left -= 1
                    return function(*args, **kwargs)

                return wrapped

            for name in STEPS:
                setattr(os, name, dying(getattr(os, name)))
            builtins.open = dying(builtins.open)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.mark.slow
@pytest.mark.parametrize("before", [State(), OLD], ids=["first", "later"])
def test_a_crash_at_any_step_leaves_old_or_new(tmp_path: Path, before: State) -> None:
    seen = set()
    step = 0
    died = True
    while died:
        store = Store(str(tmp_path / str(step)))
        if before != State():
            put(store, NEW)
            put(store, before)
        died = crash_at(step, partial(put, store, NEW))
        state = store.read_current()[1]
        assert state in (before, NEW), step
        seen.add(state == NEW)
        # The next writer continues from there and deletes the leftovers.
        number = put(store, OLD)
        assert store.read_current() == (number, OLD)
        assert names(store) <= {str(number - 1), str(number), "current", "lock"}, step
        step += 1
    assert seen == {True, False}
    assert step > 20


@pytest.mark.slow
def test_a_crash_of_the_clearing_writer_too(tmp_path: Path) -> None:
    for step in range(0, 40, 3):
        store = Store(str(tmp_path / str(step)))
        put(store, OLD)
        for second in range(step, -1, -4):
            crash_at(second, partial(put, store, NEW))
        assert store.read_current()[1] in (OLD, NEW)
        put(store, NEW)
        assert store.read_current()[1] == NEW


def test_all_is_on_disk_before_it_gets_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, OLD)
    synced: set[str] = set()
    fsync, rename = os.fsync, os.rename

    def watched_fsync(file: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    renamed = []

    def watched_rename(source: str, target: str) -> None:
        if os.path.isdir(source) and not os.path.islink(source) and "._new" in source:
            missing = {str(path) for path in (Path(source), *Path(source).rglob("*"))} - synced
            assert not missing
        synced.discard(store.root)
        rename(source, target)
        renamed.append(os.path.basename(target))

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    with store.lock(0):
        number = store.write_candidate(NEW)
        assert store.root in synced
        store.confirm(number)
        assert store.root in synced
    assert renamed == ["2", "current"]


# Unreadable is not absent


def test_a_lost_link_is_not_an_empty_state(store: Store) -> None:
    put(store, OLD)
    os.unlink(f"{store.root}/current")
    with pytest.raises(Unreadable, match=r"current is missing although .*/1 exists.*ln -s 1"):
        store.read_current()
    with store.lock(0), pytest.raises(Unreadable):
        store.write_candidate(NEW)
    assert store.read(1) == OLD


def test_a_link_to_nothing(store: Store) -> None:
    put(store, OLD)
    os.rename(f"{store.root}/1", f"{store.root}/elsewhere")
    with pytest.raises(Unreadable, match=r"cannot read .*/1/allow\.d: No such file"):
        store.read_current()


@pytest.mark.parametrize("target", ["x", "../1", "01", ""])
def test_a_strange_link(store: Store, target: str) -> None:
    put(store, OLD)
    os.unlink(f"{store.root}/current")
    if target:
        os.symlink(target, f"{store.root}/current")
    else:
        Path(store.root, "current").write_text("1")
    with pytest.raises(Unreadable):
        store.read_current()


@pytest.mark.parametrize("missing", ["interfaces", "deny.d"])
def test_a_missing_part(store: Store, missing: str) -> None:
    put(store, OLD)
    os.rename(f"{store.root}/1/{missing}", f"{store.root}/1/x")
    with pytest.raises(Unreadable, match=missing):
        store.read_current()


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("deny.d/office", "", "would be ignored: name it NAME.list"),
        ("deny.d/Office.list", "", r"Office\.list: 'Office' is not a name for a list"),
        ("deny.d/x.list", b"\xff", "is not UTF-8 text, from byte 0 on"),
        ("policy.d/eth0.conf", "PW_ACTION=on\n", r"eth0\.conf:1: PW_ACTION is 'on'; allowed"),
        ("interfaces", "eth0\n", "interfaces:1: 'eth0' is not of the form NAME MODE"),
        ("interfaces", "eth0 auto\neth0 native\n", "interfaces:2: eth0 is listed twice"),
        ("interfaces", "eth0 fast\n", "interfaces:1: mode is 'fast'; allowed: auto, native"),
        ("next.d/eth0.path", "lb\n", r"eth0\.path: next is 'lb': write the absolute path"),
        ("next.d/eth0", "x", r"next\.d/eth0 would be ignored: name it NAME\.path or NAME\.c or"),
    ],
)
def test_bad_edits_by_hand_are_named(
    store: Store, path: str, text: str | bytes, message: str
) -> None:
    put(store, OLD)
    Path(store.root, "1", path).parent.mkdir(exist_ok=True)
    Path(store.root, "1", path).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInput, match=message):
        store.read_current()


def test_editors_backups_are_skipped(store: Store) -> None:
    put(store, OLD)
    Path(store.root, "1/deny.d/local.list~").write_text("x")
    Path(store.root, "1/deny.d/.local.list.swp").write_text("x")
    Path(store.root, "1/interfaces").write_text("# ours\n\neth0.100 auto # uplink\nve_A generic\n")
    assert store.read_current() == (1, OLD)


def test_readers_beside_a_writer_see_whole_states(store: Store) -> None:
    put(store, OLD)
    stop = threading.Event()
    failures: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                state = store.read_current()[1]
            except PacketwatchError as error:
                failures.append(str(error))
            else:
                if state not in (OLD, NEW):
                    failures.append(repr(state))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(60):
            put(store, NEW if turn % 2 else OLD)
    finally:
        stop.set()
        reader.join()
    assert not failures


# Names


@pytest.mark.parametrize("name", ["", "a/b", "..", "Feed", "ä", "a.b", "a" * 65, "a\n"])
def test_names_that_no_list_has(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a name for a list"):
        check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a:1", "sixteen-charact.", "a\n"])
def test_names_that_no_interface_has(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not an interface name"):
        check_interface(name)


@pytest.mark.parametrize("state", [State(allow={"../x": ""}), State(interfaces={"a/b": "auto"})])
def test_bad_names_write_nothing(store: Store, state: State) -> None:
    with store.lock(0), pytest.raises(InvalidInput):
        store.write_candidate(state)
    assert names(store) == {"lock"}


def test_an_interface_called_default_is_refused() -> None:
    check_interface("eth0.100")
    with pytest.raises(InvalidInput, match="'default' cannot have a policy"):
        check_interface("default")


# The lock


def test_the_lock_names_its_holder(store: Store) -> None:
    with (
        store.lock(0),
        pytest.raises(Locked, match=rf"held by process {os.getpid()} \(.+\) since 20\d\d-.*0\.1 s"),
        Store(store.root).lock(0.1),
    ):
        pass
    with Store(store.root).lock(0):
        pass


def test_the_lock_is_free_once_its_holder_is_gone(store: Store) -> None:
    def hold_and_die() -> None:
        with store.lock(0):
            os._exit(9)

    assert crash_at(-1, hold_and_die)
    with store.lock(0):
        pass


def test_a_lock_whose_file_was_removed_meanwhile_is_none(store: Store) -> None:
    with store.lock(0):
        os.unlink(f"{store.root}/lock")
        with Store(store.root).lock(0):
            pass


def test_no_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(13, "Permission denied", f"{tmp_path}/x")

    monkeypatch.setattr(os, "mkdir", refuse)
    with (
        pytest.raises(PacketwatchError, match=r"cannot write .*/x: Permission denied; this needs"),
        Store(str(tmp_path / "x")).lock(0),
    ):
        pass
