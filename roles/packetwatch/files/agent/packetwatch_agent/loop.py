# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One thread, one selector: descriptors, timers, signals, and optionally a ring with a poll and back-off.

The agent polls the ring because a wake-up would cost the packet that causes it 10 µs. While events
come, it polls every 5 ms; while none come, the pause doubles up to 80 ms, or 40 ms if another host waits for them.

The ring comes before everything else. In each turn, the loop first empties it. Then the agent's own work
and the descriptors of its clients alternate until `BUDGET` is spent; what is left waits for the next turn.
No callback is interrupted, so work that may take long is done in `Steps`.
"""

from __future__ import annotations

import collections
import functools
import heapq
import itertools
import selectors
import signal
import socket
import time
import typing as t

from packetwatch_core._base import steps

MIN_PAUSE = 0.005
MAX_PAUSE = 0.08
# On a host in a fleet: what it sees, other hosts should know soon.
FLEET_PAUSE = 0.04

# Seconds of a turn for everything but the ring.
BUDGET = 0.005
# Batches of a turn: a full ring has fewer, and an endless stream must not keep the loop from its timers.
MAX_BATCHES = 16

# Results of a poll: no events, some events, or a full batch, after which there may be more.
IDLE, BUSY, MORE = range(3)

Steps = steps.Steps[float | None]
"""Work in steps; it returns what a `Timer` returns."""
Timer = t.Callable[[], float | Steps | None]


class HasFileno(t.Protocol):
    """A socket, or anything else with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


class Loop:
    """Runs until `stop`. An exception of a callback ends the process.

    poll: called after each wake-up, and at the latest after the pause. Without it the loop sleeps
    until a descriptor, a timer or a signal wakes it. max_pause: in seconds, while no events come.
    """

    def __init__(
        self, poll: t.Callable[[], int] | None = None, max_pause: float = MAX_PAUSE
    ) -> None:
        self._poll = poll
        self._max_pause = max_pause
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._pause = MIN_PAUSE
        self._running = True
        self._steps: collections.deque[t.Callable[[], None]] = collections.deque()
        self._callbacks: collections.deque[t.Callable[[], None]] = collections.deque()
        self._queues = [self._steps, self._callbacks]
        """The queue whose turn it is, and the other one."""
        self._ready: set[int] = set()
        """Descriptors with a callback that waits for its turn."""
        self._handlers: dict[int, t.Callable[[], None]] = {}
        self._signals, self._wakeup = socket.socketpair()

    def watch(self, source: HasFileno, callback: t.Callable[[], None], write: bool = False) -> None:
        """Call back when `source` is readable, or writable."""
        events = selectors.EVENT_WRITE if write else selectors.EVENT_READ
        if source in self._selector.get_map():
            self._selector.modify(source, events, callback)
        else:
            self._selector.register(source, events, callback)

    def unwatch(self, source: HasFileno) -> None:
        # Another source may get the same descriptor before the callback has its turn.
        self._ready.discard(self._selector.unregister(source).fd)

    def after(self, delay: float, callback: Timer) -> None:
        """Call back in `delay` seconds, and again after the seconds that it returns; None: not again.

        It may return `Steps`: then the loop takes them one by one, and goes by what they return.
        """
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._order), callback))

    def on_signal(self, number: int, callback: t.Callable[[], None]) -> None:
        """Call back when the process gets the signal, but never inside another callback."""
        if not self._handlers:
            self._signals.setblocking(False)
            self._wakeup.setblocking(False)
            signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
            self.watch(self._signals, self._on_signals)
        self._handlers[number] = callback
        signal.signal(number, _ignore)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Serve everything until `stop` is called."""
        while self._running:
            for key, dummy in self._selector.select(self._timeout()):
                if key.fd not in self._ready:
                    self._ready.add(key.fd)
                    self._callbacks.append(functools.partial(self._call_back, key.fd))
            self._read_ring()
            self._take_turns()

    def close(self) -> None:
        if self._handlers:
            signal.set_wakeup_fd(-1)
        for number in self._handlers:
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        self._signals.close()
        self._wakeup.close()

    def _read_ring(self) -> None:
        if self._poll is None:
            return
        for dummy in range(MAX_BATCHES):
            state = self._poll()
            self._set_pause(state)
            if state != MORE:
                break

    def _set_pause(self, state: int) -> None:
        if state == IDLE:
            self._pause = min(max(self._pause * 2, MIN_PAUSE), self._max_pause)
        else:
            self._pause = 0.0 if state == MORE else MIN_PAUSE

    def _timeout(self) -> float | None:
        """Seconds until something is due; None: only a descriptor can wake the loop."""
        if self._steps or self._callbacks:
            return 0.0
        pauses = [self._pause] if self._poll else []
        if self._timers:
            pauses.append(self._timers[0][0] - time.monotonic())
        return max(min(pauses), 0.0) if pauses else None

    def _take_turns(self) -> None:
        """Do one thing after the other while the budget lasts. A timer that is due comes first."""
        now = time.monotonic()
        end = now + BUDGET
        while self._running and now < end:
            if self._timers and self._timers[0][0] <= now:
                self._run_timer(heapq.heappop(self._timers)[2])
            elif queue := self._queues[0] or self._queues[1]:
                # However many clients there are, every other turn is the agent's own.
                self._queues.reverse()
                queue.popleft()()
            else:
                break
            now = time.monotonic()

    def _run_timer(self, callback: Timer) -> None:
        done = callback()
        if isinstance(done, t.Generator):
            self._steps.append(functools.partial(self._step, done, callback))
        elif done is not None:
            self.after(done, callback)

    def _step(self, work: Steps, callback: Timer) -> None:
        """Take one step; the next one waits for its turn."""
        try:
            next(work)
        except StopIteration as end:
            if end.value is not None:
                self.after(end.value, callback)
        else:
            self._steps.append(functools.partial(self._step, work, callback))

    def _call_back(self, fd: int) -> None:
        """Call back for a descriptor, unless it is not watched any more."""
        if fd in self._ready:
            self._ready.discard(fd)
            self._selector.get_map()[fd].data()

    def _on_signals(self) -> None:
        for number in self._signals.recv(64):
            callback = self._handlers.get(number)
            if callback:
                callback()


def _ignore(number: int, frame: object) -> None:
    """Do nothing: the loop reads the signal's number from the wake-up descriptor."""
