# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits the alerts that a flood of forged sources causes, where no table of bans limits them.

The program writes up to 10,000 events a second. So many connections are still a log; so many alerts
are useless.
"""

from __future__ import annotations

import typing as t

from .metrics import COUNTER, Rows, Values, by_label
from .part import Part

INTERVAL = 10_000_000
BURST = 1_000
_AHEAD = INTERVAL * BURST


class Quota(Part):
    """A hundred lines a second of each kind, and a thousand at once; counts the suppressed ones."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_agent_suppressed_total": (
            COUNTER,
            "Events that the agent did not log because there were too many of their kind.",
        ),
    }

    def __init__(self) -> None:
        self.suppressed = {"ban": 0, "scan": 0, "would_drop": 0}
        # Theoretical arrival time of the next line of a kind (GCRA, as in the program).
        self._due = dict.fromkeys(self.suppressed, 0)

    def values(self) -> Values:
        return {"packetwatch_agent_suppressed_total": by_label("kind", self.suppressed)}

    def allows(self, kind: str, now: int) -> bool:
        """Whether one more line of a kind may be written; `now` in ns of the events' clock."""
        due = max(self._due[kind], now) + INTERVAL
        if due - now > _AHEAD:
            self.suppressed[kind] += 1
            return False
        self._due[kind] = due
        return True
