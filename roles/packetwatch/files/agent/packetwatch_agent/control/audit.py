# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A log line for each change by an operator, also if it fails: who, what, with what result."""

from __future__ import annotations

import time
import typing as t

from ..output import ECS_VERSION, Value, encode, timestamp
from . import wire
from .rights import Peer, user_name


def line(
    host: str,
    peer: Peer,
    command: str,
    arguments: t.Sequence[str] = (),
    *,
    error: BaseException | None = None,
    message: str = "",
    reason: str = "",
) -> str:
    """A JSON line with ECS names (docs/events.md)."""
    fields: dict[str, Value] = {
        "@timestamp": timestamp(time.time_ns()),
        "ecs.version": ECS_VERSION,
        "event.action": "audit",
        "event.kind": "event",
        "event.category": ["configuration"],
        "event.type": ["change"],
        "event.outcome": "failure" if error else "success",
        "event.reason": reason or None,
        "host.name": host,
        "user.id": str(peer.uid),
        "user.name": user_name(peer.uid) or None,
        "process.pid": peer.pid or None,
        "packetwatch.command": command,
        "packetwatch.arguments": list(arguments) or None,
        "message": str(error) if error else message,
    }
    return wire.in_utf8(encode(fields))


def arguments_of(request: t.Mapping[str, t.Any]) -> list[str]:
    """The arguments of a request as words; the reason has a field of its own."""
    words: list[str] = []
    for name, value in request.items():
        if name in ("command", "reason") or value in (None, False, "", []):
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"{name}={one}"[:200] for one in values[:50]]
    return words
