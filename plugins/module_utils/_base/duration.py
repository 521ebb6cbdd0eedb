# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Durations as people write them: seconds, or numbers with units, such as ``10m`` or ``1h30m``."""

from __future__ import annotations

import re
import typing as t

from .errors import InvalidInput

UNITS: t.Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_EXAMPLE = "a time such as 30s, 10m, 2h, 7d"
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_PART = re.compile(r"([0-9]{1,9})([smhdw])")
_PARTS = re.compile(r"([0-9]{1,9}[smhdw])+")


def read_duration(text: str) -> float:
    """The seconds of a duration; raises ValueError if the text is not one."""
    if _SECONDS.fullmatch(text):
        return float(text)
    if not _PARTS.fullmatch(text):
        raise ValueError(text)
    return float(sum(int(number) * UNITS[unit] for number, unit in _PART.findall(text)))


def parse_duration(value: t.Any, name: str, minimum: float, maximum: float) -> float:
    """The seconds of a duration within limits; raises InvalidInput, which names the option.

    value: a text or a number, as YAML has it.
    """
    try:
        seconds = read_duration(duration_text(value))
        if minimum <= seconds <= maximum:
            return seconds
    except ValueError:
        pass
    raise InvalidInput(
        f"{name} is {duration_text(value)!r}; allowed: {allowed_durations(minimum, maximum)}"
    )


def allowed_durations(minimum: float, maximum: float) -> str:
    """The durations within limits, in words."""
    return f"seconds from {minimum:g} to {maximum:.0f}, up to 6 decimals, or {_EXAMPLE}"


def duration_text(value: t.Any) -> str:
    """A number or text of YAML in the form that `read_duration` reads.

    A number with more than six decimals, or NaN, is not rounded but shown whole, so it is refused.
    """
    if isinstance(value, float):
        exact = write_seconds(value)
        return exact if exact.replace(".", "").isdigit() and float(exact) == value else repr(value)
    return str(value)


def write_seconds(value: float) -> str:
    """Seconds as text, without needless zeros: the canonical form."""
    return f"{value:.6f}".rstrip("0").rstrip(".")
