# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of the fleet's bench: which figure of which measurement has which goal, and the table of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.report import figure


class Sizes(NamedTuple):
    """How much is measured."""

    hosts: int
    """Fleet processes, three of them with a kernel."""
    scans: int
    bans: int
    listing: int
    """Simulated hosts that list everything at once."""
    listings: int
    watchers: int
    """Simulated hosts that watch."""
    seconds: int
    """How long they watch."""
    kernels: int
    """Hosts with a kernel of which enforcers find scans that no host sees alone."""
    sweeps: int
    reporters: int
    """Simulated hosts that report to an enforcer."""
    reporting: int
    """For how many seconds."""


FULL = Sizes(50, 100, 10_000, 200, 3, 1000, 10, 20, 40, 1000, 60)
SMALL = Sizes(4, 3, 300, 6, 1, 12, 1, 5, 2, 20, 8)
"""Shows that the bench works, not how fast the fleet is."""
COMMITS = 10
"""Pages that an enforcer writes in a second."""
ROWS = 10
"""Bans of such a page."""

SCAN, FRESH, LISTING, WATCHING = "scan", "fresh host", "listing", "watching"
SWEEP, DECIDING, FLOOD = "sweep", "deciding", "flood"
CPU, MEMORY = "processor", "memory"


class Measured(NamedTuple):
    """The figures of one measurement, and the part of all processors' time that was used meanwhile."""

    figures: Sequence[float]
    busy: float


class Row(NamedTuple):
    """quantile: of the figures; 1: the largest one. goal: what it may be at most."""

    name: str
    case: str
    quantile: float
    goal: float
    unit: str


def rows(sizes: Sizes) -> list[Row]:
    """All rows of the table."""
    ban = f"scan on A -> ban in B's kernel, {sizes.hosts} hosts"
    sweep = (
        f"scan of one port on 5 of {sizes.kernels} hosts, 2 enforcers, last packet -> last kernel"
    )
    deciding = f"enforcer, {sizes.reporters:,} hosts with 50-500 new sources/min each"
    watch = f"{sizes.watchers:,} watchers, {COMMITS * ROWS} bans/s, page -> watcher"
    return [
        Row(f"{ban}: median", SCAN, 0.5, 80, "ms"),
        Row(f"{ban}: p99", SCAN, 0.99, 300, "ms"),
        Row(f"{sizes.bans:,} bans to a fresh host", FRESH, 1, 1, "s"),
        Row(f"{sizes.listing} hosts list {sizes.bans:,} bans at once", LISTING, 1, 5, "s"),
        Row(f"{watch}: p99", WATCHING, 0.99, 500, "ms"),
        Row(f"{sweep}: median", SWEEP, 0.5, 2.5, "s"),
        Row(f"{sweep}: p99", SWEEP, 0.99, 2.5, "s"),
        Row(f"{deciding}: 5th report -> ban in the store, p99", DECIDING, 0.99, 1.5, "s"),
        Row(f"{deciding}: of a processor", f"{DECIDING}: {CPU}", 1, 5, "%"),
        Row(f"{deciding}: memory", f"{DECIDING}: {MEMORY}", 1, 40, "MB"),
        Row("the same, each with 200 forged sources/s: memory", f"{FLOOD}: {MEMORY}", 1, 100, "MB"),
    ]


def value_of(row: Row, measured: Measured) -> float:
    """The row's figure: the smallest one that is not less than so many of all."""
    ordered = sorted(measured.figures)
    return ordered[max(0, math.ceil(row.quantile * len(ordered)) - 1)]


def is_reached(row: Row, measured: Measured) -> bool:
    return value_of(row, measured) <= row.goal


def table(found: Sequence[Row], measured: Mapping[str, Measured]) -> str:
    """Return the table, a line for each row."""
    width = max(len(row.name) for row in found)
    lines = [f"{'':{width}}  {'figure':>9} {'goal':>9} {'n':>7} {'load':>5}"]
    for row in found:
        case = measured[row.case]
        verdict = "ok" if is_reached(row, case) else "MISSED"
        goal = f"<= {figure(row.goal, row.unit)}"
        lines.append(
            f"{row.name:{width}}  {figure(value_of(row, case), row.unit):>9} {goal:>9} "
            f"{len(case.figures):7,} {case.busy:5.0%}  {verdict}"
        )
    return "\n".join(lines)


def document(
    found: Sequence[Row], measured: Mapping[str, Measured], about: Mapping[str, Any]
) -> str:
    """Return all results as JSON, and the figures unless there are very many."""
    results = [
        row._asdict()
        | {
            "figure": round(value_of(row, measured[row.case]), 3),
            "n": len(measured[row.case].figures),
            "load": round(measured[row.case].busy, 3),
            "verdict": "ok" if is_reached(row, measured[row.case]) else "MISSED",
        }
        for row in found
    ]
    raw = {
        name: [round(value, 3) for value in case.figures]
        for name, case in measured.items()
        if name != WATCHING
    }
    return json.dumps({"about": about, "rows": results, "raw": raw}, indent=1) + "\n"
