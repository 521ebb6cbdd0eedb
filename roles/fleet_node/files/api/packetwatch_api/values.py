# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is taken from values of the store: untrusted text, of which what makes no sense is left out."""

from __future__ import annotations

import json
import typing as t

from packetwatch_core._base.number import MAX_TIME, is_a, is_number

Json = dict[str, t.Any]
_MAX_TEXT, _MAX_ITEMS = 200, 128


def object_of(value: bytes) -> Json:
    """The object of version 1 that a value is; empty if it is not one."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    is_known = isinstance(found, dict) and is_a(found.get("v"), int) and found["v"] == 1
    return found if is_known else {}


def text(value: t.Any) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def text_or_none(value: t.Any) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) else None


def moment(value: t.Any) -> float | None:
    """A time, or a number of seconds."""
    return float(value) if is_number(value, MAX_TIME) else None


def count(value: t.Any) -> int | None:
    return value if is_a(value, int) and value >= 0 else None


def counts(value: t.Any) -> dict[str, int]:
    """Numbers by name."""
    return {
        str(name)[:_MAX_TEXT]: number
        for name, number in list(table(value).items())[:_MAX_ITEMS]
        if is_a(number, int) and number >= 0
    }


def numbers(value: t.Any) -> dict[str, float]:
    """Numbers by name, of any size and sign."""
    return {
        str(name)[:_MAX_TEXT]: number
        for name, number in list(table(value).items())[:_MAX_ITEMS]
        if (is_a(number, int) or is_a(number, float)) and abs(number) <= MAX_TIME
    }


def table(value: t.Any) -> Json:
    return value if isinstance(value, dict) else {}


def rows(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else []


def texts(value: t.Any) -> list[str]:
    return [one[:_MAX_TEXT] for one in rows(value)[:_MAX_ITEMS] if isinstance(one, str)]
