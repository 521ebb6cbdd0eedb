# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A log line for each change, also if it is refused: which token, from where, what, with what result."""

from __future__ import annotations

import time
import typing as t

from packetwatch_agent.output import ECS_VERSION, Output, Value, encode, timestamp

_MAX_ARGUMENT = 200
# Reasons and comments have a field of their own.
_REASONS = ("reason", "comment")


class Audit:
    """Writes lines in the form of the agent's (docs/events.md)."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def write(
        self,
        command: str,
        arguments: t.Mapping[str, t.Any],
        *,
        user: str,
        address: str,
        status: int,
        message: str,
        revision: int = 0,
    ) -> None:
        reason = next((str(arguments[name]) for name in _REASONS if arguments.get(name)), None)
        words = [
            f"{name}={value}"[:_MAX_ARGUMENT]
            for name, value in arguments.items()
            if value is not None and name not in _REASONS
        ]
        fields: dict[str, Value] = {
            "@timestamp": timestamp(time.time_ns()),
            "ecs.version": ECS_VERSION,
            "event.action": "audit",
            "event.kind": "event",
            "event.category": ["configuration"],
            "event.type": ["change"],
            "event.outcome": "failure" if message else "success",
            "event.reason": reason,
            "host.name": self._output.host,
            "user.name": user or None,
            "client.ip": address or None,
            "http.response.status_code": status,
            "packetwatch.command": command,
            "packetwatch.arguments": words or None,
            "packetwatch.revision": revision or None,
            "message": message,
        }
        self._output.write([encode(fields)])
