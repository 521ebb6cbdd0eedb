# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values of ``bans/`` and ``lifts/``: pages of rows. Whatever a store holds is untrusted text.

A value that is not understood counts as absent, a row that is not understood counts as withdrawn, and both are
counted. So the state follows from the values alone, and no host depends on what it has seen before.
"""

from __future__ import annotations

import json
import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.number import MAX_TIME, is_a, is_number
from packetwatch_core._network.endpoints import is_label

from .sources import Sources

VERSION = 1
# A page is written with at most 12 KB, and read with somewhat more.
MAX_PAGE, MAX_ROWS = 16384, 128
# Weakest first: what a ban rests on.
EVIDENCE = ("syn", "answer", "manual")
# A source that has only sent SYNs may be forged, so it is banned for a short time.
MAX_SYN = 600.0
MAX_SEEN = 1_000_000


class Refused(Exception):
    """A value that does not count. reason: ``version``, ``shape`` or ``size``, for the metric."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Row(t.NamedTuple):
    """One enforcer's decision on a source. Times are those of the store."""

    until: float
    made: float
    rule: str
    evidence: str
    seen: int
    """How many hosts have seen the source."""
    page: str = ""
    """The key of the page that has the row."""


class Lift(t.NamedTuple):
    """The end of all decisions on a source that were made until `before`."""

    before: float
    hold: float
    """Until then, enforcers do not decide on the source."""
    page: str = ""


_T = t.TypeVar("_T")


class Page(t.NamedTuple, t.Generic[_T]):
    """The rows that count, by source, and how many do not."""

    rows: list[tuple[str, _T]]
    wrong: int = 0


def parse_page(value: bytes, sources: Sources) -> Page[Row]:
    """The decisions of a page; raises `Refused`."""
    return _parse(value, "bans", _row, sources)


def parse_lifts(value: bytes, sources: Sources) -> Page[Lift]:
    """The lifts of a page; raises `Refused`."""
    return _parse(value, "lifts", _lift, sources)


def read_object(value: bytes, size: int) -> dict[str, t.Any]:
    """The object that a value is, of a version that is known; raises `Refused`."""
    if len(value) > size:
        raise Refused("size")
    try:
        found = json.loads(value.decode())
    except (ValueError, RecursionError):
        raise Refused("shape") from None
    if not isinstance(found, dict):
        raise Refused("shape")
    version = found.get("v")
    if not is_a(version, int) or version != VERSION:
        raise Refused("version")
    return found


def _parse(
    value: bytes, name: str, parse: t.Callable[[t.Any], _T | None], sources: Sources
) -> Page[_T]:
    rows = read_object(value, MAX_PAGE).get(name)
    if not isinstance(rows, list) or len(rows) > MAX_ROWS:
        raise Refused("shape")
    found = []
    for row in rows:
        # Columns after the known ones belong to a later version.
        source = _source(row, sources)
        parsed = parse(row) if source else None
        if source and parsed is not None:
            found.append((source, parsed))
    return Page(found, len(rows) - len(found))


def _source(row: t.Any, sources: Sources) -> str | None:
    if not isinstance(row, list) or not row or not isinstance(row[0], str):
        return None
    try:
        return sources.of(row[0])
    except InvalidInput:
        return None


def _row(row: list[t.Any]) -> Row | None:
    if len(row) < 6:
        return None
    until, made, rule, evidence, seen = row[1:6]
    if not (is_number(until, MAX_TIME) and is_number(made, MAX_TIME)):
        return None
    if not (isinstance(rule, str) and is_label(rule) and evidence in EVIDENCE):
        return None
    if not is_a(seen, int) or not 0 <= seen <= MAX_SEEN:
        return None
    if evidence == EVIDENCE[0]:
        until = min(until, made + MAX_SYN)
    return Row(float(until), float(made), rule, evidence, seen)


def _lift(row: list[t.Any]) -> Lift | None:
    if len(row) < 3 or not (is_number(row[1], MAX_TIME) and is_number(row[2], MAX_TIME)):
        return None
    return Lift(float(row[1]), float(row[2]))
