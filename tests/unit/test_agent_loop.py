# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's loop: timers, back-off, signals, and notifications to systemd."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from packetwatch_agent.loop import BUSY, IDLE, MAX_PAUSE, MIN_PAUSE, MORE, Loop
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


def test_pause_doubles_while_nothing_comes_and_is_short_again_after() -> None:
    pauses: list[float] = []
    states = [IDLE] * 6 + [BUSY, IDLE, MORE, IDLE]

    def poll() -> int:
        pauses.append(loop._pause)
        if len(pauses) == len(states):
            loop.stop()
        return states[len(pauses) - 1]

    loop = Loop(poll)
    loop.run()
    loop.close()
    assert pauses[:6] == [MIN_PAUSE * factor for factor in (1, 2, 4, 8, 16, 16)]
    assert pauses[5] == MAX_PAUSE
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
