# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Finds the entries that cover one prefix, without parsing a million lines that do not.

A prefix has at most 33 (IPv4) or 129 (IPv6) prefixes that cover it. One regular expression finds the lines
that begin with one of them; only these lines become objects.
"""

from __future__ import annotations

import re
import typing as t
from functools import lru_cache

from .._base.address import BITS, Prefix, format_prefix, widening
from .._base.errors import InvalidInput
from .entries import BYTE_ORDER_MARK, Entry, parse_line

_BLANKS = r"[^\S\n]*"


def covering(text: str, prefix: Prefix) -> list[Entry]:
    """Return the entries of a drop-in that cover the prefix.

    IPv4 entries are found in every spelling that is valid. IPv6 entries are found in canonical spelling,
    which is what Packetwatch writes (`covering_exactly` finds all). Lines that are wrong are skipped.
    """
    if text.find("/") < 0 and text.find(format_prefix(prefix)) < 0:
        return []
    first, others = _patterns(prefix)
    begins = [found.end() for found in [first.match(text)] if found]
    begins += [found.end() for found in others.finditer(text)]
    found = [_entry(text, at) for at in begins]
    return [entry for entry in found if entry is not None and covers(entry.prefix, prefix)]


def covering_exactly(text: str, prefix: Prefix) -> list[Entry]:
    """Return the entries of a drop-in that cover the prefix, however they are spelled: a line at a time."""
    return [entry for entry in _entries(text, prefix.family) if covers(entry.prefix, prefix)]


def overlapping(text: str, prefix: Prefix) -> list[Entry]:
    """Return the entries of a drop-in that cover the prefix or lie inside it, however they are spelled."""
    if prefix.family == 4:
        return [*covering(text, prefix), *_inside(text, prefix)]
    if ":" not in text:
        return []
    entries = _entries(text, prefix.family)
    return [each for each in entries if covers(each.prefix, prefix) or covers(prefix, each.prefix)]


def count_inside(text: str, prefix: Prefix) -> int:
    """Return how many entries of a drop-in lie inside the prefix and are smaller than it."""
    return len(_inside(text, prefix))


def _inside(text: str, prefix: Prefix) -> list[Entry]:
    if prefix.is_host:
        return []
    head = _head_of(prefix)
    if head:
        lines = re.compile(rf"\n{_BLANKS}{head}", re.IGNORECASE)
        begins = lines.finditer("\n" + text.removeprefix(BYTE_ORDER_MARK))
        entries: t.Iterable[Entry | None] = (_entry(text, found.end() - 1) for found in begins)
    else:
        entries = _entries(text, prefix.family)
    return [
        entry
        for entry in entries
        if entry is not None and covers(prefix, entry.prefix) and entry.prefix != prefix
    ]


def covers(one: Prefix, other: Prefix) -> bool:
    """Return whether all addresses of the other prefix are in this one."""
    return one.family == other.family and one.value <= other.value and other.last <= one.last


def _head_of(prefix: Prefix) -> str:
    """Return a pattern of the text with which all entries inside a prefix begin; empty if they share none.

    IPv6 entries may leave out groups of zeros, so these are not part of it.
    """
    size = 8 if prefix.family == 4 else 16
    whole = prefix.length // size
    bits = BITS[prefix.family]
    parts = [prefix.value >> bits - size * (at + 1) & (1 << size) - 1 for at in range(whole)]
    if prefix.family == 4:
        return "".join(rf"{part}\." for part in parts)
    if 0 in parts:
        parts = parts[: parts.index(0)]
    return "".join(f"0{{0,3}}{part:x}:" for part in parts)


def _entries(text: str, family: int) -> t.Iterator[Entry]:
    for line in text.removeprefix(BYTE_ORDER_MARK).split("\n"):
        if (":" in line.partition("#")[0].split("expires=")[0]) == (family == 6):
            entry = _parsed(line)
            if entry is not None:
                yield entry


def _entry(text: str, at: int) -> Entry | None:
    """Return the entry of the line in which the place `at` lies."""
    end = text.find("\n", at)
    return _parsed(
        text[text.rfind("\n", 0, at) + 1 : None if end < 0 else end].lstrip(BYTE_ORDER_MARK)
    )


def _parsed(line: str) -> Entry | None:
    try:
        return parse_line(line)
    except InvalidInput:
        return None


@lru_cache(maxsize=64)
def _patterns(prefix: Prefix) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of a covering prefix in the first line of a text, and in any other line."""
    bits = BITS[prefix.family]
    words = [format_prefix(prefix)] if prefix.is_host else []
    for wider in widening(prefix):
        network = Prefix(wider.family, wider.value, bits)
        words.append(f"{format_prefix(network)}/{wider.length}")
    line = rf"{_BLANKS}{_any_of(words)}(?![0-9a-fA-F.:/])"
    return re.compile(f"{BYTE_ORDER_MARK}?{line}"), re.compile(rf"\n{line}")


def _any_of(words: list[str]) -> str:
    """Return a pattern of these words in which each common beginning is compared once."""
    low, high = min(words), max(words)
    size = next((at for at, pair in enumerate(zip(low, high)) if pair[0] != pair[1]), len(low))
    head = low[:size]
    tails: dict[str, list[str]] = {}
    for word in words:
        tails.setdefault(word[len(head) : len(head) + 1], []).append(word[len(head) :])
    if len(tails) == 1:
        return re.escape(head)
    # The longer words come first, so that a word is not taken for one that it begins with.
    some = [_any_of(tails[first]) for first in sorted(tails, reverse=True)]
    return f"{re.escape(head)}(?:{'|'.join(some)})"
