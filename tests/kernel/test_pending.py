# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pending changes: what is active, what is reverted, and what a dead process leaves."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.dying import count_steps, killed_after, killed_at
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
from packetwatch_core._base.errors import (
    InvalidInput,
    LoadFailed,
    PacketwatchError,
    Pending,
    Reverted,
    Unsupported,
)
from packetwatch_core._change.pending import Change, Terms
from packetwatch_core._change.results import Outcome
from packetwatch_core._declared.edits import set_lists, set_policy
from packetwatch_core._kernel.programs import attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

MINUTE = Terms(60, "", "a test")
SECOND = "192.0.2.200"
MANY = "".join(f"10.{i >> 8}.{i & 255}.{i * 7 & 255}\n" for i in range(8_000))
DEATHS = 40 if FULL else 7
RUNS = 100 if FULL else 12


@pytest.fixture
def timers(site: Site) -> Timers:
    return Timers(site)


@pytest.fixture
def confirming(filtered: Site) -> Timers:
    """Timers of a filtered host."""
    return Timers(filtered)


def deny(timers: Timers, text: str, terms: Terms = MINUTE) -> Change:
    """Begin a change of the deny list."""
    change = timers.host.apply(set_lists("ansible", {"deny": text}, True), terms=terms).pending
    assert change is not None
    return change


def verdicts(site: Site) -> tuple[int, int]:
    return site.verdict(DENIED), site.verdict(UNLISTED)


class Before:
    """Everything that must be unchanged once a change was reverted."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._was = self._look()

    def _look(self) -> tuple[object, ...]:
        names = [name for dummy, name in socket.if_nameindex()]
        return (
            self._site.host.store.read_current(),
            {name: attached(socket.if_nametoindex(name)) for name in names},
            sorted(str(path) for path in Path(self._site.paths.bpffs).rglob("*")),
            [(name, self._site.verdict(DENIED, name)) for name in names if self._filtered(name)],
        )

    def _filtered(self, name: str) -> bool:
        return attached(socket.if_nametoindex(name)).mode != "none"

    def check(self, timers: Timers) -> None:
        assert self._look() == self._was
        assert not timers.armed
        assert timers.host.pending() is None
        number = self._site.host.store.number()
        assert not (self._site.state / str(number + 1)).exists()


@contextlib.contextmanager
def no_compiler(timers: Timers, site: Site) -> Iterator[None]:
    """Code in this context needs no bytecode, not even from the cache."""
    before = timers.compilers
    cache = Path(site.paths.cache)
    hidden = cache.with_name("hidden")
    cache.rename(hidden)
    try:
        yield
    finally:
        # A change puts the bytecode that it has used into the cache again.
        shutil.rmtree(cache, ignore_errors=True)
        hidden.rename(cache)
    assert timers.compilers == before


# Confirmed, rolled back, too late


def test_a_pending_list_is_active_and_boot_does_not_read_it(
    filtered: Site, confirming: Timers
) -> None:
    number, state = filtered.host.store.read_current()
    change = deny(confirming, UNLISTED)
    assert verdicts(filtered) == (XDP_PASS, XDP_DROP)
    assert filtered.host.store.read_current() == (number, state)
    assert confirming.armed
    assert "--on-active=60.000s" in confirming.timer.read_text()
    assert (Path(filtered.paths.pending).stat().st_mode & 0o777) == 0o700
    assert confirming.host.pending() == change
    assert (change.owner, len(change.token)) == ("a test", 32)


def test_confirm(filtered: Site, confirming: Timers) -> None:
    number = filtered.host.store.number()
    change = deny(confirming, UNLISTED)
    generation = filtered.generation_id()
    done = confirming.host.confirm(change.token)
    assert done.changed and done.change and done.change.status == "confirmed"
    assert filtered.host.store.number() == number + 1
    assert not confirming.armed
    assert not Path(filtered.host.pins.former).exists()
    assert filtered.generation_id() == generation
    # The caller asks again if the answer was lost.
    assert confirming.host.confirm(change.token).changed is False
    assert not filtered.lists(deny=UNLISTED).changed


@pytest.mark.slow
@pytest.mark.parametrize("with_token", [False, True])
def test_by_hand(filtered: Site, confirming: Timers, with_token: bool) -> None:
    def perform(command: str, token: str) -> tuple[bool, str]:
        request = {"command": command, "token": token if with_token else ""}
        result = edits.perform(confirming.host, request)
        return result["changed"], result["message"]

    change = deny(confirming, UNLISTED)
    returned = "the change of a test was reverted: the state confirmed before it is active"
    assert perform("rollback", change.token) == (True, returned)
    assert verdicts(filtered) == (XDP_DROP, XDP_PASS)
    change = deny(confirming, UNLISTED)
    assert perform("confirm", change.token) == (True, "the change of a test is confirmed")
    assert perform("confirm", change.token)[0] is False
    assert not confirming.armed


def test_roll_back(filtered: Site, confirming: Timers) -> None:
    before = Before(filtered)
    generation = filtered.generation_id()
    change = deny(confirming, UNLISTED)
    with no_compiler(confirming, filtered):
        assert confirming.host.roll_back(change.token).changed
    before.check(confirming)
    assert filtered.generation_id() == generation
    assert confirming.host.roll_back().changed is False
    # The waiting task must not report that its connection was too slow.
    with pytest.raises(Reverted, match=r"was reverted by \S+ \(user \S+\), at 20"):
        confirming.host.confirm(change.token)


@pytest.mark.slow
def test_too_late(filtered: Site, confirming: Timers) -> None:
    before = Before(filtered)
    change = deny(confirming, UNLISTED, Terms(0.2))
    time.sleep(0.3)
    with pytest.raises(Reverted, match="not confirmed in time"):
        confirming.host.confirm(change.token)
    before.check(confirming)


def test_the_timer_of_an_ended_change_does_not_end_the_next(
    filtered: Site, confirming: Timers
) -> None:
    confirming.host.confirm(deny(confirming, UNLISTED).token)
    change = deny(confirming, SECOND)
    assert confirming.host.roll_back(due=True).changed is False
    assert confirming.host.pending() == change
    assert filtered.verdict(SECOND) == XDP_DROP


def test_the_timer_ends_a_change_whose_time_is_up(filtered: Site, confirming: Timers) -> None:
    before = Before(filtered)
    deny(confirming, UNLISTED, Terms(0.1))
    time.sleep(0.2)
    done = confirming.host.roll_back(due=True)
    assert done.changed and done.change and done.change.status == "rolled_back"
    before.check(confirming)


def test_a_token_of_another_change(filtered: Site, confirming: Timers) -> None:
    change = deny(confirming, UNLISTED)
    for act in (confirming.host.confirm, confirming.host.roll_back):
        with pytest.raises(Pending, match=r"a change of a test, made at 20.* within [56][0-9] s"):
            act("0" * 32)
    assert confirming.host.pending() == change
    confirming.host.confirm()
    with pytest.raises(InvalidInput, match="was confirmed at 20"):
        confirming.host.roll_back(change.token)
    with pytest.raises(Reverted, match="no change with this token is known"):
        confirming.host.confirm("0" * 32)


def test_nothing_was_ever_pending(filtered: Site, confirming: Timers) -> None:
    with pytest.raises(Reverted, match="no change is pending"):
        confirming.host.confirm()
    assert confirming.host.roll_back() == Outcome(False, None)


# One at a time


def test_a_second_change_is_refused(filtered: Site, confirming: Timers) -> None:
    deny(confirming, UNLISTED)
    host, before = filtered.host, filtered.snapshot()
    edit = set_lists("local", {"deny": SECOND}, False)
    attempts: list[Callable[[], object]] = [
        lambda: host.apply(edit),
        lambda: host.plan(edit),
        lambda: host.attach("pw0"),
        lambda: host.attach("pw0", check=True),
        lambda: host.detach("pw0"),
        lambda: confirming.host.apply(edit, terms=MINUTE),
    ]
    for attempt in attempts:
        with pytest.raises(Pending, match="a change of a test"):
            attempt()
    assert filtered.snapshot() == before


def test_confirmed_state_is_not_applied_meanwhile(filtered: Site, confirming: Timers) -> None:
    deny(confirming, UNLISTED)
    before = filtered.snapshot()
    plan = filtered.host.apply()
    assert not plan.changed
    assert "nothing done: a change of a test" in plan.paused
    assert filtered.snapshot() == before


@pytest.mark.slow
def test_an_entry_that_expired_meanwhile(filtered: Site, confirming: Timers) -> None:
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    change = deny(confirming, f"{DENIED} expires={ends}\n{UNLISTED}")
    time.sleep(2.2)
    filtered.host.apply()
    assert verdicts(filtered) == (XDP_DROP, XDP_DROP)
    confirming.host.confirm(change.token)
    assert verdicts(filtered) == (XDP_PASS, XDP_DROP)


def test_a_device_that_comes_back_meanwhile(filtered: Site, confirming: Timers) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    deny(confirming, UNLISTED)
    filtered.wire.remove("pw1")
    filtered.wire.add("pw1")
    filtered.host.reattach("pw1")
    assert filtered.verdict(UNLISTED, "pw1") == XDP_DROP
    confirming.host.roll_back()
    assert filtered.verdict(UNLISTED, "pw1") == XDP_PASS
    assert filtered.verdict(DENIED, "pw1") == XDP_DROP


# What needs no confirmation


def test_where_nothing_is_active_there_is_nothing_to_confirm(site: Site, timers: Timers) -> None:
    edit = set_lists("ansible", {"deny": DENIED}, False)
    plan = timers.host.apply(edit, terms=MINUTE)
    assert (plan.changed, plan.active, plan.pending) == (True, False, None)
    assert site.host.store.number() == 1
    assert not timers.armed


def test_what_no_packet_meets_is_confirmed_at_once(filtered: Site, confirming: Timers) -> None:
    edit = set_lists("ansible", {"deny": f"{DENIED} # why"}, False)
    plan = confirming.host.apply(edit, terms=MINUTE)
    assert (plan.changed, plan.pending) == (True, None)
    again = confirming.host.attach("pw0", terms=MINUTE)
    assert (again.changed, again.pending) == (False, None)
    assert not confirming.armed


def test_without_systemd_only_no_timer_is_accepted(filtered: Site) -> None:
    before = filtered.snapshot()
    edit = set_lists("ansible", {"deny": UNLISTED}, False)
    for act in (filtered.host.apply, filtered.host.plan):
        with pytest.raises(Unsupported, match="set confirm_timeout to 0"):
            act(edit, terms=MINUTE)
    for method in (filtered.host.attach, filtered.host.detach):
        with pytest.raises(Unsupported, match="set confirm_timeout to 0"):
            method("pw0", terms=MINUTE)
    assert filtered.snapshot() == before


def test_invalid_time(filtered: Site, confirming: Timers) -> None:
    for seconds in (-1, 86401, float("nan")):
        with pytest.raises(InvalidInput, match="confirm_timeout is"):
            deny(confirming, UNLISTED, Terms(seconds))


def test_a_timer_that_systemd_refuses(filtered: Site, confirming: Timers) -> None:
    before = filtered.snapshot()
    confirming.refuse = True
    with pytest.raises(LoadFailed, match="no such luck"):
        deny(confirming, UNLISTED)
    assert filtered.snapshot() == before
    assert confirming.host.pending() is None


# All kinds of changes


def change_capacity(timers: Timers) -> Change | None:
    return deny(timers, f"{UNLISTED}\n{MANY}")


def change_policy(timers: Timers) -> Change | None:
    edit = set_policy("pw0", {"PW_ACTION": "off"}, False)
    return timers.host.apply(edit, terms=MINUTE).pending


def change_program(timers: Timers) -> Change | None:
    return timers.host.attach("pw0", source=other_program(), terms=MINUTE).pending


def change_mode(timers: Timers) -> Change | None:
    return timers.host.attach("pw0", "generic", terms=MINUTE).pending


def attach_second(timers: Timers) -> Change | None:
    return timers.host.attach("pw1", terms=MINUTE).pending


def detach_last(timers: Timers) -> Change | None:
    return timers.host.detach("pw0", terms=MINUTE).pending


def attach_and_replace(timers: Timers) -> Change | None:
    return timers.host.attach("pw1", source=other_program(), terms=MINUTE).pending


OTHERS = (change_capacity, change_mode, attach_second, attach_and_replace, detach_last)
kinds = pytest.mark.parametrize(
    "begin",
    [
        change_policy,
        change_program,
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS),
    ],
)


@pytest.mark.slow
@kinds
def test_every_kind_of_change_is_reverted(
    filtered: Site, confirming: Timers, begin: Callable[[Timers], Change | None]
) -> None:
    filtered.wire.add("pw1")
    before = Before(filtered)
    change = begin(confirming)
    assert change is not None
    with no_compiler(confirming, filtered):
        confirming.host.roll_back(change.token)
    before.check(confirming)
    assert filtered.left_open() == []


@pytest.mark.slow
@kinds
def test_every_kind_of_change_is_confirmed(
    filtered: Site, confirming: Timers, begin: Callable[[Timers], Change | None]
) -> None:
    filtered.wire.add("pw1")
    begin(confirming)
    number = filtered.host.store.number()
    links = {index: attached(index) for index, dummy in socket.if_nameindex()}
    confirming.host.confirm()
    assert filtered.host.store.number() == number + 1
    assert {index: attached(index) for index, dummy in socket.if_nameindex()} == links
    assert not Path(filtered.host.pins.former).exists()
    # Confirmed state is active: applying it again changes nothing.
    assert not filtered.host.apply().changed
    if begin is detach_last:
        assert not Path(filtered.paths.bpffs).exists()


def test_detach_with_others_left(filtered: Site, confirming: Timers) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    filtered.policy("pw1", action="monitor")
    before = Before(filtered)
    confirming.host.detach("pw1", terms=MINUTE)
    assert attached(socket.if_nametoindex("pw1")).mode == "none"
    confirming.host.roll_back()
    before.check(confirming)


def test_the_first_attach(site: Site, timers: Timers) -> None:
    site.lists(DENIED)
    before = Before(site)
    done = timers.host.attach("pw0", terms=MINUTE)
    assert done.pending is not None
    assert site.verdict(DENIED) == XDP_DROP
    timers.host.roll_back()
    before.check(timers)
    assert not Path(site.paths.bpffs).exists()
    timers.host.attach("pw0", terms=MINUTE)
    timers.host.confirm()
    assert site.host.store.read_current()[1].program == source_text()


@pytest.mark.slow
@kinds
def test_without_the_pins_it_is_compiled(
    filtered: Site, confirming: Timers, begin: Callable[[Timers], Change | None]
) -> None:
    filtered.wire.add("pw1")
    state, mode = filtered.host.store.read_current(), attached(socket.if_nametoindex("pw0")).mode
    begin(confirming)
    filtered.host.pins.remove_former()
    confirming.host.roll_back()
    assert filtered.host.store.read_current() == state
    assert verdicts(filtered) == (XDP_DROP, XDP_PASS)
    assert attached(socket.if_nametoindex("pw0")).mode == mode
    assert attached(socket.if_nametoindex("pw1")).mode == "none"
    assert not filtered.host.apply().changed
    assert not filtered.host.attach("pw0").changed


@pytest.mark.slow
def test_a_boot_forgets_the_change(filtered: Site, confirming: Timers) -> None:
    deny(confirming, UNLISTED)
    filtered.power_off()
    (Path(filtered.paths.pending) / "change.json").unlink()
    filtered.host.reattach("pw0")
    assert verdicts(filtered) == (XDP_DROP, XDP_PASS)
    assert filtered.lists(deny=SECOND).changed


def test_a_change_that_fails_leaves_nothing(
    filtered: Site, confirming: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filtered.snapshot()

    def fail(*dummy: object) -> None:
        raise LoadFailed("on purpose")

    monkeypatch.setattr(confirming.host._site.alarm, "set", fail)
    with pytest.raises(LoadFailed, match="on purpose"):
        deny(confirming, UNLISTED)
    assert filtered.snapshot() == before
    assert not confirming.armed
    assert confirming.host.pending() is None


# Deaths


def some(steps: int) -> list[int]:
    """Return some of the steps at which to die, others each day."""
    drawn = random.Random(int(time.time() / 86400))
    return sorted(drawn.sample(range(1, steps + 1), min(DEATHS, steps)))


def rolled_back(timers: Timers) -> None:
    """Do what the timer does when it fires, if it was set."""
    with contextlib.suppress(Reverted):
        timers.host.roll_back()


@pytest.mark.slow(12)
@pytest.mark.parametrize(
    "begin", [change_capacity, change_program, attach_and_replace, detach_last]
)
def test_death_during_a_change(
    filtered: Site, confirming: Timers, begin: Callable[[Timers], Change | None]
) -> None:
    filtered.wire.add("pw1")
    before = Before(filtered)
    steps = count_steps(lambda: begin(confirming))
    confirming.host.roll_back()
    before.check(confirming)
    finished = 0
    for step in some(steps):
        finished += not killed_at(step, lambda: begin(confirming))
        unarmed = not confirming.armed
        if unarmed:
            # Then nothing was activated.
            assert verdicts(filtered) == (XDP_DROP, XDP_PASS)
            assert attached(socket.if_nametoindex("pw1")).mode == "none"
        rolled_back(confirming)
        settle(confirming)
        before.check(confirming)
    # Some runs have a few steps less than the first one: they find what it has written.
    assert finished <= 1


@pytest.mark.slow(24)
@pytest.mark.parametrize("begin", [change_capacity, change_program, detach_last])
def test_death_during_a_rollback(
    filtered: Site, confirming: Timers, begin: Callable[[Timers], Change | None]
) -> None:
    before = Before(filtered)
    begin(confirming)
    confirming.host.roll_back()
    begin(confirming)
    # The first one writes files that later ones find.
    steps = count_steps(confirming.host.roll_back)
    before.check(confirming)
    finished = 0
    for step in some(steps):
        begin(confirming)
        finished += not killed_at(step, confirming.host.roll_back)
        rolled_back(confirming)
        settle(confirming)
        before.check(confirming)
    # As above.
    assert finished <= 1


@pytest.mark.slow(16)
def test_death_during_a_confirmation(filtered: Site, confirming: Timers) -> None:
    texts = [f"{DENIED}\n{MANY}", DENIED]
    deny(confirming, texts[0])
    steps = count_steps(confirming.host.confirm)
    seen = set()
    for step in range(1, steps + 1):
        number, state = filtered.host.store.read_current()
        text = texts[state.deny["ansible"] == texts[0]]
        change = deny(confirming, text)
        assert killed_at(step, confirming.host.confirm)
        # Either the timer or the next change comes first.
        if step % 2:
            rolled_back(confirming)
        settle(confirming)
        after = filtered.host.store.read_current()
        kept = after == (number, state)
        seen.add(kept)
        if kept:
            rolled_back(confirming)
        else:
            assert after == (number + 1, state._replace(deny={"ansible": text}))
            assert confirming.host.confirm(change.token).change
        assert not filtered.host.apply().changed
        assert filtered.verdict(DENIED) == XDP_DROP
        assert confirming.host.pending() is None
    assert seen == {True, False}


@pytest.mark.slow(49)
def test_interleaved_runs(filtered: Site, confirming: Timers) -> None:
    """Change, die at any moment, confirm or revert, repeat: the old lists or the new ones are active."""
    texts = (DENIED, f"{DENIED}\n{MANY}", f"{DENIED}\n{UNLISTED}")
    deny_now(filtered, texts[1])
    started = time.monotonic()
    confirming.host.confirm(deny(confirming, texts[2]).token)
    duration = time.monotonic() - started
    for number in range(RUNS):
        text = texts[number % 3]
        former = filtered.host.store.read_current()[1].deny["ansible"]

        def change(text: str = text) -> None:
            change = confirming.host.apply(set_lists("ansible", {"deny": text}, True), terms=MINUTE)
            if change.pending:
                confirming.host.confirm(change.pending.token)

        killed_after(random.uniform(0, duration * 1.3), change)
        assert filtered.verdict(DENIED) == XDP_DROP
        act = random.choice((confirming.host.roll_back, confirming.host.confirm))
        with contextlib.suppress(PacketwatchError):
            act()
        settle(confirming)
        assert filtered.host.store.read_current()[1].deny["ansible"] in (former, text)
        assert not filtered.host.apply().changed
        denies = filtered.host.store.read_current()[1].deny["ansible"]
        assert filtered.verdict(UNLISTED) == (XDP_DROP if UNLISTED in denies else XDP_PASS)


def settle(timers: Timers) -> None:
    """Let the next writer clear what is left; a timer without a record stops by itself."""
    timers.host.apply()
    timers.timer.unlink(missing_ok=True)
    store = timers.host.store
    with store.lock(1):
        store.prune()


def deny_now(site: Site, text: str) -> None:
    site.host.apply(set_lists("ansible", {"deny": text}, True))
    assert site.host.pending() is None
