# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bans as an operator sees and changes them, through the agent or as root without it."""

from __future__ import annotations

import heapq
import itertools
import operator
import time
import typing as t

from packetwatch_core._bans.bans import MAPS, Ban, Bans
from packetwatch_core._bans.facts import facts, wall
from packetwatch_core._base.steps import Steps
from packetwatch_core._kernel import abi
from packetwatch_core._network import protect

from . import wire

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map

Names = t.Callable[[int], str]
# Entries of a map that are read in about a millisecond.
STEP = 256


def listed(bans: Bans, names: Names) -> t.Iterator[dict[str, t.Any] | None]:
    """All bans that have not expired, and None after each millisecond or so without one.

    Only keys are in memory meanwhile: there may be tens of thousands.
    """
    for table in MAPS:
        keys = bytearray()
        for number, (key, *dummy) in enumerate(bans.times(table), 1):
            keys += key
            if not number % STEP:
                yield None
        size = abi.SOURCE.size
        for at in range(0, len(keys), size):
            ban = bans.read(bytes(keys[at : at + size]), table)
            if ban is not None and not ban.has_expired(time.monotonic_ns()):
                yield facts(ban, names)
            elif not at // size % STEP:
                yield None


def most_dropped(bans: Bans, most: int) -> Steps[list[dict[str, t.Any]]]:
    """The bans that have dropped most packets."""
    found: list[Ban] = []
    walk = bans.walk()
    while some := list(itertools.islice(walk, STEP)):
        found = heapq.nlargest(most, found + some, key=operator.attrgetter("dropped"))
        yield
    return [
        {"source": ban.source.text, "origin": ban.origin_name, "dropped": ban.dropped}
        for ban in found
        if ban.dropped
    ]


def protected(maps: t.Mapping[str, Map]) -> t.Iterator[dict[str, t.Any]]:
    """Protected prefixes, why, and until when in UTC seconds; None: until the reason is gone."""
    offset = time.time_ns() - time.monotonic_ns()
    for item in protect.listed(maps):
        until = wall(item.expires, offset)
        yield {"prefix": item.prefix, "reason": item.reason, "until": until}


def impose(bans: Bans, address: str, seconds: float | None) -> wire.Result:
    """Ban a source; raises what `Bans.add` raises."""
    ban, is_new = bans.add(address, seconds)
    length = "until it is lifted" if seconds is None else f"for {seconds:g} s"
    again = "" if is_new else ", again"
    return {
        "source": ban.source.text,
        "changed": True,
        "message": f"{ban.source.text} is banned {length}{again}",
    }


def lift(bans: Bans, address: str) -> wire.Result:
    """Lift all bans of a source."""
    return lifted(bans, address, bans.lift(address))


def lifted(bans: Bans, address: str, found: t.Sequence[Ban]) -> wire.Result:
    """The result for a source whose bans were lifted."""
    source = bans.source_of(address).text
    texts = ", ".join(f"{ban.source.text} ({ban.origin_name})" for ban in found)
    return {
        "source": source,
        "changed": bool(found),
        "message": f"lifted: {texts}" if found else f"{source} is not banned",
    }


def why(bans: Bans, address: str, names: Names) -> wire.Result:
    """The bans on an address, and why it is protected."""
    found = bans.why(address)
    return {"protected": found.protected, "bans": [facts(ban, names) for ban in found.bans]}
