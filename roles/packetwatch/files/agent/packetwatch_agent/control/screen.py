# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``top``: the agent's counts, one screen at a time."""

from __future__ import annotations

import time
import typing as t

from . import wire
from .words import moment, printable, table

_CLEAR = "\x1b[H\x1b[J"


def rates(now: wire.Result, before: wire.Result | None, seconds: float) -> dict[str, float]:
    """Packets per second by "verdict reason" since `before`; without it, all packets so far."""
    packets: dict[str, int] = now["packets"]
    if before is None or seconds <= 0:
        return dict(packets)
    former: dict[str, int] = before["packets"]
    return {name: (n - former.get(name, 0)) / seconds for name, n in packets.items()}


def page(result: wire.Result, before: wire.Result | None = None, seconds: float = 0.0) -> list[str]:
    """The lines of one screen."""
    unit = "packets per second" if before else "packets since the filter was loaded"
    numbers = sorted(rates(result, before, seconds).items(), key=lambda pair: -pair[1])
    rows: list[t.Sequence[object]] = [(f"{n:.0f}", name) for name, n in numbers if n >= 0.5]
    lines = [f"note: {printable(text)}" for text in result.get("notes", [])]
    lines += [unit, *(table(rows, "  ") if rows else ["  none"])]
    lines += _part(
        "new connections in the last minute",
        [(item["connections"], item["source"]) for item in result["sources"]],
    )
    lines += _part("to ports", [(item["connections"], item["port"]) for item in result["ports"]])
    lines += _part(
        "scanners, the latest first",
        [
            (
                moment(item["seen"])[11:19],
                item["source"],
                item["kind"],
                f"{item['ports']} ports",
                item["result"],
            )
            for item in result["scans"]
        ],
    )
    lines += _part(
        "banned sources by packets dropped",
        [(item["dropped"], item["source"], item["origin"]) for item in result["drops"]],
    )
    return lines


def _part(title: str, rows: t.Sequence[t.Sequence[object]]) -> list[str]:
    return [title, *table(rows, "  ")] if rows else []


def run(
    ask: t.Callable[[], wire.Result],
    write: t.Callable[[str], object],
    interval: float,
    height: t.Callable[[], int],
    sleep: t.Callable[[float], None] = time.sleep,
) -> None:
    """Show one page after the other in the same place, until the user interrupts."""
    before: wire.Result | None = None
    asked_at = time.monotonic()
    while True:
        result, now = ask(), time.monotonic()
        lines = page(result, before, now - asked_at)[: max(height() - 1, 1)]
        write(_CLEAR + "\n".join(lines) + "\n")
        before, asked_at = result, now
        sleep(interval)
