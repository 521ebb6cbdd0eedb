# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's loop: timers, back-off, signals, and notifications to systemd."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from packetwatch_agent.loop import (
    BUDGET,
    BUSY,
    FLEET_PAUSE,
    IDLE,
    MAX_BATCHES,
    MAX_PAUSE,
    MIN_PAUSE,
    MORE,
    Loop,
    Steps,
)
from packetwatch_agent.sdnotify import Notifier


def test_timers_run_in_order_and_again() -> None:
    seen: list[str] = []
    loop = Loop(lambda: IDLE)

    def again() -> float | None:
        seen.append("again")
        return 0.01 if len(seen) < 5 else None

    loop.after(0.03, lambda: seen.append("once"))
    loop.after(0.0, again)
    loop.after(0.2, loop.stop)
    loop.run()
    loop.close()
    assert seen.count("once") == 1
    assert 3 <= seen.count("again") <= 4


@pytest.mark.parametrize("longest", [MAX_PAUSE, FLEET_PAUSE])
def test_pause_doubles_while_nothing_comes_and_is_short_again_after(longest: float) -> None:
    pauses: list[float] = []
    states = [IDLE] * 6 + [BUSY, IDLE, MORE, IDLE]

    def poll() -> int:
        pauses.append(loop._pause)
        if len(pauses) == len(states):
            loop.stop()
        return states[len(pauses) - 1]

    loop = Loop(poll, longest)
    loop.run()
    loop.close()
    assert pauses[:6] == [min(MIN_PAUSE * factor, longest) for factor in (1, 2, 4, 8, 16, 16)]
    assert pauses[5] == longest
    assert pauses[7] == MIN_PAUSE
    assert pauses[9] == 0.0
    assert loop._pause == MIN_PAUSE


def test_without_a_poll_the_loop_sleeps_until_something_is_due() -> None:
    loop = Loop()
    turns: list[float | None] = []
    timeout = loop._timeout
    loop._timeout = lambda: turns.append(timeout()) or turns[-1]  # type: ignore
    assert timeout() is None
    loop.after(0.3, loop.stop)
    loop.run()
    loop.close()
    # A selector may wake a moment before the timer.
    assert 1 <= len(turns) <= 3
    assert turns[0] is not None and 0.2 < turns[0] <= 0.3


def test_a_readable_socket_is_served_at_once() -> None:
    ours, theirs = socket.socketpair()
    loop = Loop(lambda: IDLE)

    def serve() -> None:
        ours.recv(1)
        loop.stop()

    loop.watch(ours, serve)
    theirs.send(b"x")
    started = time.monotonic()
    loop.run()
    assert time.monotonic() - started < 0.5
    loop.unwatch(ours)
    loop.close()
    ours.close()
    theirs.close()


class Crowd:
    """Sockets that are always readable, and whose callbacks take a while."""

    def __init__(self, loop: Loop, count: int, seconds: float) -> None:
        self.served = [0] * count
        self._pairs = [socket.socketpair() for dummy in range(count)]
        for number, (ours, theirs) in enumerate(self._pairs):
            theirs.send(b"x")
            loop.watch(ours, functools.partial(self._serve, number, seconds))

    def _serve(self, number: int, seconds: float) -> None:
        self.served[number] += 1
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    def close(self) -> None:
        for pair in self._pairs:
            for one in pair:
                one.close()


def test_the_ring_is_read_however_many_clients_there_are() -> None:
    polls: list[float] = []

    def poll() -> int:
        polls.append(time.thread_time())
        return IDLE

    loop = Loop(poll)
    crowd = Crowd(loop, 40, 0.001)
    loop.after(1.0, loop.stop)
    loop.run()
    loop.close()
    crowd.close()
    pauses = [later - sooner for sooner, later in itertools.pairwise(polls)]
    # A turn ends with the callback that exceeds the budget. A busy machine may add something.
    assert max(pauses) < BUDGET + 0.001 + 0.01
    assert min(crowd.served) > 0
    # The kernel names those that are ready in any order, so some are a few turns ahead of others.
    assert max(crowd.served) <= 1.5 * min(crowd.served)


def test_a_full_ring_is_emptied_before_anything_else() -> None:
    seen: list[str] = []
    states = [MORE] * (MAX_BATCHES - 1) + [BUSY]

    def poll() -> int:
        seen.append("ring")
        return states.pop(0) if states else IDLE

    loop = Loop(poll)
    crowd = Crowd(loop, 1, 0.0)
    loop.after(0.0, lambda: seen.append("timer"))
    loop.after(0.05, loop.stop)
    loop.run()
    loop.close()
    crowd.close()
    assert seen.index("timer") == MAX_BATCHES


def test_an_endless_ring_leaves_time_for_timers() -> None:
    loop = Loop(lambda: MORE)
    loop.after(0.05, loop.stop)
    loop.run()
    loop.close()


def test_work_in_steps_shares_the_time_with_clients() -> None:
    loop = Loop(lambda: IDLE)
    crowd = Crowd(loop, 40, 0.001)
    at_steps: list[int] = []

    def work() -> Steps:
        for dummy in range(50):
            at_steps.append(sum(crowd.served))
            yield
        loop.stop()
        return None

    loop.after(0, work)
    loop.run()
    loop.close()
    crowd.close()
    # Every other turn is a step, although 40 clients are ready all the time.
    assert all(later - sooner <= 1 for sooner, later in itertools.pairwise(at_steps))


def test_steps_begin_again_after_the_seconds_that_they_return() -> None:
    loop = Loop()
    began: list[float] = []

    def work() -> Steps:
        began.append(time.monotonic())
        if len(began) == 3:
            loop.stop()
        yield
        return 0.05

    loop.after(0, work)
    loop.run()
    loop.close()
    assert all(later - sooner >= 0.05 for sooner, later in itertools.pairwise(began))


def test_a_descriptor_that_is_used_again_gets_no_callback_of_its_predecessor() -> None:
    loop = Loop()
    seen: list[str] = []
    ours, theirs = socket.socketpair()
    others = socket.socketpair()

    def replace() -> None:
        seen.append("first")
        loop.unwatch(ours)
        number = ours.fileno()
        ours.close()
        os.dup2(others[0].fileno(), number)
        found = socket.socket(fileno=number)
        loop.watch(found, lambda: seen.append("wrong"))
        loop.after(0.05, loop.stop)

    first = socket.socketpair()
    first[1].send(b"x")
    theirs.send(b"x")
    loop.watch(first[0], lambda: (replace(), loop.unwatch(first[0])))  # type: ignore
    loop.watch(ours, lambda: seen.append("old"))
    loop.run()
    assert seen in (["first"], ["old", "first"])
    loop.close()


def test_signal_ends_the_loop() -> None:
    former = signal.getsignal(signal.SIGUSR1)
    loop = Loop(lambda: IDLE)
    loop.on_signal(signal.SIGUSR1, loop.stop)
    loop.after(0.02, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    started = time.monotonic()
    loop.run()
    loop.close()
    signal.signal(signal.SIGUSR1, former)
    assert time.monotonic() - started < 1


def test_notifier_sends_to_the_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "10000000"})
        assert notifier.interval == 5.0
        notifier.send("READY=1", "STATUS=here")
        assert server.recv(100) == b"READY=1\nSTATUS=here"


def test_notifier_without_systemd_is_silent() -> None:
    notifier = Notifier({})
    assert notifier.interval == 0.0
    notifier.send("READY=1")
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).send("READY=1")


def test_watchdog_of_another_process_or_without_sense() -> None:
    assert Notifier({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}).interval == 0.0
    assert Notifier({"WATCHDOG_USEC": "soon"}).interval == 0.0
