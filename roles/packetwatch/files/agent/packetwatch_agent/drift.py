# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drift: the kernel differs from confirmed state. The agent detects it, logs it and asks root to repair it.

It asks by creating a file that a path unit waits for. Root checks for itself what to repair.
"""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.errors import PacketwatchError

from .loop import Loop
from .metrics import GAUGE, Rows, Values
from .outlook import Outlook
from .output import ECS_VERSION, Output, Trouble, Value, encode, timestamp
from .part import Part
from .request import ask
from .settings import Settings

PERIOD = 5.0
# Seconds between two requests; doubled each time while the drift stays the same.
_MIN_PAUSE, _MAX_PAUSE = 30.0, 600.0
# Seconds before the agent's start: if a repair restarted the agent, it still logs that repair.
_RECENT = 60.0
_SECOND = 1_000_000_000
# The end of the year 9999, which is as far as dates go.
_MAX_MOMENT = 253402300799


class Drift(Part):
    """Stays the same object while the agent waits or serves, so that nothing is logged twice."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_drift": (
            GAUGE,
            "Things that differ from confirmed state, as far as the agent sees.",
        ),
    }

    def __init__(self, settings: Settings, output: Output) -> None:
        self._request = settings.heal_request if settings.self_heal else ""
        self._output = output
        self._outlook: Outlook | None = None
        self._find: t.Callable[[], list[str]] = list
        self._seen: list[str] = []
        self._logged: list[str] = []
        self._asked = 0.0
        self._pause = _MIN_PAUSE
        self._repaired = time.time() - _RECENT
        self._failed: list[str] = []
        self._nexts: dict[str, str] = {}
        self._trouble = Trouble(output)

    def watch(self, loop: Loop, outlook: Outlook, find: t.Callable[[], list[str]]) -> None:
        """Check in this loop from now on. find: returns the present drift, in words."""
        self._outlook, self._find = outlook, find
        loop.after(PERIOD, self.tick)

    def values(self) -> Values:
        return {"packetwatch_drift": [({}, len(self._seen))]}

    def tick(self) -> float:
        """Check. Only what two checks in a row find counts as drift, because a change may be in progress."""
        former = self._seen
        try:
            self._seen = self._find()
        except (PacketwatchError, OSError) as error:
            self._trouble.log(f"cannot check for drift: {error}")
            return PERIOD
        if not self._seen:
            self._logged, self._asked, self._pause = [], 0.0, _MIN_PAUSE
        elif self._seen == former:
            self._log_drift()
            self._ask()
        self._log_repair()
        self._log_nexts()
        return PERIOD

    def _ask(self) -> None:
        now = time.monotonic()
        if not self._request or (self._asked and now < self._asked + self._pause):
            return
        try:
            ask(self._request)
        except OSError as error:
            self._trouble.log(f"cannot ask root to repair drift: {error}")
        self._pause = min(2 * self._pause, _MAX_PAUSE) if self._asked else _MIN_PAUSE
        self._asked = now

    def _log_drift(self) -> None:
        if self._seen != self._logged:
            self._logged, self._pause = self._seen, _MIN_PAUSE
            then = "root is asked to repair it" if self._request else "self-healing is off"
            message = f"not as confirmed: {'; '.join(self._seen)}; {then}"
            self._write("drift", time.time(), self._seen, message)

    def _log_repair(self) -> None:
        """Log what root has noted since the last call; a repeated failure only once."""
        repair = self._outlook.repair() if self._outlook else {}
        moment = repair.get("time")
        found, left = (_texts(repair.get(key)) for key in ("found", "left"))
        if not isinstance(moment, float) or not self._repaired < moment < _MAX_MOMENT:
            return
        self._repaired = moment
        if left and left == self._failed:
            return
        self._failed = left
        outcome = "failure" if left else "success"
        message = f"not repaired: {'; '.join(left)}" if left else f"repaired: {'; '.join(found)}"
        self._write("repair", moment, left or found, message, **{"event.outcome": outcome})

    def _log_nexts(self) -> None:
        """Log what root has noted of next programs that no repair brings back, and their return."""
        nexts = self._outlook.nexts() if self._outlook else {}
        for name, why in sorted(nexts.items()):
            if why != self._nexts.get(name, ""):
                text = f"not as declared: {why}" if why else "as declared again"
                fields = {
                    "event.outcome": "failure" if why else "success",
                    "observer.ingress.interface.name": name,
                }
                message = f"the next program of {name} is {text}"
                self._write("next_program", time.time(), [why] if why else [], message, **fields)
        self._nexts = nexts

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


def _texts(value: t.Any) -> list[str]:
    return list(map(str, value)) if isinstance(value, list) else []
