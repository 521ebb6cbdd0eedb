# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hands bans and lifts to the agent, in batches, and compares the kernel with the fold again and again."""

from __future__ import annotations

import collections
import math
import time
import typing as t

from packetwatch_agent.loop import Loop
from packetwatch_agent.metrics import GAUGE, Rows, Values, by_label
from packetwatch_agent.output import Output, Trouble
from packetwatch_agent.part import Part
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.number import MAX_TIME, is_a, is_number

from ..driver import Driver
from ..fold import Ban
from ..pages import EVIDENCE, Row
from ..sources import Sources
from ..store.backoff import Backoff
from ..store.waits import Task, Wait, Waiting
from .picture import Picture
from .talk import AgentLost, Talk

# Rows of a request. The agent takes 500, and no more than 64 KiB.
BATCH = 400
# Seconds between two comparisons, and until one that is due early because the agent had no room.
PERIOD, SOON = 60.0, 2.0
_RETRY = 1.0
# The kernel's end may differ by this much: the store's clock is known to a second.
_SLACK = 2.0


class Applier(Part):
    """Follows `Picture.touch`."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_fleet_bans_in_kernel": (
            GAUGE,
            "Bans of the fleet in the kernel, when the agent was last asked.",
        ),
        "packetwatch_fleet_bans_missing": (
            GAUGE,
            "Declared bans that were not in the kernel, when the agent was last asked.",
        ),
        "packetwatch_fleet_bans_refused": (
            GAUGE,
            "Declared bans that the agent refuses, by reason, since it was last asked for all.",
        ),
        "packetwatch_fleet_agent_connected": (GAUGE, "Whether the agent takes bans."),
    }

    def __init__(self, path: str, picture: Picture, sources: Sources, output: Output) -> None:
        self.problem = ""
        self.in_kernel = self.missing = 0
        self.refused: collections.Counter[str] = collections.Counter()
        self._path = path
        self._picture = picture
        self._sources = sources
        self._output = output
        self._pending: dict[str, None] = {}
        self._compare_at = 0.0
        self._pause = SOON
        self._trouble = Trouble(output)
        self._backoff = Backoff()
        self._task = Task(self._run())
        self._driver: Driver | None = None
        picture.touch = self.touch
        picture.relisted = self._after_listing

    def start(self, loop: Loop) -> None:
        self._driver = Driver(loop, self._task, self._task.step)

    def stop(self) -> None:
        if self._driver:
            self._driver.close()

    def touch(self, sources: t.Iterable[str]) -> None:
        """Hand these over: as a ban, or as a lift if they are not banned."""
        self._pending |= dict.fromkeys(sources)
        if self._pending:
            self._wake()

    def compare_soon(self) -> None:
        """Compare everything with the kernel now."""
        self._compare_at = 0.0
        self._wake()

    def _wake(self) -> None:
        if self._driver:
            self._task.wake()
            self._driver.arm()

    def values(self) -> Values:
        return {
            "packetwatch_fleet_bans_in_kernel": [({}, self.in_kernel)],
            "packetwatch_fleet_bans_missing": [({}, self.missing)],
            "packetwatch_fleet_bans_refused": by_label("reason", self.refused),
            "packetwatch_fleet_agent_connected": [({}, int(not self.problem))],
        }

    def _after_listing(self) -> None:
        # The first listing is also the first time that the kernel's bans can be judged.
        if not self._compare_at:
            self.compare_soon()

    def _run(self) -> Waiting[t.NoReturn]:
        while True:
            if not self._has_work():
                due = self._compare_at if self._picture.is_listed else math.inf
                yield Wait(None, False, due)
                continue
            self._backoff.begin()
            try:
                talk = Talk(self._path)
                try:
                    yield from self._work(talk)
                finally:
                    talk.close()
                self.problem = ""
                self._trouble.log("")
                self._backoff.reset()
            except AgentLost as error:
                # The agent may begin with other bans than it had.
                self._compare_at = 0.0
                self.problem = str(error)
                self._trouble.log(f"bans of the fleet do not reach the kernel: {error}")
                yield Wait(None, False, time.monotonic() + self._backoff.pause())

    def _has_work(self) -> bool:
        return self._picture.is_listed and (
            bool(self._pending) or time.monotonic() >= self._compare_at
        )

    def _work(self, talk: Talk) -> Waiting[None]:
        while self._has_work():
            if time.monotonic() >= self._compare_at:
                yield from self._compare(talk)
            else:
                yield from self._apply(talk)

    # A batch

    def _apply(self, talk: Talk) -> Waiting[None]:
        batch = [source for source, dummy in zip(self._pending, range(BATCH))]
        now = self._picture.now()
        if now is None:
            raise AgentLost("the store's time is not known")
        found = {source: self._picture.ban(source) for source in batch}
        bans = [_row(source, ban, now) for source, ban in found.items() if ban]
        lifts = [source for source, ban in found.items() if not ban]
        for source in batch:
            del self._pending[source]
        if not self._pending:
            # A table from which all was deleted keeps the size that 10,000 bans needed.
            self._pending.clear()
        try:
            result = yield from talk.ask(_ignore, "fleet_apply", ban=bans, lift=lifts)
        except AgentLost:
            self._pending = dict.fromkeys(batch) | self._pending
            raise
        yield from self._judge(result, bans)

    def _judge(self, result: dict[str, t.Any], bans: list[list[t.Any]]) -> Waiting[None]:
        refused = result.get("refused")
        counts = {
            str(name): count
            for name, count in (refused if isinstance(refused, dict) else {}).items()
            if is_a(count, int) and count > 0
        }
        # These are the last ones of the request; they are due again in a second.
        late = min(counts.pop("rate", 0), len(bans))
        if late:
            self._pending = dict.fromkeys(row[0] for row in bans[-late:]) | self._pending
        self.refused.update(counts)
        if counts.get("quota"):
            self._compare_at = min(self._compare_at, time.monotonic() + self._pause)
            self._pause = min(self._pause * 2, PERIOD)
        if late:
            yield Wait(None, False, time.monotonic() + _RETRY)

    # The comparison

    def _compare(self, talk: Talk) -> Waiting[None]:
        """Ask for the fleet's bans in the kernel, and hand over the difference."""
        now = self._picture.now()
        if now is None:
            raise AgentLost("the store's time is not known")
        wanted = {source for source, dummy in self._picture.bans()}
        difference = _Difference(wanted, self._picture.ban, self._sources, now)
        result = yield from talk.ask(difference.take, "fleet_bans")
        difference.cap(result.get("longest"))
        missing = difference.missing
        self.in_kernel, self.missing = difference.count, len(missing)
        self._picture.distrust(difference.extra, difference.count)
        # Of the bans that nobody wants, the brake may have kept some.
        surplus = [source for source in difference.extra if not self._picture.ban(source)]
        changed = [*missing, *difference.other, *surplus]
        self.refused.clear()
        self._pending |= dict.fromkeys(changed)
        self._compare_at = time.monotonic() + PERIOD
        if not missing:
            self._pause = SOON


class _Difference:
    """Compares the bans in the kernel, one by one, with those that are wanted."""

    def __init__(
        self,
        wanted: set[str],
        ban_of: t.Callable[[str], Ban | None],
        sources: Sources,
        now: float,
    ) -> None:
        self.missing = wanted
        """Those that were not seen."""
        self.other: set[str] = set()
        """Those with another end or another evidence."""
        self.extra: dict[str, Row] = {}
        """Those that nobody wants any more."""
        self.count = 0
        self._ban_of = ban_of
        self._sources = sources
        self._now = now
        self._short: list[tuple[str, float, float]] = []

    def take(self, item: t.Any) -> None:
        """An item of fleet_bans: source, remaining seconds, evidence."""
        if not isinstance(item, list) or len(item) < 3 or not is_number(item[1], MAX_TIME):
            return
        try:
            source = self._sources.of(str(item[0]))
        except InvalidInput:
            return
        self.count += 1
        until, evidence = self._now + item[1], item[2]
        ban = self._ban_of(source)
        if ban is None:
            known = evidence if evidence in EVIDENCE else EVIDENCE[0]
            self.extra[source] = Row(until, 0.0, "unknown", known, 0)
            return
        self.missing.discard(source)
        if evidence != ban.evidence or until > ban.until + _SLACK:
            self.other.add(source)
        elif until < ban.until - _SLACK:
            self._short.append((source, until - self._now, ban.until - self._now))

    def cap(self, longest: t.Any) -> None:
        """Judge bans that are too short: the agent bounds them. longest: in seconds."""
        limit = float(longest) if is_number(longest, MAX_TIME) else math.inf
        for source, left, wanted in self._short:
            # A bounded ban is always shorter than wanted: prolong it now and then.
            slack = _SLACK if wanted < limit else limit / 10
            if left < min(wanted, limit) - slack:
                self.other.add(source)


def _row(source: str, ban: Ban, now: float) -> list[t.Any]:
    return [source, round(ban.until - now, 3), ban.label, ban.evidence]


def _ignore(dummy: t.Any) -> None:
    """Do nothing with an item where none is expected."""
