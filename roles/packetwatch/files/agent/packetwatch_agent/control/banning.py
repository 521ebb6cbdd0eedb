# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bans as an operator sees and changes them, through the agent or as root without it."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._bans.bans import MAPS, Bans
from packetwatch_core._bans.facts import facts, wall
from packetwatch_core._kernel import abi
from packetwatch_core._network import protect

from . import wire

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map

Names = t.Callable[[int], str]


def listed(bans: Bans, names: Names) -> t.Iterator[dict[str, t.Any]]:
    """All bans that have not expired. Only keys are in memory meanwhile: there may be tens of thousands."""
    for table in MAPS:
        keys = b"".join(entry[0] for entry in bans.times(table))
        size = abi.SOURCE.size
        for at in range(0, len(keys), size):
            ban = bans.read(keys[at : at + size], table)
            if ban is not None and not ban.has_expired(time.monotonic_ns()):
                yield facts(ban, names)


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
    lifted = bans.lift(address)
    source = bans.source_of(address).text
    texts = ", ".join(f"{ban.source.text} ({ban.origin_name})" for ban in lifted)
    return {
        "source": source,
        "changed": bool(lifted),
        "message": f"lifted: {texts}" if lifted else f"{source} is not banned",
    }


def why(bans: Bans, address: str, names: Names) -> wire.Result:
    """The bans on an address, and why it is protected."""
    found = bans.why(address)
    return {"protected": found.protected, "bans": [facts(ban, names) for ban in found.bans]}
