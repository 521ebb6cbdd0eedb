# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""A ban as results, reports and the control socket show it."""

from __future__ import annotations

import socket
import time
import typing as t

from .._base.interface import text_from_system
from .._kernel import abi

if t.TYPE_CHECKING:
    from .bans import Ban

# The evidence for a ban by this host. A SYN does not prove its sender: it can be forged. A source that has a
# connection with this host has proved its address.
EVIDENCE = {"scan": "syn", "manual": "manual"}
FLEET_EVIDENCE = {"syn": abi.BAN_CONNECTIONS, "answer": abi.BAN_ANSWER, "manual": 0}
"""The flags of a fleet ban, by what it rests on. Whoever forges SYNs must not cut connections that exist."""
_SECOND = 1_000_000_000


def facts(ban: Ban, names: t.Callable[[int], str]) -> dict[str, t.Any]:
    """Return a ban as a dictionary: times in Unix seconds; `until` is None if it does not expire.

    names: returns an interface's name for its index.
    """
    offset = time.time_ns() - time.monotonic_ns()
    return {
        "source": ban.source.text,
        "origin": ban.origin_name,
        "kind": ban.kind,
        "evidence": evidence_of(ban),
        "since": wall(ban.since, offset),
        "until": wall(ban.expires, offset),
        "ports": ban.ports,
        "dropped": ban.dropped,
        "interface": names(ban.ifindex) if ban.ifindex else "",
        "short": bool(ban.flags & abi.BAN_OVERFLOW),
    }


def evidence_of(ban: Ban) -> str:
    """Return what a ban rests on: syn, answer or manual."""
    if ban.origin == abi.ORIGIN_FLEET:
        found = (name for name, flag in FLEET_EVIDENCE.items() if ban.flags & flag)
        return next(found, "manual")
    if ban.origin == abi.ORIGIN_SCAN and ban.flags & abi.BAN_ANSWER:
        return "answer"
    return EVIDENCE.get(ban.origin_name, "unknown")


def wall(monotonic: int, offset: int) -> float | None:
    """Return CLOCK_MONOTONIC nanoseconds as Unix seconds; None for 0.

    offset: wall clock minus CLOCK_MONOTONIC, in nanoseconds.
    """
    return round((monotonic + offset) / _SECOND, 3) if monotonic else None


def name_of(ifindex: int) -> str:
    """Return the name of an interface; empty if it has disappeared."""
    try:
        return text_from_system(socket.if_indextoname(ifindex))
    except OSError:
        return ""
