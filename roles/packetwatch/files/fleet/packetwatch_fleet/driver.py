# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts a `Stepping` into a loop: `step` is called when its descriptor is readable, or when its time has come."""

from __future__ import annotations

import math
import time
import typing as t

from packetwatch_agent.loop import Loop

from .store.interface import Stepping


class Driver:
    """run: calls the `step` of the other one, and does what follows from it.

    pause: seconds after a step in which the descriptor is not watched. What becomes readable meanwhile is read at once then,
    which costs much less than a wake-up for each of many small pieces.
    """

    def __init__(
        self, loop: Loop, stepping: Stepping, run: t.Callable[[], None], pause: float = 0.0
    ) -> None:
        self._loop = loop
        self._pause = pause
        self._is_watched = True
        self._stepping = stepping
        self._run = run
        self._due = math.inf
        """When the timer that counts is due; timers before it are outdated, and do nothing."""
        loop.watch(stepping, self._read)
        self.arm()

    def arm(self) -> None:
        """Take note of a new deadline. Needed if something else than `step` has changed it."""
        due = self._stepping.deadline()
        if due < self._due:
            self._due = max(due, 0.0)
            self._loop.after(max(0.0, due - time.monotonic()), self._timer(self._due))

    def close(self) -> None:
        if self._is_watched:
            self._loop.unwatch(self._stepping)
        self._stepping.close()
        self._due = -math.inf

    def _read(self) -> None:
        self._step()
        if self._pause:
            self._is_watched = False
            self._loop.unwatch(self._stepping)
            self._loop.after(self._pause, self._resume)

    def _resume(self) -> None:
        # Not after `close`.
        if self._due > -math.inf:
            self._is_watched = True
            self._loop.watch(self._stepping, self._read)

    def _timer(self, due: float) -> t.Callable[[], None]:
        def fire() -> None:
            if due == self._due:
                self._due = math.inf
                self._step()

        return fire

    def _step(self) -> None:
        self._run()
        self.arm()
