# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whole numbers as people and programs write them: ASCII digits, of a bounded length."""

from __future__ import annotations

import typing as t

MAX_TIME: t.Final = 1e11
"""Maximum of a time in a file, in seconds since 1970: the year 5138."""
# Python refuses to convert some thousands of digits, with an error that names no remedy.
_MAX_DIGITS = 20
Kind = t.TypeVar("Kind")


def read_whole(text: str, maximum: float) -> int | None:
    """The number from 0 to `maximum` that the text is; None if it is not one."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return None
    number = int(text)
    return number if number <= maximum else None


def is_a(value: t.Any, kind: type[Kind]) -> t.TypeGuard[Kind]:
    """Whether a value of JSON has a type. True and false are not numbers."""
    return isinstance(value, kind) and isinstance(value, bool) == (kind is bool)


def is_number(value: t.Any, maximum: float) -> bool:
    """Whether a value of JSON is a number from 0 to `maximum`: neither true, nor infinite, nor NaN."""
    return (is_a(value, int) or is_a(value, float)) and 0 <= value <= maximum
