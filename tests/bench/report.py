# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results as a table for the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bench.figures import Outcome

_SCALES = ((1e6, "M"), (1e3, "k"), (1.0, ""))


def figure(value: float, unit: str) -> str:
    """Return a figure with three digits and its unit."""
    for scale, letter in _SCALES:
        if unit.endswith("/s") and abs(value) >= scale:
            return f"{value / scale:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}"


def table(outcomes: Sequence[Outcome], impossible: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the table, a line for each row. impossible: why a row cannot be measured here, by its name."""
    width = max(map(len, [*(outcome.row.name for outcome in outcomes), *impossible]), default=0)
    lines = [
        f"{'':{width}}  {'ours':>15} {'reference':>15} {'ratio':>7} {'±':>6} {'goal':>7} {'n':>3}"
    ]
    for outcome in outcomes:
        row = outcome.row
        sign = "<=" if row.sense == "max" else ">="
        goal = "" if row.goal is None else f"{sign} {row.goal:g}"
        lines.append(
            f"{row.name:{width}}  {figure(outcome.ours, row.unit):>15} "
            f"{figure(outcome.reference, row.unit):>15} {outcome.ratio:7.3f} {outcome.spread:6.3f} "
            f"{goal:>7} {outcome.n:3}  {outcome.verdict}"
        )
    lines += [f"{name:{width}}  not measured: {reason}" for name, reason in impossible.items()]
    return "\n".join(lines)


def document(
    outcomes: Sequence[Outcome], raw: Mapping[str, Sequence[float]], about: Mapping[str, Any]
) -> str:
    """Return all figures and results as JSON."""
    rows = [
        {
            "name": outcome.row.name,
            "ratio": round(outcome.ratio, 5),
            "goal": outcome.row.goal,
            "sense": outcome.row.sense,
            "spread": round(outcome.spread, 5),
            "n": outcome.n,
            "verdict": outcome.verdict,
            "unit": outcome.row.unit,
            "ours": outcome.ours,
            "reference": outcome.reference,
        }
        for outcome in outcomes
    ]
    return json.dumps({"about": about, "rows": rows, "raw": raw}, indent=1) + "\n"
