# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One thread, one selector: descriptors, timers, signals, and optionally a poll with back-off.

The agent polls the ring because a wake-up would cost the packet that causes it 10 µs. While events
come, it polls every 5 ms; while none come, the pause doubles up to 80 ms.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import signal
import socket
import time
import typing as t

MIN_PAUSE = 0.005
MAX_PAUSE = 0.08

# Results of a poll: no events, some events, or a full batch, after which there may be more.
IDLE, BUSY, MORE = range(3)

Timer = t.Callable[[], float | None]


class HasFileno(t.Protocol):
    """A socket, or anything else with a descriptor."""

    def fileno(self) -> int: ...


class Loop:
    """Runs until `stop`. An exception of a callback ends the process.

    poll: called after each wake-up, and at the latest after the pause. Without it the loop sleeps
    until a descriptor, a timer or a signal wakes it.
    """

    def __init__(self, poll: t.Callable[[], int] | None = None) -> None:
        self._poll = poll
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._pause = MIN_PAUSE
        self._running = True
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
        self._selector.unregister(source)

    def after(self, delay: float, callback: Timer) -> None:
        """Call back in `delay` seconds, and again after the seconds that it returns; None: not again."""
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
                key.data()
            self._run_timers()
            if self._poll:
                self._set_pause(self._poll())

    def close(self) -> None:
        if self._handlers:
            signal.set_wakeup_fd(-1)
        for number in self._handlers:
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        self._signals.close()
        self._wakeup.close()

    def _set_pause(self, state: int) -> None:
        if state == IDLE:
            self._pause = min(max(self._pause * 2, MIN_PAUSE), MAX_PAUSE)
        else:
            self._pause = 0.0 if state == MORE else MIN_PAUSE

    def _timeout(self) -> float | None:
        """Seconds until something is due; None: only a descriptor can wake the loop."""
        pauses = [self._pause] if self._poll else []
        if self._timers:
            pauses.append(self._timers[0][0] - time.monotonic())
        return max(min(pauses), 0.0) if pauses else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            dummy, dummy, callback = heapq.heappop(self._timers)
            delay = callback()
            if delay is not None:
                self.after(delay, callback)

    def _on_signals(self) -> None:
        for number in self._signals.recv(64):
            callback = self._handlers.get(number)
            if callback:
                callback()


def _ignore(number: int, frame: object) -> None:
    """Do nothing: the loop reads the signal's number from the wake-up descriptor."""
