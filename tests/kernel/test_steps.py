# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every step of every operation, with each fault of `kernel.dying` at it.

A change has one point of no return, the rename of `current`. One that is reported as failed is not
confirmed and not active; one that is reported as done is both. After a death the old lists or the new ones
decide, and the next command completes the change. A denied source is dropped all the time.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kernel.dying import FAULTS, as_step, outcome_of
from kernel.flood import flooded, tapped
from kernel.hosting import (
    DENIED,
    FULL,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Site,
    other_program,
    source_text,
)
from kernel.timers import Timers

from packetwatch_agent.control import edits
from packetwatch_core._active.build import build
from packetwatch_core._active.lists import compile_lists
from packetwatch_core._active.loaded import Loaded
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._change.links import Wish
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared.edits import (
    Edit,
    in_turn,
    roll_back,
    set_interfaces,
    set_lists,
    set_policies,
    set_program,
    set_settings,
)
from packetwatch_core._declared.policy import resolve_policies
from packetwatch_core._declared.store import State, Store
from packetwatch_core._host.boot import filter_interface
from packetwatch_core._host.heal import heal
from packetwatch_core._host.host import Host
from packetwatch_core._kernel.programs import attached
from packetwatch_core._network.settings import format_values

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="loads programs"), pytest.mark.slow(20)]

MINUTE = Terms(60, "", "a test")
# What only one of two states denies.
FACES = ("45.9.9.9", "45.8.8.8")
# The search for SSH clients takes no step, and a third of the time.
QUIET = {"PW_PROTECT_AUTO": "0"}


class World:
    """A host with two states, 0 and 1, each of which denies `DENIED` and its own of `FACES`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.wire.add("pw1")
        self.timers = Timers(site)
        self.host = Host(as_step(self.timers.run), site.paths)

    def seen(self) -> tuple[int, int]:
        """Which of the two states `current` names, and which decides packets; fails if both or none do."""
        state = self.host.store.read_current()[1]
        confirmed = FACES[1] in "".join(state.deny.values())
        (active,) = {self._active(name) for name in ("pw0", "pw1") if is_filtered(name)}
        return int(confirmed), active

    def seen_by_interface(self) -> tuple[int, int]:
        """The same for states whose difference is that pw1 is filtered."""
        self.seen()
        state = self.host.store.read_current()[1]
        return int("pw1" in state.interfaces), int(is_filtered("pw1"))

    def seen_by_edit(self) -> tuple[int, int]:
        """The same for states whose difference is that the second of `FACES` is denied too."""
        local = self.host.store.read_current()[1].deny.get("local", "")
        others = [self.site.verdict(source) for source in (DENIED, FACES[0], UNLISTED)]
        assert others == [XDP_DROP, XDP_DROP, XDP_PASS]
        return int(FACES[1] in local), int(self.site.verdict(FACES[1]) == XDP_DROP)

    def _active(self, interface: str) -> int:
        sources = (DENIED, *FACES, UNLISTED)
        found = [self.site.verdict(source, interface) for source in sources]
        faces = [
            [XDP_DROP, XDP_DROP, XDP_PASS, XDP_PASS],
            [XDP_DROP, XDP_PASS, XDP_DROP, XDP_PASS],
        ]
        assert found in faces, "neither the old state nor the new one"
        return faces.index(found)

    def lists(self, face: int) -> Edit:
        return set_lists("ansible", {"deny": f"{DENIED}\n{FACES[face]}\n"}, True)

    def left_over(self) -> list[str]:
        """Files and timers that no operation should leave."""
        store, paths = self.host.store, self.site.paths
        names = set(os.listdir(store.root)) - {"current", "lock", *map(str, store.numbers()[-2:])}
        folders = [Path(path).parent for path in (paths.status, paths.tables, paths.settings)]
        folders += [Path(paths.images), Path(paths.pending)]
        names |= {path.name for folder in folders for path in folder.glob(".new-*")}
        names |= {name for name in os.listdir(paths.images) if name != "confirmed"}
        if self.timers.armed:
            names.add("timer")
        if os.path.exists(self.host.pins.former):
            names.add("former")
        return sorted(names)


def is_filtered(name: str) -> bool:
    return attached(socket.if_nametoindex(name)).mode != "none"


class Operation(NamedTuple):
    """An operation that leads to a state.

    act: the operation. prepare: before it. declares: it changes `current`. is_undone: if it fails, the kernel
    is as before it. seen: which states are confirmed and active. stride: each fault hits one of so many
    steps each day. full_stride: the same with PACKETWATCH_FULL=1 for all faults but death.
    """

    act: Callable[[World, int], object]
    prepare: Callable[[World, int], object] = lambda world, face: None
    declares: bool = True
    is_undone: bool = True
    seen: Callable[[World], tuple[int, int]] = World.seen
    stride: int = 20
    full_stride: int = 1


def run_module(world: World, face: int) -> None:
    """Do what the role does in a run: everything at once. State 1 has another interface."""
    names = ("pw0", "pw1")[: 1 + face]
    whole = in_turn(
        set_interfaces(dict.fromkeys(names, "native")),
        set_policies(
            {None: {"PW_SCAN_PORTS": str(7 + face)}, **{name: {} for name in names}}, True
        ),
        world.lists(face),
        set_program(source_text()),
        set_settings(format_values({"PW_PROTECT": f"203.0.113.20{face}", **QUIET})),
    )
    world.host.apply(whole, wish=Wish(attach=names))


def replace(world: World, face: int) -> None:
    """Load another program for other lists."""
    program = set_program(other_program() if face else source_text())
    world.host.apply(in_turn(program, world.lists(face)))


def attach(world: World, face: int) -> None:
    """Attach the second interface, or detach it."""
    act = world.host.attach if face else world.host.detach
    act("pw1")


def edit(world: World, face: int) -> None:
    """Do what `packetwatchctl` does."""
    command = {"command": "deny" if face else "remove", "addresses": [FACES[1]], "list": "deny"}
    edits.perform(world.host, command)


def declare_both(world: World, face: int) -> None:
    """Confirm a state and then the other, so that a rollback leads back to it."""
    world.host.apply(world.lists(face))
    world.host.apply(world.lists(1 - face))


def pend(world: World, face: int) -> None:
    world.host.apply(world.lists(face), terms=MINUTE)


def drift(world: World, face: int) -> None:
    """Confirm a state, and put the tables of the other into the kernel."""
    world.host.apply(world.lists(face))
    Path(world.site.paths.status).unlink(missing_ok=True)
    lists = compile_lists(State(deny={"ansible": f"{DENIED}\n{FACES[1 - face]}\n"}))
    with Loaded(world.host.pins) as loaded:
        with loaded.generation() as current:
            code = current.header["bytecode"]
        image = build(lists.areas, resolve_policies({}), loaded.ifindexes, code)
        loaded.replace(image, lambda: pytest.fail("the program must not be loaded anew"))


def repair(world: World, face: int) -> None:
    left = heal(world.host).left
    if left:
        raise PacketwatchError("; ".join(left))


# Two take long, and most of their steps are those of `apply`.
OPERATIONS = {
    "module": Operation(run_module, stride=25),
    "attach": Operation(attach, seen=World.seen_by_interface),
    "program": Operation(replace, stride=60, full_stride=4),
    "apply": Operation(lambda world, face: world.host.apply(world.lists(face))),
    "edit": Operation(edit, seen=World.seen_by_edit),
    "confirm": Operation(lambda world, face: world.host.confirm(), pend),
    "roll back": Operation(
        lambda world, face: world.host.apply(roll_back(world.host.store)),
        declare_both,
        full_stride=4,
    ),
    "revert": Operation(
        lambda world, face: world.host.roll_back(),
        lambda world, face: pend(world, 1 - face),
        declares=False,
        is_undone=False,
    ),
    "activate": Operation(lambda world, face: world.host.apply(), drift, declares=False),
    "heal": Operation(repair, drift, declares=False, is_undone=False),
}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory. Each step waits for a disk several times, and no power fails here."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def world(filtered: Site) -> Iterator[World]:
    found = World(filtered)
    found.host.apply(in_turn(found.lists(0), set_settings(format_values(QUIET))))
    with tapped(DENIED) as tap:
        with flooded(filtered, DENIED, pause=0.05):
            yield found
        assert tap.leaked() == 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_step(world: World, name: str) -> None:
    """With PACKETWATCH_FULL=1 each fault at each step that it can hit, else at some, at others each day."""
    operation, today = OPERATIONS[name], int(time.time() / 86400)
    outcomes: Counter[str] = Counter()
    for number, kind in enumerate(FAULTS):
        stride = operation.stride
        if FULL:
            stride = 1 if kind == "killed" else operation.full_stride
        step, idle = 1 + (today + number) % stride, 0
        # The two directions differ by a step or two.
        while idle < 2:
            outcome = fail_at(world, operation, step, kind)
            outcomes[outcome] += 1
            idle = idle + 1 if outcome == "unharmed" else 0
            step += stride
    assert outcomes["killed"] and (not FULL or {"failed", "done"} <= set(outcomes))
    # What a death or a full disk leaves, later changes remove.
    for face in (1 - operation.seen(world)[0], 0, 1):
        world.host.apply(world.lists(face))
        pend(world, 1 - face)
        world.host.confirm()
    assert world.left_over() == []


def fail_at(world: World, operation: Operation, step: int, kind: str) -> str:
    """Do an operation with a fault at a step; check all that must hold; return how it ended."""
    confirmed = operation.seen(world)[0]
    face = 1 - confirmed if operation.declares else confirmed
    operation.prepare(world, face)
    before = operation.seen(world)
    outcome = outcome_of(step, FAULTS[kind], lambda: operation.act(world, face))
    now, where = operation.seen(world), f"step {step}, {kind}: {outcome}"
    if outcome in ("done", "unharmed"):
        assert now == (face, face), where
    elif outcome == "failed":
        assert now == before or (not operation.is_undone and now == (before[0], face)), where
    else:
        assert now[0] in (before[0], face), where
    if operation.declares and now[0] == face:
        world.host.apply()
    else:
        operation.act(world, face)
    assert operation.seen(world) == (face, face), where
    assert world.host.verify() == [], where
    assert world.host.pending() is None, where
    return outcome


# The point of no return, with one fault each


def refuse(name: str, path: str, after: bool = False) -> Callable[..., None]:
    """Replace a function of `os`: it fails for a path or its descriptor, before or after its work."""
    works = getattr(os, name)

    def call(*arguments: Any, **options: Any) -> None:
        found = arguments[-1]
        if isinstance(found, int):
            found = os.readlink(f"/proc/self/fd/{found}")
        is_meant = str(found) == path and not options
        if after or not is_meant:
            works(*arguments, **options)
        if is_meant:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    return call


def is_done(world: World) -> bool:
    """Whether state 1 is confirmed and active, also after an apply, a repair, and a boot."""
    found = [world.seen()]
    world.host.apply()
    found.append(world.seen())
    heal(world.host)
    found.append(world.seen())
    world.site.power_off()
    filter_interface(world.timers.run, world.site.paths, "pw0", 1.0)
    found.append(world.seen())
    return found == [(1, 1)] * 4


@pytest.fixture
def host(filtered: Site) -> World:
    found = World(filtered)
    found.host.apply(found.lists(0))
    return found


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("waits", [False, True])
def test_a_disk_that_fails_at_the_confirmation(
    host: World, monkeypatch: pytest.MonkeyPatch, call: str, waits: bool
) -> None:
    if waits:
        pend(host, 1)
    root = host.host.store.root
    # The candidate is on disk before the program is activated.
    path = root if call == "fsync" else f"{root}/current"
    with monkeypatch.context() as broken:
        if waits or call == "rename":
            broken.setattr(os, call, refuse(call, path, after=True))
        else:
            confirm = Store.confirm

            def fail(store: Store, number: int) -> list[str]:
                broken.setattr(os, call, refuse(call, path))
                return confirm(store, number)

            broken.setattr(Store, "confirm", fail)
        problems = (
            host.host.confirm().problems if waits else host.host.apply(host.lists(1)).problems
        )
    assert bool(problems) == (call == "fsync")
    for text in problems:
        assert "confirmed, but the disk may not have it" in text
        assert text in host.host.status.read()["apply"]["why"]
    assert is_done(host)


def test_an_interruption_after_the_confirmation_undoes_nothing(
    host: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm = Store.confirm

    def interrupted(store: Store, number: int) -> list[str]:
        confirm(store, number)
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Store, "confirm", interrupted)
        with pytest.raises(KeyboardInterrupt):
            host.host.apply(host.lists(1))
    assert is_done(host)


def test_a_record_that_cannot_be_written_does_not_hide_a_confirmation(
    host: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pend(host, 1)
    record = os.path.join(host.site.paths.pending, "change.json")
    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", refuse("rename", record))
        done = host.host.confirm()
    assert done.changed and done.change and done.change.status == "confirmed"
    assert "cannot be recorded" in done.problems[0]
    assert host.host.pending() is None and not host.timers.armed
    assert is_done(host)


@pytest.mark.parametrize("path", ["known/tables.json", "boot/confirmed"])
def test_a_note_that_cannot_be_written_stops_no_other(
    host: World, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    folder = Path(host.site.paths.spared).parent
    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", refuse("rename", str(folder / path)))
        (problem,) = host.host.apply(host.lists(1)).problems
    assert str(folder / path.rpartition("/")[0]) in problem
    note = host.host.status.read()
    assert (note["number"], note["apply"]["why"]) == (host.host.store.number(), problem)
    assert is_done(host)


def test_an_edit_names_what_failed_after_it(host: World, monkeypatch: pytest.MonkeyPatch) -> None:
    root, request = host.host.store.root, {"command": "deny", "addresses": ["45.7.7.7"]}
    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", refuse("rename", host.site.paths.tables))
        result = edits.perform(host.host, request)
    assert (result["changed"], result["message"]) == (True, "active now")
    assert host.site.paths.tables in result["notes"][-1]
    pend(host, 1)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse("fsync", root))
        result = edits.perform(host.host, {"command": "confirm", "token": ""})
    assert result["changed"] and "the disk may not have it" in result["notes"][0]


def test_a_device_that_comes_while_a_change_waits_makes_no_boot_image(host: World) -> None:
    pend(host, 1)
    host.host.reattach("pw0")
    host.site.power_off()
    Path(host.site.paths.pending, "change.json").unlink()
    filter_interface(host.timers.run, host.site.paths, "pw0", 1.0)
    assert host.seen() == (0, 0)
