# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From raw figures to ratios: what a row compares, its spread, and whether it reaches the goal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Raw = Mapping[str, Sequence[float]]
Sense = Literal["max", "min"]


@dataclass(frozen=True)
class Value:
    """A case, whose figure is taken in each round; net: another case, whose figure is subtracted."""

    case: str
    base: str = ""

    def rounds(self, raw: Raw) -> list[float]:
        """Return the figures, one for each round."""
        if not self.base:
            return list(raw[self.case])
        return [value - base for value, base in zip(raw[self.case], raw[self.base], strict=True)]

    def cases(self) -> set[str]:
        """The names of the cases that are used."""
        return {self.case, self.base} - {""}


@dataclass(frozen=True)
class Row:
    """A row of the table: ours beside a reference, and the ratio to reach.

    goal None: the ratio is only stated. sense "max": the goal is the maximum of the ratio.
    """

    name: str
    ours: Value
    reference: Value | float
    goal: float | None
    sense: Sense = "max"
    unit: str = "ns"

    def cases(self) -> set[str]:
        """The names of the cases that the row needs."""
        reference = self.reference.cases() if isinstance(self.reference, Value) else set()
        return self.ours.cases() | reference


@dataclass(frozen=True)
class Outcome:
    """The result of a row; spread: half the interquartile range of the rounds' ratios."""

    row: Row
    ratio: float
    spread: float
    n: int
    ours: float
    reference: float

    @property
    def reached(self) -> bool:
        """Whether the goal is met, or not missed by more than the spread."""
        if self.row.goal is None:
            return True
        if self.row.sense == "max":
            return self.ratio <= self.row.goal + self.spread
        return self.ratio >= self.row.goal - self.spread

    @property
    def verdict(self) -> str:
        """ "ok", "within spread" (missed, but by less than the noise), "MISSED" or "stated"."""
        row = self.row
        if row.goal is None:
            return "stated"
        met = self.ratio <= row.goal if row.sense == "max" else self.ratio >= row.goal
        if met:
            return "ok"
        return "within spread" if self.reached else "MISSED"


def half_interquartile_range(values: Sequence[float]) -> float:
    """Return half of the interquartile range."""
    if len(values) < 2:
        return 0.0
    low, _middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2


def compare(row: Row, raw: Raw) -> Outcome:
    """Return the median of the rounds' ratios with its spread."""
    ours = row.ours.rounds(raw)
    if isinstance(row.reference, Value):
        reference = row.reference.rounds(raw)
    else:
        reference = [row.reference] * len(ours)
    ratios = [one / other for one, other in zip(ours, reference, strict=True)]
    return Outcome(
        row,
        statistics.median(ratios),
        half_interquartile_range(ratios),
        len(ratios),
        statistics.median(ours),
        statistics.median(reference),
    )
