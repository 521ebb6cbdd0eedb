# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The kinds of values that a knob of the policy can have: how they are read, written and encoded."""

from __future__ import annotations

import re
import typing as t

from .._base.duration import allowed_durations, read_duration, write_seconds
from .._base.number import read_whole
from .._kernel.abi import PORT_PROTOCOLS

Ports = tuple[tuple[str, int, int], ...]
"""Ranges of ports: protocol, first port, last port."""

_PORTS = re.compile(rf"([0-9]{{1,5}})(?:-([0-9]{{1,5}}))?(?:/({'|'.join(PORT_PROTOCOLS)}))?")


class Kind(t.NamedTuple):
    """What a knob's values are.

    allowed: the allowed values, in words. read: text to value; raises ValueError. write: value to
    canonical text. option: type and choices in Ansible's argument spec. encode: value to number.
    """

    allowed: str
    read: t.Callable[[str], t.Any]
    write: t.Callable[[t.Any], str]
    option: dict[str, t.Any]
    encode: t.Callable[[t.Any], int] = int


def nanoseconds(time: float) -> int:
    """Seconds as the program counts them."""
    return round(time * 1_000_000_000)


def choice(choices: t.Sequence[str]) -> Kind:
    """One of some words, whose order is that of their numbers in the program."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    option = {"type": "str", "choices": list(choices)}
    return Kind(", ".join(choices), read, str, option, choices.index)


def choices(words: t.Sequence[str]) -> Kind:
    """At least one of some words; in the program, each is the bit of its number."""
    words = tuple(words)

    def read(text: str) -> tuple[str, ...]:
        chosen = text.replace(",", " ").split()
        if not chosen or not set(chosen) <= set(words):
            raise ValueError
        return tuple(word for word in words if word in chosen)

    def encode(chosen: t.Sequence[str]) -> int:
        return sum(1 << words.index(word) for word in chosen)

    option = {"type": "list", "elements": "str", "choices": list(words)}
    return Kind(f"one or more of {', '.join(words)}", read, ",".join, option, encode)


def count(minimum: int, maximum: int) -> Kind:
    """A whole number within limits."""

    def read(text: str) -> int:
        value = read_whole(text, maximum)
        if value is None or value < minimum:
            raise ValueError
        return value

    return Kind(f"a whole number from {minimum} to {maximum}", read, str, {"type": "int"})


def seconds(minimum: float, maximum: float) -> Kind:
    """A time within limits."""

    def read(text: str) -> float:
        value = read_duration(text)
        if not minimum <= value <= maximum:
            raise ValueError
        return value

    allowed = allowed_durations(minimum, maximum)
    return Kind(allowed, read, write_seconds, {"type": "str"}, nanoseconds)


def ports() -> Kind:
    """Ports and ranges of ports, with their protocols."""
    allowed = "ports and ranges from 1 to 65535, for example 8080,9000-9010,53/udp"
    return Kind(allowed, _read_ports, _write_ports, {"type": "list", "elements": "str"})


def _read_ports(text: str) -> Ports:
    """Sorted ranges without overlaps from ``8080,9000-9010,53/udp``; adjacent ranges are joined."""
    ranges: dict[str, list[tuple[int, int]]] = {protocol: [] for protocol in PORT_PROTOCOLS}
    for word in text.replace(",", " ").split():
        match = _PORTS.fullmatch(word)
        if not match:
            raise ValueError
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= 65535:
            raise ValueError
        ranges[match[3] or PORT_PROTOCOLS[0]].append((first, last))
    return tuple(
        (protocol, *joined) for protocol, found in ranges.items() for joined in _joined(found)
    )


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _write_ports(ports: Ports) -> str:
    return ",".join(
        (str(first) if first == last else f"{first}-{last}")
        + ("" if protocol == PORT_PROTOCOLS[0] else f"/{protocol}")
        for protocol, first, last in ports
    )
