# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lists, feeds, policies, interfaces, program and settings as one change: all of it, or nothing."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.dying import count_steps, killed_at
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

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._base.errors import InvalidInput, LoadFailed, PacketwatchError, TooLarge
from packetwatch_core._change.links import Wish
from packetwatch_core._change.pending import Terms
from packetwatch_core._change.results import Plan
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
from packetwatch_core._declared.store import Store
from packetwatch_core._feeds.edit import FeedEdit, WantedFeed
from packetwatch_core._kernel.programs import attached
from packetwatch_core._network import protect
from packetwatch_core._network.settings import format_values, read_values

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="loads programs"), pytest.mark.slow]

MINUTE = Terms(60, "", "a test")
FEED = "45.9.9.9"
PROTECTED = "203.0.113.200"
DEATHS = 40 if FULL else 7
SETTINGS = {"PW_PROTECT": PROTECTED, "PW_LIST_MEMORY": "64"}


def whole(
    deny: str = f"{UNLISTED}\n",
    feed: str = f"{FEED}\n",
    modes: dict[str, str] | None = None,
    settings: dict[str, str] | None = None,
    program: str = "",
) -> Edit:
    """What the role declares in a run."""
    modes = modes or {"pw1": "native"}
    return in_turn(
        set_interfaces(modes),
        set_policies({None: {"PW_SCAN_PORTS": "9"}, **{name: {} for name in modes}}, True),
        set_lists("ansible", {"allow": "", "deny": deny}, True),
        FeedEdit([WantedFeed("x", "deny", feed, 100)]),
        set_program(program or source_text()),
        set_settings(format_values(settings or SETTINGS)),
    )


def wish(*names: str) -> Wish:
    return Wish(attach=names or ("pw1",))


@pytest.fixture
def before(filtered: Site) -> Site:
    """pw0 is filtered and has a policy of its own; pw1 is there. The settings are a file that an operator wrote."""
    filtered.wire.add("pw1")
    filtered.settings(PW_LIST_MEMORY="32")
    filtered.policy("pw0", scan_counts="any")
    return filtered


@pytest.fixture
def timers(before: Site) -> Timers:
    return Timers(before)


def look(site: Site) -> dict[str, Any]:
    """Everything that a run can change."""
    settings = Path(site.paths.settings)
    names = [name for dummy, name in socket.if_nameindex()]
    return {
        "state": site.host.store.read_current(),
        "numbers": site.host.store.numbers(),
        "link": settings.is_symlink(),
        "settings": settings.read_text(),
        "pins": sorted(str(path) for path in Path(site.paths.bpffs).rglob("*")),
        "modes": {name: attached(socket.if_nametoindex(name)).mode for name in names},
        "verdicts": {
            name: [site.verdict(source, name) for source in (DENIED, UNLISTED, FEED)]
            for name in names
            if attached(socket.if_nametoindex(name)).mode != "none"
        },
        "protected": PROTECTED in site.host.info({"protected"})["protected"],
    }


def is_new(site: Site) -> bool:
    """Whether all of `whole` is active."""
    return (
        attached(socket.if_nametoindex("pw0")).mode == "none"
        and [site.verdict(source, "pw1") for source in (DENIED, UNLISTED, FEED)]
        == [XDP_PASS, XDP_DROP, XDP_DROP]
        and PROTECTED in site.host.info({"protected"})["protected"]
    )


def test_a_run_is_one_state_and_one_generation(
    before: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = before.host.store.number()
    replaced = []
    replace = Loaded.replace

    def counted(self: Loaded, *arguments: Any, **options: Any) -> Callable[[], None]:
        replaced.append(arguments)
        return replace(self, *arguments, **options)

    monkeypatch.setattr(Loaded, "replace", counted)
    done = before.host.apply(whole(), wish=wish())
    assert done.changed and done.active and is_new(before)
    assert before.host.store.number() == number + 1
    assert len(replaced) == 1
    assert [(item.interface, item.mode) for item in done.attachments] == [
        ("pw1", "native"),
        ("pw0", "none"),
    ]
    state = before.host.store.read_current()[1]
    assert state.policy == {"default": {"PW_SCAN_PORTS": "9"}}, "that of pw0 went with it"
    assert before.host.verify() == []


def test_check_mode_forecasts_all_of_it(before: Site) -> None:
    was = look(before)
    predicted = before.host.plan(whole(), wish=wish())
    assert look(before) == was
    done = before.host.apply(whole(), wish=wish())
    assert predicted._replace(attachments=()) == done._replace(attachments=())
    assert predicted.texts() == done.texts()
    old, new = done.texts()
    for line in ("interface pw0: auto", "filter on pw1: none", f"deny ansible: {DENIED}"):
        assert line in old.splitlines()
    for line in (
        "interface pw1: native",
        "filter on pw1: native",
        "filter on pw0: none",
        "policy default: PW_SCAN_PORTS=9",
        f"deny feed-x: {FEED}",
        f'setting PW_PROTECT="{PROTECTED}"',
    ):
        assert line in new.splitlines()


def test_a_second_run_changes_nothing(before: Site) -> None:
    before.host.apply(whole(), wish=wish())
    was, snapshot = look(before), before.snapshot()
    assert not before.host.plan(whole(), wish=wish()).changed
    assert not before.host.apply(whole(), wish=wish()).changed
    assert (look(before), before.snapshot()) == (was, snapshot)


def test_a_missing_link_is_made_again(before: Site) -> None:
    before.host.apply(whole(), wish=wish())
    number = before.host.store.number()
    os.unlink(before.host.pins.link("pw1"))
    # The kernel detaches a little later.
    while attached(socket.if_nametoindex("pw1")).program_id:
        time.sleep(0.01)
    predicted = before.host.plan(whole(), wish=wish())
    assert predicted.changed and predicted.texts()[0] != predicted.texts()[1]
    assert before.host.apply(whole(), wish=wish()).changed
    assert is_new(before)
    assert before.host.store.number() == number


def test_a_first_run(site: Site) -> None:
    predicted = site.host.plan(whole(modes={"pw0": "auto"}), wish=wish("pw0"))
    assert predicted.changed and predicted.attachments[0].mode == "unknown until attached"
    assert not Path(site.paths.bpffs).exists() and not site.state.exists()
    assert site.host.apply(whole(modes={"pw0": "auto"}), wish=wish("pw0")).changed
    assert (site.verdict(UNLISTED), site.host.store.number()) == (XDP_DROP, 1)
    assert read_values(site.paths.settings) == (SETTINGS, {})


def test_rollback_takes_back_the_run(before: Site) -> None:
    before.host.apply(whole(), wish=wish())
    was = look(before)
    before.host.apply(
        whole("", "45.8.8.8\n", {"pw0": "generic"}, {"PW_LIST_MEMORY": "16"}, other_program()),
        wish=wish("pw0"),
    )
    assert look(before)["verdicts"] == {"pw0": [XDP_PASS] * 3}
    go_back = roll_back(before.host.store)
    predicted = before.host.plan(go_back)
    done = before.host.apply(go_back)
    assert predicted._replace(attachments=()) == done._replace(attachments=())
    same = ("settings", "modes", "verdicts", "protected", "link")
    now = look(before)
    assert {key: now[key] for key in same} == {key: was[key] for key in same}
    assert now["state"][1] == was["state"][1]
    assert not before.host.apply(go_back).changed


def test_rollback_of_the_first_run_keeps_its_settings(before: Site) -> None:
    was = look(before)
    before.host.apply(whole(), wish=wish())
    before.host.apply(roll_back(before.host.store))
    now = look(before)
    assert (now["verdicts"], now["modes"]) == (was["verdicts"], was["modes"])
    assert read_values(before.paths.settings) == (SETTINGS, {})


# Pending


def test_settings_are_those_of_confirmed_state(before: Site, timers: Timers) -> None:
    was = look(before)
    change = timers.host.apply(whole(), wish=wish(), terms=MINUTE).pending
    assert change and is_new(before)
    assert Path(before.paths.settings).read_text() == was["settings"], "a boot must read these"
    assert timers.host.confirm(change.token).changed
    assert is_new(before)
    assert Path(before.paths.settings).is_symlink()
    assert read_values(before.paths.settings) == (SETTINGS, {})


@pytest.mark.parametrize("how", ["rolled back", "too late", "panic"])
def test_a_run_that_is_not_confirmed_leaves_nothing(before: Site, timers: Timers, how: str) -> None:
    was = look(before)
    terms = Terms(0.2) if how == "too late" else MINUTE
    change = timers.host.apply(whole(), wish=wish(), terms=terms).pending
    assert change
    if how == "too late":
        time.sleep(0.3)
    else:
        assert is_new(before)
    if how == "panic":
        timers.host.panic("a test")
        timers.host.lift()
    else:
        timers.host.roll_back(change.token if how == "rolled back" else "", due=how == "too late")
    assert look(before) == was
    assert timers.host.pending() is None


def test_a_boot_forgets_a_run_that_waits(before: Site, timers: Timers) -> None:
    was = look(before)
    timers.host.apply(whole(), wish=wish(), terms=MINUTE)
    objects = before.objects("pw1")
    before.close()
    (Path(before.paths.pending) / "change.json").unlink()
    assert objects
    time.sleep(0.2)
    before.host.reattach("pw0")
    now = look(before)
    same = ("state", "settings", "modes", "verdicts", "protected")
    assert {key: now[key] for key in same} == {key: was[key] for key in same}


# Refusals


def fails_before(site: Site, edit: Edit, kind: type[Exception], words: str) -> None:
    was, snapshot, prepared = look(site), site.snapshot(), []
    with pytest.raises(kind, match=words):
        site.host.plan(edit, wish=wish())
    with pytest.raises(kind, match=words):
        site.host.apply(edit, wish=wish(), prepare=lambda: prepared.append(True))
    assert (look(site), site.snapshot(), prepared) == (was, snapshot, [])


def test_new_settings_count_in_the_plan(before: Site) -> None:
    fails_before(
        before,
        whole(deny="203.0.113.0/24\n"),
        InvalidInput,
        f"{PROTECTED}",
    )
    many = "".join(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}\n" for i in range(0, 400_000, 2))
    small = {"PW_LIST_MEMORY": "1"}
    fails_before(before, whole(deny=many, settings=small), TooLarge, "list_memory is 1")
    # The same lists with a lower limit: lists that did not change are refused too.
    before.host.apply(whole(deny=many), wish=wish())
    fails_before(before, whole(deny=many, settings=small), TooLarge, "list_memory is 1")
    fails_before(before, whole(modes={"pw9": "auto"}), InvalidInput, "there is no interface 'pw9'")


def test_software_is_installed_after_the_plan_and_before_the_change(before: Site) -> None:
    was = look(before)
    seen = []
    before.host.apply(whole(), wish=wish(), prepare=lambda: seen.append(look(before)))
    assert seen == [was]
    assert is_new(before)

    def fail() -> None:
        raise LoadFailed("no room for software")

    was = look(before)
    with pytest.raises(LoadFailed, match="no room"):
        before.host.apply(whole(deny=""), wish=wish(), prepare=fail)
    assert look(before) == was


# Failures


def fail(*dummy: object, **others: object) -> Any:
    raise LoadFailed("on purpose")


STEPS = {
    "write the candidate": (Store, "write_candidate"),
    "activate the generation": (Loaded, "replace"),
    "write protected addresses": (protect, "write"),
    "attach": (Loaded, "attach"),
    "detach": (Loaded, "drop"),
    "confirm": (Store, "confirm"),
}


@pytest.mark.parametrize("seconds", [0, 60])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_leaves_nothing(
    before: Site, timers: Timers, monkeypatch: pytest.MonkeyPatch, step: str, seconds: int
) -> None:
    was, snapshot = look(before), before.snapshot()
    owner, name = STEPS[step]
    works = getattr(owner, name)
    calls: list[int] = []

    def fails_first(*arguments: Any, **options: Any) -> Any:
        # What undoes the change may use the same function.
        calls.append(1)
        return fail() if len(calls) == 1 else works(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fails_first)
        if step == "confirm" and seconds:
            change = timers.host.apply(whole(), wish=wish(), terms=Terms(seconds)).pending
            with pytest.raises(LoadFailed, match="on purpose"):
                timers.host.confirm()
            assert change and timers.host.roll_back(change.token).changed
        else:
            with pytest.raises(LoadFailed, match="on purpose"):
                timers.host.apply(whole(), wish=wish(), terms=Terms(seconds))
    assert calls
    assert look(before) == was
    now = before.snapshot()
    assert now["state"] == snapshot["state"]
    assert {name: link.mode for name, link in _links(now)} == {
        name: link.mode for name, link in _links(snapshot)
    }
    assert timers.host.pending() is None and not timers.armed
    assert before.host.verify() == []


def _links(snapshot: dict[str, object]) -> Iterator[tuple[str, Any]]:
    links = snapshot["links"]
    assert isinstance(links, dict)
    yield from links.items()


def test_a_device_that_refuses_leaves_nothing(before: Site) -> None:
    was = look(before)
    modes = {"pw1": "native", "lo": "native"}
    with pytest.raises(LoadFailed, match="lo refuses native mode"):
        before.host.apply(whole(modes=modes), wish=wish("lo", "pw1"))
    assert look(before) == was
    assert before.left_open() == []


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 60])
def test_death_at_any_step(before: Site, timers: Timers, seconds: int) -> None:
    """All of the run is active and confirmed, or nothing of it, once the next writer has cleared up."""
    was = look(before)

    def run() -> Plan:
        return timers.host.apply(whole(), wish=wish(), terms=Terms(seconds))

    def clear() -> None:
        try:
            timers.host.roll_back()
        except PacketwatchError:
            pass
        timers.host.apply()
        timers.timer.unlink(missing_ok=True)
        with timers.host.store.lock(1):
            timers.host.store.prune()

    old = was["state"][1]._replace(settings=format_values(SETTINGS))

    def take_back() -> None:
        before.host.apply(lambda state: old, wish=Wish(attach=("pw0",)))
        before.host.detach("pw1")

    def count() -> int:
        found = count_steps(run)
        if seconds:
            clear()
            assert look(before)["verdicts"] == was["verdicts"]
        else:
            take_back()
        return found

    # The first run makes folders that the next ones find.
    steps = min(count(), count())
    drawn = random.Random(int(time.time() / 86400))
    finished = 0
    for step in sorted(drawn.sample(range(1, steps + 1), min(DEATHS, steps))):
        finished += not killed_at(step, run)
        clear()
        state = before.host.store.read_current()[1]
        if state._replace(settings=old.settings) == old:
            before.host.reattach("pw0")
            before.host.detach("pw1")
            now = look(before)
            assert (now["verdicts"], now["modes"]) == (was["verdicts"], was["modes"])
        else:
            assert not seconds and list(state.interfaces) == ["pw1"]
            before.host.reattach("pw1")
            before.host.detach("pw0")
            assert is_new(before)
            take_back()
        assert before.host.verify() == []
    # Some runs have a few steps less than the one that was counted: they find what it has written.
    assert finished <= 1


def test_during_a_panic_a_run_only_declares(before: Site) -> None:
    with before.program() as program:
        tag = program.info().tag
    before.host.panic("a test")
    for act in (before.host.plan, before.host.apply):
        done = act(whole(program=other_program()), wish=wish())
        assert (done.changed, done.active, done.attachments) == (True, False, ())
    assert attached(socket.if_nametoindex("pw1")).mode == "none"
    before.host.lift()
    assert is_new(before)
    with before.program("pw1") as program:
        assert program.info().tag != tag
