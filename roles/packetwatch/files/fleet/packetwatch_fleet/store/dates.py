# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store's time, from the date of each answer, which has whole seconds.

Each answer bounds the difference to the monotonic clock: the server wrote the date between the request and the end of
the answer. A few answers together bound it better than one.
"""

from __future__ import annotations

import collections

_KEPT = 8


class Clock:
    """The difference between a store's time and the monotonic clock."""

    def __init__(self) -> None:
        self._bounds: collections.deque[tuple[float, float]] = collections.deque(maxlen=_KEPT)

    def note(self, date: int, sent: float, received: float) -> None:
        """Take the date of an answer; times are monotonic."""
        bound = date - received, date + 1 - sent
        if self._bounds:
            low, high = self._common()
            # Another node's clock, or a clock that was set: what was known does not hold any more.
            if bound[0] > high or bound[1] < low:
                self._bounds.clear()
        self._bounds.append(bound)

    def offset(self) -> float | None:
        """What to add to the monotonic time; None: no answer has come yet."""
        if not self._bounds:
            return None
        low, high = self._common()
        return (low + high) / 2

    def _common(self) -> tuple[float, float]:
        lows, highs = zip(*self._bounds)
        return max(lows), min(highs)
