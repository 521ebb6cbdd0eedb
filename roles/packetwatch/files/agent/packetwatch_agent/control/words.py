# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text at a terminal: durations, times, tables."""

from __future__ import annotations

import contextlib
import time
import typing as t

from packetwatch_core._base.duration import UNITS, read_duration
from packetwatch_core._base.errors import InvalidInput


def seconds_from(text: str) -> float:
    """Seconds of a duration such as ``90``, ``10m`` or ``1h30m``; raises `InvalidInput`."""
    with contextlib.suppress(ValueError):
        seconds = read_duration(text)
        if seconds:
            return seconds
    raise InvalidInput(f"{text!r} is not a duration: write seconds, or for example 10m, 1h30m, 2d")


def time_from(text: str) -> str:
    """A time as RFC 3339, from such a time or from a duration from now; raises `InvalidInput`."""
    if "-" in text:
        return text
    try:
        return moment(time.time() + seconds_from(text))
    except (InvalidInput, OSError, OverflowError, ValueError):
        raise InvalidInput(
            f"{text!r} is not a time and is not a duration: write 2027-01-01T00:00:00Z, or for example "
            "12h from now"
        ) from None


def moment(seconds: float | None, never: str = "never") -> str:
    """UTC seconds as a time."""
    if seconds is None:
        return never
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    left, parts = max(round(seconds), 0), []
    for unit, size in sorted(UNITS.items(), key=lambda pair: -pair[1]):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"


def printable(text: str) -> str:
    """The text without control characters: logs and comments may come from an attacker."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def table(rows: t.Sequence[t.Sequence[object]], indent: str = "") -> list[str]:
    """Lines with aligned columns."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts)]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in texts
    ]


def count(number: int, noun: str, nouns: str = "") -> str:
    """``1 ban``, ``2 bans``; `nouns` is an irregular plural."""
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"
