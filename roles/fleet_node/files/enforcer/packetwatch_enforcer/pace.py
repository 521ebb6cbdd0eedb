# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How often pages are written: at once after quiet, then at most ten times a second, and less while the store is behind."""

from __future__ import annotations

import math

FASTEST, SLOWEST = 0.1, 1.6


class Pace:
    """Times are monotonic."""

    def __init__(self) -> None:
        self.interval = FASTEST
        self._free_at = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until pages may be written."""
        return max(0.0, self._free_at - now)

    def wrote(self, now: float, pages: int) -> None:
        """Pages were written, each of which counts."""
        self.interval = max(FASTEST, self.interval / 2)
        self._free_at = now + self.interval * max(1, pages)

    def is_behind(self, now: float) -> None:
        """The store does not have the former pages yet."""
        self.interval = min(SLOWEST, self.interval * 2)
        self._free_at = now + self.interval
