# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Panic: everything passes at once and permanently, and no other activity reactivates the filter."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel.dying import count_steps, killed_at
from kernel.hosting import (
    DENIED,
    FULL,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Site,
    run,
)
from kernel.timers import Timers

from packetwatch_core._base.errors import LoadFailed, Locked, PacketwatchError, Panicked, Reverted
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared.edits import set_lists
from packetwatch_core._host.host import Host
from packetwatch_core._kernel.programs import Link, attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

MINUTE = Terms(60, "", "a test")
BANNED = "203.0.113.77"
DEATHS = 40 if FULL else 8


@pytest.fixture
def timers(filtered: Site) -> Timers:
    return Timers(filtered)


def passes(interface: str = "pw0") -> bool:
    """Return whether no program is attached to an interface."""
    return attached(socket.if_nametoindex(interface)).mode == "none"


def flag(site: Site) -> Path:
    return site.state / "panic"


def test_everything_passes_and_what_is_loaded_stays(filtered: Site) -> None:
    filtered.host.ban(BANNED, None)
    maps, state = filtered.pinned_maps(), filtered.host.store.read_current()
    done = filtered.host.panic("a test")
    assert done.changed and done.panic and done.panic.owner == "a test"
    assert passes()
    assert filtered.pinned_maps() == maps
    assert filtered.host.store.read_current() == state
    assert filtered.host.info({"panic"})["panic"]["owner"] == "a test"
    assert (flag(filtered).stat().st_mode & 0o777) == 0o644
    assert not filtered.left_open()
    again = filtered.host.panic("another one")
    assert not again.changed and again.panic and again.panic.owner == "a test"
    filtered.host.lift()
    assert filtered.verdict(DENIED) == XDP_DROP
    assert [ban["source"] for ban in filtered.host.info({"bans"})["bans"]] == [BANNED]
    assert not flag(filtered).exists()
    assert filtered.host.lift().changed is False


def test_nobody_attaches_until_it_is_lifted(filtered: Site) -> None:
    filtered.host.panic("a test")
    attempts: list[Callable[[], object]] = [
        lambda: filtered.host.attach("pw0"),
        lambda: filtered.host.attach("pw0", check=True),
        lambda: filtered.host.reattach("pw0"),
    ]
    for attempt in attempts:
        with pytest.raises(Panicked, match=r"PANIC of a test since 20.*packetwatch_panic=absent"):
            attempt()
    assert not filtered.host.apply().active
    assert filtered.host.verify()[0].startswith("PANIC of a test since 20")
    assert passes()


@pytest.mark.slow
def test_it_outlives_a_reboot(filtered: Site) -> None:
    filtered.power_off()
    filtered.host.reattach("pw0")
    filtered.host.panic("a test")
    filtered.close()
    with pytest.raises(Panicked):
        filtered.host.reattach("pw0")
    assert passes()
    filtered.host.lift()
    assert filtered.verdict(DENIED) == XDP_DROP


def test_what_is_declared_meanwhile_is_activated_when_it_is_lifted(filtered: Site) -> None:
    filtered.host.panic("a test")
    assert not filtered.lists(deny=UNLISTED).active
    assert passes()
    filtered.host.lift()
    assert (filtered.verdict(DENIED), filtered.verdict(UNLISTED)) == (XDP_PASS, XDP_DROP)


def test_a_pending_change_is_reverted(filtered: Site, timers: Timers) -> None:
    number = filtered.host.store.number()
    edit = set_lists("ansible", {"deny": UNLISTED}, True)
    change = timers.host.apply(edit, terms=MINUTE).pending
    assert change
    timers.host.panic("a test")
    assert passes()
    assert not timers.armed
    assert timers.host.pending() is None
    # Because of the panic, the connection that would confirm the change succeeds.
    with pytest.raises(Reverted):
        timers.host.confirm(change.token)
    timers.host.roll_back(due=True)
    assert passes()
    timers.host.lift()
    assert (filtered.verdict(DENIED), filtered.verdict(UNLISTED)) == (XDP_DROP, XDP_PASS)
    assert filtered.host.store.number() == number


def test_nobody_is_waited_for(filtered: Site, timers: Timers) -> None:
    change = timers.host.apply(set_lists("ansible", {"deny": UNLISTED}, True), terms=MINUTE).pending
    assert change
    hasty = Host(run, filtered.paths, patience=0.1)
    with Link.open(filtered.host.pins.link("pw0")), filtered.host.store.lock(1):
        with pytest.raises(Locked, match="is held by process"):
            hasty.panic("a test")
        # This works even though a process still holds the link open.
        assert passes()
    assert flag(filtered).exists()
    # The panic could not revert the change because of the lock; it is not confirmed either.
    with pytest.raises(Reverted):
        timers.host.confirm(change.token)
    assert passes()


def test_a_flag_that_cannot_be_written(filtered: Site) -> None:
    Path(f"{filtered.state}/.new-panic").mkdir()
    with pytest.raises(PacketwatchError, match="everything passes now, but the next boot filters"):
        filtered.host.panic("a test")
    assert passes()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "{}", "\0\xff", "[1]"])
def test_whatever_the_flag_holds_it_counts(filtered: Site, text: str) -> None:
    flag(filtered).write_text(text)
    with pytest.raises(Panicked, match="PANIC of an unknown owner"):
        filtered.host.reattach("pw0")


def test_check_mode(filtered: Site) -> None:
    before = filtered.snapshot()
    assert filtered.host.panic("a test", check=True).changed
    assert not filtered.host.lift(check=True).changed
    assert filtered.snapshot() == before
    filtered.host.panic("a test")
    before = filtered.snapshot()
    assert not filtered.host.panic("a test", check=True).changed
    assert filtered.host.lift(check=True).changed
    assert filtered.snapshot() == before


def test_the_end_of_a_panic_is_confirmed(filtered: Site, timers: Timers) -> None:
    number = filtered.host.store.number()
    timers.host.panic("a test")
    change = timers.host.lift(terms=MINUTE).pending
    assert change and timers.armed
    assert filtered.verdict(DENIED) == XDP_DROP
    assert flag(filtered).exists()
    assert timers.host.confirm(change.token).changed
    assert timers.host.confirm(change.token).changed is False
    assert filtered.verdict(DENIED) == XDP_DROP
    assert not flag(filtered).exists()
    assert not timers.armed
    # The state for a rollback is still there.
    assert filtered.host.store.number() == number
    assert filtered.host.store.read_former()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["rolled back", "too late", "reboot", "panic again"])
def test_an_end_that_is_not_confirmed_is_reverted(filtered: Site, timers: Timers, how: str) -> None:
    maps = filtered.pinned_maps()
    timers.host.panic("a test")
    change = timers.host.lift(terms=Terms(0.2) if how == "too late" else MINUTE).pending
    assert change and not passes()
    if how == "rolled back":
        assert timers.host.roll_back(change.token).changed
    elif how == "too late":
        time.sleep(0.3)
        timers.host.roll_back(due=True)
    elif how == "panic again":
        timers.host.panic("a test")
    else:
        filtered.close()
        (Path(filtered.paths.pending) / "change.json").unlink()
        with pytest.raises(Panicked):
            filtered.host.reattach("pw0")
    assert passes()
    assert flag(filtered).exists()
    if how != "reboot":
        assert filtered.pinned_maps() == maps
        with pytest.raises(Reverted):
            timers.host.confirm(change.token)
    timers.host.lift()
    assert filtered.verdict(DENIED) == XDP_DROP


def test_an_end_that_fails_leaves_the_panic(filtered: Site, timers: Timers) -> None:
    timers.host.panic("a test")
    timers.refuse = True
    with pytest.raises(LoadFailed, match="no such luck"):
        timers.host.lift(terms=MINUTE)
    assert passes()
    assert flag(filtered).exists()
    assert timers.host.pending() is None


@pytest.mark.slow
def test_deaths(filtered: Site) -> None:
    """Wherever it dies: without the flag nothing has happened yet, and with the flag nobody can attach."""
    steps = count_steps(lambda: filtered.host.panic("a test"))
    filtered.host.lift()
    for step in sorted({1 + at * steps // DEATHS for at in range(DEATHS)}):
        assert killed_at(step, lambda: filtered.host.panic("a test"))
        if flag(filtered).exists():
            with pytest.raises(Panicked):
                filtered.host.reattach("pw0")
        else:
            assert filtered.verdict(DENIED) == XDP_DROP
        filtered.host.panic("a test")
        assert passes()
        filtered.host.lift()
        assert filtered.verdict(DENIED) == XDP_DROP


def test_a_host_on_which_nothing_is_installed(site: Site) -> None:
    former = os.umask(0o077)
    try:
        assert site.host.panic("a test").changed
    finally:
        os.umask(former)
    assert (site.state.stat().st_mode & 0o777) == 0o755
    with pytest.raises(Panicked):
        site.host.attach("pw0")
    assert site.host.lift().changed
    assert site.host.attach("pw0").changed
