# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs rules side by side. A rule that raises or is slow is switched off alone, until the process begins anew."""

from __future__ import annotations

import math
import time
import typing as t

from packetwatch_core._node.rules import OFF, Declared
from packetwatch_fleet.observed import HostBan, Pair

from .interface import Decision, Found, Hosts, Proposal, Rule
from .plugins import FOLDER, find_rule

# A rule may use this part of a processor, and this much more at once, in seconds.
SHARE, BURST = 0.5, 2.0
# Decisions of one call: a rule that decides on everybody is wrong.
MAX_FOUND = 1000
_MAX_FAULT = 300
# Of so many calls, the processor time of one is measured.
_SAMPLE = 32

Result = tuple["Seat", Found]


class TooSlow(Exception):
    """A rule does not come to an end."""


class Seat:
    """A rule with what was declared for it. fault: why it is switched off; None: it is not."""

    def __init__(self, name: str, declared: Declared) -> None:
        self.name = name
        self.action = declared.action
        self.thresholds = declared.thresholds
        self.rule: Rule | None = None
        self.fault: str | None = None
        self.decided = 0
        self.spent = 0.0
        """Seconds of a processor that count towards its budget."""
        self.used = 0.0
        """Seconds of a processor since the start."""

    @property
    def is_on(self) -> bool:
        return self.rule is not None and self.fault is None

    def values(self) -> dict[str, float]:
        """What the rule counts; its own code, so it may be anything."""
        if self.rule is None or self.fault is not None:
            return {}
        try:
            found = self.rule.values()
            numbers = {str(name)[:64]: float(value) for name, value in list(found.items())[:32]}
            return {name: value for name, value in numbers.items() if math.isfinite(value)}
        except Exception as error:
            self.fault = _text(error)
            return {}


class Panel:
    """All rules. now: as `Rule` has it. is_bounded: whether time counts, which it does not for recorded events."""

    def __init__(
        self,
        declared: t.Mapping[str, Declared],
        hosts: Hosts,
        folder: str = FOLDER,
        is_bounded: bool = True,
    ) -> None:
        self.seats = [Seat(name, one) for name, one in declared.items()]
        self._is_bounded = is_bounded
        self._running: Seat | None = None
        self._asked = 0
        self._calls = 0
        self._interrupted = -1
        """The call in which `interrupt` was called last."""
        for seat in self.seats:
            if seat.action == OFF:
                continue
            try:
                seat.rule = find_rule(seat.name, folder)(seat.thresholds, hosts)
            except Exception as error:
                seat.fault = _text(error)

    def seen(self, host: int, pairs: t.Sequence[Pair], now: float) -> list[Result]:
        return self._ask(lambda rule: rule.seen(host, pairs, now))

    def bans(self, host: int, bans: t.Sequence[HostBan], now: float) -> list[Result]:
        return self._ask(lambda rule: rule.bans(host, bans, now))

    def tick(self, now: float, passed: float) -> list[Result]:
        """passed: seconds since the last tick, by a clock that does not jump."""
        found = self._ask(lambda rule: rule.tick(now))
        for seat in self.seats:
            seat.spent = max(0.0, seat.spent - passed * SHARE)
        return found

    def forget(self, source: bytes) -> None:
        def forget(rule: Rule) -> t.Iterable[Found]:
            rule.forget(source)
            return ()

        self._ask(forget)

    def interrupt(self) -> None:
        """End the rule that is running, if it was running when this was called before.

        Call it from the handler of a timer of processor time.
        """
        if self._running and self._interrupted == self._calls:
            raise TooSlow
        self._interrupted = self._calls

    def _ask(self, ask: t.Callable[[Rule], t.Iterable[Found]]) -> list[Result]:
        results: list[Result] = []
        self._asked += 1
        # To measure each call would cost more than most rules do.
        is_measured = self._asked % _SAMPLE == 0
        before = time.thread_time() if is_measured else 0.0
        for seat in self.seats:
            if not seat.is_on:
                continue
            self._running = seat
            self._calls += 1
            try:
                found = _checked(ask(t.cast("Rule", seat.rule)))
                results += [(seat, one) for one in found]
                seat.decided += len(found)
            except TooSlow:
                seat.fault = "it did not come to an end"
            except Exception as error:
                seat.fault = _text(error)
            finally:
                self._running = None
            if not is_measured:
                continue
            after = time.thread_time()
            seat.spent += (after - before) * _SAMPLE
            seat.used += (after - before) * _SAMPLE
            before = after
            if self._is_bounded and seat.spent > BURST and seat.fault is None:
                seat.fault = f"it has used more than {SHARE:.0%} of a processor"
        return results


def _checked(found: t.Iterable[Found]) -> list[Found]:
    """What a rule has found, if it is of the right types."""
    kept: list[Found] = []
    for one in found:
        if not isinstance(one, (Decision, Proposal)):
            raise TypeError(f"it has found {type(one).__name__}: write Decision or Proposal")
        if len(kept) >= MAX_FOUND:
            raise ValueError(f"it has more than {MAX_FOUND} decisions at once")
        kept.append(one)
    return kept


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_MAX_FAULT]
