# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What answers of the agent must look like: each is checked, and only known fields are kept.

The agent may be taken over, and root reads its answers. A shape is a function that returns a checked copy of
a value, or raises `Misfit`.
"""

from __future__ import annotations

import typing as t

from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.number import is_a

Shape = t.Callable[[t.Any], t.Any]
Fields = t.Mapping[str, Shape]

# Sums of counters may be larger than each of them.
_MAX_COUNT = 1 << 80
# The end of the year 9999, which is as far as dates go.
_MAX_MOMENT = 253402300799
_MAX_SHOWN = 80


class Misfit(Exception):
    """A value does not have the shape. path: where it is in the answer."""

    def __init__(self, value: object, path: str = "") -> None:
        super().__init__(value)
        self._value = value
        self._path = path

    def inside(self, name: str) -> Misfit:
        """The same in a larger value."""
        return Misfit(self._value, f"{name}.{self._path}" if self._path else name)

    def __str__(self) -> str:
        return f"{self._path or 'it'} is {_shown(self._value)}"


def _shown(value: object) -> str:
    try:
        return repr(value)[:_MAX_SHOWN]
    except (RecursionError, ValueError):
        return "deeply nested, or a long number"


def text(value: t.Any) -> str:
    if not isinstance(value, str):
        raise Misfit(value)
    return value


def flag(value: t.Any) -> bool:
    if not isinstance(value, bool):
        raise Misfit(value)
    return value


def count(value: t.Any) -> int:
    """A whole number as the kernel counts."""
    if not is_a(value, int) or not 0 <= value < _MAX_COUNT:
        raise Misfit(value)
    return value


def number(value: t.Any) -> int | float:
    if not (is_a(value, int) or is_a(value, float)):
        raise Misfit(value)
    if not -_MAX_COUNT < value < _MAX_COUNT:
        raise Misfit(value)
    return value


def moment(value: t.Any) -> int | float:
    """Unix seconds."""
    if not 0 <= number(value) <= _MAX_MOMENT:
        raise Misfit(value)
    return number(value)


def prefix(value: t.Any) -> str:
    """An address or a prefix."""
    try:
        parse_prefix(text(value))
    except InvalidInput:
        raise Misfit(value) from None
    return text(value)


def verdict(value: t.Any) -> str:
    """The name of a counter of packets: "pass unlisted"."""
    if text(value).partition(" ")[0] not in ("pass", "drop"):
        raise Misfit(value)
    return text(value)


def value_of_event(value: t.Any) -> t.Any:
    """A value in a line of the log: a text, a number, a flag, or a list of these."""
    return list_of(_word)(value) if isinstance(value, list) else _word(value)


def _word(value: t.Any) -> t.Any:
    return value if value is None or isinstance(value, (bool, str)) else number(value)


def maybe(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def list_of(shape: Shape) -> Shape:
    def check(value: t.Any) -> list[t.Any]:
        if not isinstance(value, list):
            raise Misfit(value)
        return [_within(str(place), shape, item) for place, item in enumerate(value)]

    return check


def mapping(key: Shape, shape: Shape) -> Shape:
    def check(value: t.Any) -> dict[str, t.Any]:
        if not isinstance(value, dict):
            raise Misfit(value)
        return {key(name): _within(name, shape, item) for name, item in value.items()}

    return check


def record(fields: Fields, optional: Fields | None = None) -> Shape:
    """An object with these fields; others are left out."""

    def check(value: t.Any) -> dict[str, t.Any]:
        if not isinstance(value, dict):
            raise Misfit(value)
        wanted = {**fields, **{k: v for k, v in (optional or {}).items() if k in value}}
        return {name: _within(name, shape, value.get(name)) for name, shape in wanted.items()}

    return check


def _within(name: str, shape: Shape, value: t.Any) -> t.Any:
    try:
        return shape(value)
    except Misfit as misfit:
        raise misfit.inside(name[:_MAX_SHOWN]) from None


BAN = record(
    {
        "source": prefix,
        "origin": text,
        "kind": text,
        "evidence": text,
        "since": maybe(moment),
        "until": maybe(moment),
        "ports": count,
        "dropped": count,
        "interface": text,
        "short": flag,
    }
)
PROTECTED = record({"prefix": prefix, "reason": text, "until": maybe(moment)})
EVENT = mapping(text, value_of_event)

_FLEET_BAN = record(
    {
        "enforcer": text,
        "rule": text,
        "evidence": text,
        "hosts": count,
        "since": moment,
        "until": moment,
    },
    # What an enforcer says about it.
    {"why": text, "at": list_of(text), "ports": list_of(count)},
)
_FLEET = record(
    {
        "store": record(
            {
                "connected": flag,
                "endpoint": text,
                "cluster": text,
                "revision": count,
                "age": maybe(number),
                "problem": text,
                "declared": count,
                "held": count,
                "clock": maybe(number),
                "values_refused": mapping(text, count),
                "rules": mapping(text, maybe(number)),
            }
        ),
        "agent": record(
            {"bans": count, "missing": count, "refused": mapping(text, count), "problem": text}
        ),
        "reports": record(
            {"host": text, "reports": mapping(text, count), "lost": count, "problem": text}
        ),
    }
)
_PACKETS = mapping(verdict, count)
_CHANGE = record({"source": prefix, "changed": flag, "message": text})
_EDIT = record(
    {"command": text, "changed": flag, "message": text},
    {
        "check": flag,
        "live": flag,
        "digest_before": text,
        "digest_after": text,
        "counts": mapping(text, number),
        "diff": record({"before": text, "after": text}),
        "notes": list_of(text),
    },
)
# By command, of the agent and of the one-shot for edits.
RESULTS: dict[str, Shape] = {
    "status": record(
        {
            "version": text,
            "pid": count,
            "since": moment,
            "state": text,
            "interfaces": mapping(text, text),
        },
        {
            "bans": mapping(text, count),
            "entries": mapping(text, number),
            "unsaved": text,
            "damaged": list_of(text),
            "protected": mapping(text, count),
            "packets": _PACKETS,
        },
    ),
    "why": record({"protected": text, "bans": list_of(BAN)}),
    "top": record(
        {
            "packets": _PACKETS,
            "sources": list_of(record({"source": prefix, "connections": count})),
            "ports": list_of(record({"port": count, "connections": count})),
            "scans": list_of(
                record(
                    {
                        "source": prefix,
                        "seen": moment,
                        "kind": text,
                        "ports": count,
                        "result": text,
                    }
                )
            ),
            "drops": list_of(record({"source": prefix, "origin": text, "dropped": count})),
        }
    ),
    "fleet": _FLEET,
    "fleet_why": record(
        {"source": prefix, "ban": maybe(_FLEET_BAN), "decisions": count, "lifted": maybe(moment)}
    ),
    "fleet_release": record({"changed": flag, "message": text}),
    "ban": _CHANGE,
    "unban": _CHANGE,
    **dict.fromkeys(("allow", "deny", "remove", "apply", "confirm", "rollback"), _EDIT),
}
ITEMS: dict[str, Shape] = {"bans": BAN, "protect": PROTECTED}
