# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests on the control socket: the rights that they need, their answers, and their audit lines."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.errors import PacketwatchError

from ..output import Output
from . import audit, wire
from .follow import Follow
from .rights import CHANGE, NOTHING, READ, Peer, Rights

# Refusals logged one by one between two calls of `count_refusals`.
_MAX_REFUSALS = 50
_MAX_NAME = 64
_MAX_REASON = 500

Items = t.Iterator[str]
"""The lines of a long answer, made one by one while the client reads.

An empty one is a pause: what was done since the last one took a millisecond or so.
"""
Answer = wire.Result | Items | Follow


class Command(t.NamedTuple):
    """The right that a command needs, and the function that answers it."""

    right: int
    run: t.Callable[[wire.Request], Answer]


class Requests:
    """Answers requests by the table of `commands`."""

    def __init__(self, commands: t.Mapping[str, Command], rights: Rights, output: Output) -> None:
        self._commands = commands
        self._rights = rights
        self._output = output
        self._refused = 0

    def admit(self, peer: Peer) -> int:
        """The rights of a peer; raises `ControlError` if it has none."""
        held = self._rights.of(peer)
        if held == NOTHING:
            raise self._refusal(peer, "connect", [], READ)
        return held

    def answer(self, peer: Peer, line: bytes) -> Answer:
        """Answer a request line. The outcome of a change is logged, also if it fails."""
        if len(line) > wire.MAX_REQUEST:
            raise wire.ControlError(
                f"the request is longer than {wire.MAX_REQUEST} bytes", wire.INPUT
            )
        request = wire.parse_request(line)
        name = request["command"]
        command = self._commands.get(name)
        if command is None:
            raise wire.ControlError(
                f"{name[:_MAX_NAME]!r} is not a command: write one of "
                f"{', '.join(sorted(self._commands))}",
                wire.INPUT,
            )
        is_permitted = self._rights.permit(peer, command.right)
        if is_permitted and command.right != CHANGE:
            return command.run(request)
        arguments = audit.arguments_of(request)
        if not is_permitted:
            raise self._refusal(peer, name, arguments, command.right)
        reason = str(request.get("reason") or "")[:_MAX_REASON]
        try:
            result = command.run(request)
        except (PacketwatchError, OSError) as error:
            self._audit(peer, name, arguments, error=error, reason=reason)
            raise
        message = str(result.get("message", "")) if isinstance(result, dict) else ""
        self._audit(peer, name, arguments, message=message, reason=reason)
        return result

    def failure(self, error: Exception) -> str:
        """The last line of an answer that failed. An unexpected exception is logged too."""
        if not isinstance(error, (PacketwatchError, OSError)):
            self._output.say("error", f"a request has failed: {type(error).__name__}: {error}")
        return wire.failed(error)

    def count_refusals(self) -> None:
        """Log how many refusals had no line of their own since the last call."""
        more = self._refused - _MAX_REFUSALS
        self._refused = 0
        if more > 0:
            self._output.say("warn", f"{more} more requests on the control socket were refused")

    def _refusal(
        self, peer: Peer, name: str, arguments: list[str], right: int
    ) -> wire.ControlError:
        """Make the error of a refusal. Not all are logged, because any user can cause any number of them."""
        error = wire.ControlError(self._rights.explain(right), wire.DENIED)
        self._refused += 1
        if self._refused <= _MAX_REFUSALS:
            self._audit(peer, name, arguments, error=error)
        return error

    def _audit(self, peer: Peer, name: str, arguments: list[str], **outcome: t.Any) -> None:
        self._output.write([audit.line(self._output.host, peer, name, arguments, **outcome)])
