# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drift: what is no more as it was confirmed. The agent sees it, tells it, and asks root to mend it.

It asks by a file that a path unit waits for; what is done about it, root decides by looking itself.
"""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.errors import PacketwatchError

from .loop import Loop
from .metrics import Values
from .outlook import Outlook
from .output import ECS_VERSION, Output, Trouble, Value, encode, timestamp
from .request import ask
from .settings import Settings

PERIOD = 5.0
# Seconds between two requests; doubled each time, as long as they are for the same.
_FIRST, _LONGEST = 30.0, 600.0
# An agent that was started anew by a repair tells that too.
_RECENT = 60.0
_SECOND = 1_000_000_000


class Drift:
    """Outlives the agent's changes between waiting and serving, so that nothing is told twice."""

    def __init__(self, settings: Settings, output: Output) -> None:
        self._request = settings.heal_request if settings.self_heal else ""
        self._output = output
        self._outlook: Outlook | None = None
        self._look: t.Callable[[], list[str]] = list
        self._seen: list[str] = []
        self._told: list[str] = []
        self._asked = 0.0
        self._pause = _FIRST
        self._repaired = time.time() - _RECENT
        self._failed: list[str] = []
        self._trouble = Trouble(output)

    def watch(self, loop: Loop, outlook: Outlook, look: t.Callable[[], list[str]]) -> None:
        """From now on in this loop; look: what has drifted, in words."""
        self._outlook, self._look = outlook, look
        loop.after(PERIOD, self.tick)

    def values(self) -> Values:
        return {"packetwatch_drift": [({}, len(self._seen))]}

    def tick(self) -> float:
        """Look; what is there twice in a row is no change that is just being made."""
        former = self._seen
        try:
            self._seen = self._look()
        except (PacketwatchError, OSError) as error:
            self._trouble.tell(f"what has drifted cannot be seen: {error}")
            return PERIOD
        if not self._seen:
            self._told, self._asked, self._pause = [], 0.0, _FIRST
        elif self._seen == former:
            self._tell_drift()
            self._ask()
        self._tell_repair()
        return PERIOD

    def _ask(self) -> None:
        now = time.monotonic()
        if not self._request or (self._asked and now < self._asked + self._pause):
            return
        try:
            ask(self._request)
        except OSError as error:
            self._trouble.tell(f"root cannot be asked to mend what has drifted: {error}")
        self._pause = min(2 * self._pause, _LONGEST) if self._asked else _FIRST
        self._asked = now

    def _tell_drift(self) -> None:
        if self._seen != self._told:
            self._told, self._pause = self._seen, _FIRST
            then = "root is asked to mend it" if self._request else "self-healing is off"
            message = f"not as confirmed: {'; '.join(self._seen)}; {then}"
            self._write("drift", time.time(), self._seen, message)

    def _tell_repair(self) -> None:
        """What root has noted since; a failure that comes again once."""
        repair = self._outlook.repair() if self._outlook else {}
        moment, found, left = (repair.get(key) for key in ("time", "found", "left"))
        if not isinstance(moment, float) or moment <= self._repaired:
            return
        self._repaired = moment
        found, left = list(found or ()), list(left or ())
        if left and left == self._failed:
            return
        self._failed = left
        outcome = "failure" if left else "success"
        message = f"not mended: {'; '.join(left)}" if left else f"mended: {'; '.join(found)}"
        self._write("repair", moment, left or found, message, **{"event.outcome": outcome})

    def _write(
        self, action: str, moment: float, problems: list[str], message: str, **fields: Value
    ) -> None:
        line: dict[str, Value] = {
            "@timestamp": timestamp(int(moment * _SECOND)),
            "ecs.version": ECS_VERSION,
            "event.action": action,
            "event.kind": "alert",
            "event.category": ["configuration"],
            "event.type": ["change"],
            "host.name": self._output.host,
            "packetwatch.problems": problems,
            "message": message,
        }
        self._output.write([encode(line | fields)])
