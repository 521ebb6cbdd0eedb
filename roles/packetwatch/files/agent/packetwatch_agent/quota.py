# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many lines a flood of forged sources may cause, where no table of bans bounds them.

The program tells 10,000 events a second. Connections that fast are a log; alerts that fast are none.
"""

from __future__ import annotations

INTERVAL = 10_000_000
BURST = 1_000
_AHEAD = INTERVAL * BURST


class Quota:
    """A hundred lines a second of each kind, and a thousand at once; counts the others."""

    def __init__(self) -> None:
        self.suppressed = {"ban": 0, "scan": 0, "would_drop": 0}
        # When the next line of a kind would be due at the exact rate (GCRA, as in the program).
        self._due = dict.fromkeys(self.suppressed, 0)

    def allows(self, kind: str, now: int) -> bool:
        """Whether one more line of a kind may be written; `now` in ns of the events' clock."""
        due = max(self._due[kind], now) + INTERVAL
        if due - now > _AHEAD:
            self.suppressed[kind] += 1
            return False
        self._due[kind] = due
        return True
