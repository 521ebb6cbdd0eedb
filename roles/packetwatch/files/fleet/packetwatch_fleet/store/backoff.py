# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pauses between attempts, with chance in them: all hosts lose a store at the same moment."""

from __future__ import annotations

import os
import time

_FIRST, _LONGEST = 0.5, 6.0
# An attempt that lasted so long was a success.
_STABLE = 10.0


def chance() -> float:
    """A random number from 0 to 1. The module random costs a third of a megabyte."""
    return int.from_bytes(os.urandom(4), "big") / 0xFFFFFFFF


class Backoff:
    """Longer and longer pauses, until an attempt lasts."""

    def __init__(self, longest: float = _LONGEST) -> None:
        self._longest = longest
        self._pause = _FIRST
        self._began = 0.0

    def begin(self) -> None:
        """An attempt begins."""
        self._began = time.monotonic()

    def reset(self) -> None:
        """An attempt was a success, however short it was."""
        self._pause = _FIRST

    def pause(self) -> float:
        """Seconds until the next attempt, after one that has ended."""
        if time.monotonic() - self._began > _STABLE:
            self._pause = _FIRST
        pause, self._pause = self._pause, min(self._pause * 2, self._longest)
        return pause / 2 * (1 + chance())
