# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work in steps that wait for sockets: generators, driven by a loop or run to their end.

A generator yields a `Wait` and gets back whether its socket is ready; False: its time is up. So the same code serves
callers that must not block and callers that may.
"""

from __future__ import annotations

import math
import select
import socket
import time
import typing as t

_T = t.TypeVar("_T")
# Steps of one turn: a stream without end must not keep the loop from other work.
_MAX_STEPS = 32


class Wait(t.NamedTuple):
    """socket: None: only time passes. write: until it is writable, else readable. until: monotonic."""

    socket: socket.socket | None
    write: bool
    until: float
    read_too: bool = False
    """With `write`: readable is enough."""

    def events(self) -> int:
        """What to poll for: the bits of poll and of epoll are the same."""
        if not self.write:
            return select.EPOLLIN
        return select.EPOLLOUT | (select.EPOLLIN if self.read_too else 0)


Waiting = t.Generator[Wait, bool, _T]


class Task:
    """Drives a generator that never ends, in a loop. It begins with the first step."""

    def __init__(self, work: Waiting[t.NoReturn]) -> None:
        self._work = work
        self._epoll = select.epoll()
        self._watched: int | None = None
        self._woken = False
        self._has_begun = False
        self._wait = Wait(None, False, 0.0)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def deadline(self) -> float:
        return -math.inf if self._woken else self._wait.until

    def wake(self) -> None:
        """End the present wait as if its time were up."""
        self._woken = True

    def step(self) -> None:
        """Go on as far as possible without blocking."""
        for dummy in range(_MAX_STEPS):
            ready = bool(self._epoll.poll(0))
            if not (ready or self._woken or time.monotonic() >= self._wait.until):
                break
            self._woken = False
            self._forget()
            self._wait = self._work.send(ready) if self._has_begun else next(self._work)
            self._has_begun = True
            self._watch()

    def close(self) -> None:
        self._work.close()
        self._epoll.close()

    def _watch(self) -> None:
        if self._wait.socket is not None:
            self._watched = self._wait.socket.fileno()
            self._epoll.register(self._watched, self._wait.events())

    def _forget(self) -> None:
        if self._watched is not None:
            self._epoll.unregister(self._watched)
            self._watched = None


def finish(work: Waiting[_T]) -> _T:
    """Run work to its end, blocking, and return its result."""
    try:
        wait = next(work)
        while True:
            wait = work.send(_is_ready(wait))
    except StopIteration as end:
        result: _T = end.value
        return result


def _is_ready(wait: Wait) -> bool:
    seconds = max(0.0, wait.until - time.monotonic())
    if wait.socket is None:
        time.sleep(seconds)
        return False
    poll = select.poll()
    poll.register(wait.socket, wait.events())
    return bool(poll.poll(math.ceil(seconds * 1000)))
