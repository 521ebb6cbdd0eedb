# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client's end of the sockets: asks the agent, or asks for an edit."""

from __future__ import annotations

import json
import socket
import typing as t

from . import wire

_PIECE = 65536
# A broken agent must not fill our memory; no line of an answer is as long.
_MAX_LINE = 1 << 24
# The agent needs a second to read 16,384 bans for another client. An edit of a million entries, or
# the wait for another writer, takes minutes.
ANSWER = 15.0
EDIT = 300.0


class Connection:
    """One connection to a socket; a context manager. `remedy` is part of errors without an answer."""

    def __init__(self, path: str, remedy: str, patience: float = ANSWER) -> None:
        self._path = path
        self._remedy = remedy
        self._data = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(patience)
        try:
            self._socket.connect(path)
        except PermissionError as error:
            self._socket.close()
            raise wire.ControlError(f"{path}: not permitted: {remedy}", wire.DENIED) from error
        except OSError as error:
            self._socket.close()
            raise wire.ControlError(f"{path}: {error.strerror}: {remedy}", wire.NO_AGENT) from error

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *dummy: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def wait(self, seconds: float | None) -> None:
        """Limit the time that `receive` waits for a line; None: no limit."""
        self._socket.settimeout(seconds)

    def send(self, command: str, **arguments: t.Any) -> None:
        request = {name: value for name, value in arguments.items() if value is not None}
        line = wire.encode({"command": command} | request) + "\n"
        try:
            self._socket.sendall(line.encode())
        except OSError:
            # A server that refuses a client has sent the reason, which `receive` returns.
            pass

    def receive(self) -> dict[str, t.Any]:
        """The next object; `TimeoutError` if none comes in time."""
        while b"\n" not in self._data:
            try:
                piece = self._socket.recv(_PIECE)
            except TimeoutError:
                raise
            except OSError as error:
                raise self._broken(str(error.strerror)) from error
            if not piece:
                raise self._broken("the connection has ended")
            self._data += piece
            if len(self._data) > _MAX_LINE:
                raise self._broken(f"the answer is longer than {_MAX_LINE} bytes")
        line, dummy, self._data = self._data.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            raise self._broken(f"the answer is not JSON: {line[:80]!r}") from None
        if not isinstance(answer, dict):
            raise self._broken(f"the answer is not an object: {line[:80]!r}")
        return answer

    def _broken(self, what: str) -> wire.ControlError:
        return wire.ControlError(f"{self._path}: {what}: {self._remedy}", wire.NO_AGENT)

    def ask(self, command: str, **arguments: t.Any) -> wire.Result:
        """The result; raises `ControlError` with the error that the server sends."""
        self.send(command, **arguments)
        answer = self._answer()
        while "item" in answer:
            answer = self._answer()
        result = answer["result"]
        return result if isinstance(result, dict) else {}

    def items(self, command: str, **arguments: t.Any) -> t.Iterator[t.Any]:
        """The items of a long answer."""
        self.send(command, **arguments)
        while "item" in (answer := self._answer()):
            yield answer["item"]

    def _answer(self) -> dict[str, t.Any]:
        try:
            answer = self.receive()
        except TimeoutError:
            raise self._broken(f"no answer within {self._socket.gettimeout():g} s") from None
        if answer.get("ok") is False:
            raise wire.error_of(answer)
        if "item" not in answer and not answer.get("ok"):
            raise self._broken(f"the answer has neither ok nor item: {str(answer)[:80]}")
        return answer
