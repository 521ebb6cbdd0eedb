# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes to the store: pages of decisions, what the rules count, and that the store may forget its history."""

from __future__ import annotations

import json
import time
import typing as t

from packetwatch_agent import __version__
from packetwatch_agent.loop import Loop
from packetwatch_agent.metrics import COUNTER, GAUGE, Rows, Values
from packetwatch_agent.output import Output, Trouble
from packetwatch_agent.part import Part
from packetwatch_core._node.keys import RULES
from packetwatch_fleet.driver import Driver
from packetwatch_fleet.pages import VERSION
from packetwatch_fleet.store.interface import Store

from .judge import Judge
from .pace import Pace
from .rules.panel import Panel
from .watcher import Watcher

# Seconds between two reports of the rules: while nothing happens, and after decisions.
QUIET, BUSY = 30.0, 5.0
# The first decision after quiet is explained this soon.
_SOON = 0.5
COMPACTION = 30.0
_RETRY = 1.0
# Pages of one commit: each costs its time.
_PAGES = 4


class Scribe(Part):
    """Has the store's writers."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_enforcer_pages_total": (COUNTER, "Pages handed to the store."),
        "packetwatch_enforcer_rows": (GAUGE, "Own rows in the store that have not ended."),
        "packetwatch_enforcer_rows_waiting": (GAUGE, "Rows that the store does not have yet."),
        "packetwatch_enforcer_commit_interval_seconds": (
            GAUGE,
            "Seconds between two commits: more than 0.1 if the store is behind.",
        ),
    }

    def __init__(
        self, store: Store, name: str, judge: Judge, panel: Panel, watcher: Watcher, output: Output
    ) -> None:
        self._name = name
        self._judge = judge
        self._panel = panel
        self._watcher = watcher
        self._pages = store.writer()
        # Reports and compaction must not keep decisions waiting.
        self._reports = store.writer()
        self._drivers: list[Driver] = []
        self._loop: Loop | None = None
        self._pace = Pace()
        self._is_due = False
        self._report_at = 0.0
        self._timer = 0.0
        self._reported = -QUIET
        self._started = 0.0
        self._former_revision = 0
        self._written = 0
        self._trouble = Trouble(output)
        self._other = Trouble(output)
        watcher.decided = self.wake

    def start(self, loop: Loop) -> None:
        self._loop = loop
        self._drivers = [
            Driver(loop, self._pages, self._write),
            Driver(loop, self._reports, self._report_written),
        ]
        loop.after(_RETRY, self._report_regularly)
        loop.after(COMPACTION, self._compact)

    def stop(self) -> None:
        for driver in self._drivers:
            driver.close()

    def wake(self) -> None:
        """There are new decisions: write them as soon as the pace lets it, and explain them soon."""
        if self._loop is None:
            return
        if self._judge.ledger.pending and not self._is_due:
            self._is_due = True
            self._loop.after(self._pace.wait(time.monotonic()), self._commit)
        now = time.monotonic()
        due = max(now + _SOON, self._reported + BUSY)
        if due < self._report_at or self._report_at <= now:
            self._report_at = due
            self._loop.after(due - now, self._report_once)

    def values(self) -> Values:
        return {
            "packetwatch_enforcer_pages_total": [({}, self._written)],
            "packetwatch_enforcer_rows": [({}, self._judge.entries)],
            "packetwatch_enforcer_rows_waiting": [({}, len(self._judge.ledger.pending))],
            "packetwatch_enforcer_commit_interval_seconds": [({}, self._pace.interval)],
        }

    # Pages

    def _commit(self) -> float | None:
        now, then = time.monotonic(), self._watcher.now()
        if then is None:
            return _RETRY
        if self._pages.waiting:
            self._pace.is_behind(now)
            return self._pace.wait(now)
        pages = self._judge.commit(then, _PAGES)
        for page in pages:
            self._pages.put(page.key, page.value, ends=page.ends)
        self._written += len(pages)
        self._drivers[0].arm()
        self._pace.wrote(now, len(pages))
        if self._judge.ledger.pending:
            return self._pace.wait(now)
        self._is_due = False
        return None

    def _write(self) -> None:
        self._pages.step()
        self._trouble.log(_problem("decisions do not reach the store", self._pages.problem))

    # Reports

    def _report_regularly(self) -> float:
        left = self._reported + QUIET - time.monotonic()
        if left > 0:
            return left
        return QUIET if self._report() else _RETRY

    def _report_once(self) -> None:
        self._report_at = 0.0
        self._report()

    def _report(self) -> bool:
        then = self._watcher.now()
        if then is None:
            return False
        self._reported = time.monotonic()
        self._started = self._started or then
        self._reports.put(f"{RULES}{self._name}", self._value(then))
        self._drivers[1].arm()
        return True

    def _value(self, now: float) -> bytes:
        judge, watcher = self._judge, self._watcher
        rules = {
            seat.name: {
                "action": seat.action,
                "thresholds": seat.thresholds,
                "values": seat.values(),
                "decided": judge.decided[seat.name],
                "fault": seat.fault,
            }
            for seat in self._panel.seats
        }
        found = {
            "v": VERSION,
            "t": round(now, 1),
            "version": __version__,
            "started": round(self._started, 1),
            "batch": watcher.batch,
            "rules": rules,
            "refused": {"never": 0} | judge.refused,
            "lost": watcher.lost,
            "blind": watcher.is_blind,
            "recent": list(judge.recent),
        }
        return json.dumps(found, separators=(",", ":")).encode()

    def _compact(self) -> float:
        """Forget what was overwritten before the last time: a follower that is later than that lists anew."""
        # A store that was wiped or restored begins with lower revisions.
        if 0 < self._former_revision < self._watcher.revision:
            self._reports.compact(self._former_revision)
            self._drivers[1].arm()
        self._former_revision = self._watcher.revision
        return COMPACTION

    def _report_written(self) -> None:
        self._reports.step()
        self._other.log(_problem("reports do not reach the store", self._reports.problem))


def _problem(what: str, why: str) -> str:
    return f"{what}: {why}" if why else ""
