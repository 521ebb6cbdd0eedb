# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's end of the sockets: asks the agent, or asks for an edit.

The agent may be taken over. So a client waits only so long for an answer, reads only so much of it, and
believes it only if it has the shape that `answers` describes.
"""

from __future__ import annotations

import json
import socket
import time
import typing as t

from . import answers, wire

_PIECE = 65536
# Bytes of a line, and of all lines of an answer: full tables of bans are 10 MB. An edit shows its diff.
_MAX_LINE, _MAX_ANSWER, _MAX_EDIT = 1 << 20, 1 << 26, 1 << 24
# Seconds for an answer, and for a long one, which the agent makes while others ask it too. An edit of a
# million entries, or the wait for another writer, takes minutes.
ANSWER, LONG_ANSWER, EDIT = 10.0, 60.0, 300.0


class Connection:
    """One connection to a socket; a context manager. `remedy` is part of errors without an answer.

    patience: seconds for an answer. limit: bytes of a line.
    """

    def __init__(
        self, path: str, remedy: str, patience: float = ANSWER, limit: int = _MAX_LINE
    ) -> None:
        self._path = path
        self._remedy = remedy
        self._patience = patience
        self._limit = limit
        self._deadline: float | None = None
        self._data = bytearray()
        self._received = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(patience)
        try:
            self._socket.connect(path)
        except PermissionError as error:
            self._socket.close()
            raise wire.ControlError(f"{path}: not permitted: {remedy}", wire.DENIED) from error
        except OSError as error:
            self._socket.close()
            raise self._broken(error.strerror or str(error)) from error

    @classmethod
    def for_edit(cls, path: str, remedy: str) -> Connection:
        """A connection to the one-shot that edits."""
        return cls(path, remedy, EDIT, _MAX_EDIT)

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *dummy: object) -> None:
        self._socket.close()

    def wait(self, seconds: float | None) -> None:
        """Limit the time in which all lines must come from now on. None: no limit, but for a line that has begun."""
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._received = 0

    def send(self, command: str, **arguments: t.Any) -> None:
        request = {name: value for name, value in arguments.items() if value is not None}
        line = wire.encode({"command": command} | request) + "\n"
        try:
            self._socket.settimeout(self._patience)
            self._socket.sendall(line.encode())
        except OSError:
            # A server that refuses a client has sent the reason, which `receive` returns.
            pass

    def receive(self) -> dict[str, t.Any]:
        """The next object; `TimeoutError` if it is not there in time, `ControlError` if it is none."""
        line = self._line()
        try:
            answer = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise self._broken(f"the answer is not JSON: {line[:80]!r}") from None
        if not isinstance(answer, dict):
            raise self._broken(f"the answer is not an object: {line[:80]!r}")
        return answer

    def _line(self) -> bytes:
        deadline = self._deadline
        if deadline is not None:
            deadline = min(deadline, time.monotonic() + self._patience)
        end = self._data.find(b"\n")
        while end < 0:
            if deadline is None and self._data:
                deadline = time.monotonic() + self._patience
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            size = len(self._data)
            self._data += self._piece(left)
            end = self._data.find(b"\n", size)
            if (size if end < 0 else end) > self._limit:
                raise self._broken(f"a line of the answer is longer than {self._limit} bytes")
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        return line

    def _piece(self, seconds: float | None) -> bytes:
        self._socket.settimeout(seconds)
        try:
            piece = self._socket.recv(_PIECE)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._broken(str(error.strerror)) from error
        if not piece:
            raise self._broken("the connection has ended")
        self._received += len(piece)
        if self._deadline is not None and self._received > _MAX_ANSWER:
            raise self._broken(f"the answer is longer than {_MAX_ANSWER} bytes")
        return piece

    def _broken(self, what: str) -> wire.ControlError:
        return wire.ControlError(f"{self._path}: {what}: {self._remedy}", wire.NO_AGENT)

    def ask(self, command: str, **arguments: t.Any) -> wire.Result:
        """The result; raises `ControlError` with the error that the server sends."""
        self.wait(self._patience)
        self.send(command, **arguments)
        answer = self._answer(self._patience, "result")
        result: wire.Result = self._checked(answers.RESULTS[command], command, answer.get("result"))
        return result

    def items(self, command: str, **arguments: t.Any) -> t.Iterator[t.Any]:
        """The items of a long answer."""
        self.wait(LONG_ANSWER)
        self.send(command, **arguments)
        while "item" in (answer := self._answer(LONG_ANSWER, "item", "result")):
            yield self._checked(answers.ITEMS[command], command, answer["item"])

    def follow(self, command: str, **arguments: t.Any) -> t.Iterator[wire.Result | int]:
        """Lines as they are written, and numbers of lines that were missed. The first one is empty: it begins."""
        self.wait(self._patience)
        self.send(command, **arguments)
        while True:
            answer = self._answer(self._patience, "item", "missed")
            self.wait(None)
            if "missed" in answer:
                yield self._checked(answers.count, command, answer["missed"])
            else:
                yield self._checked(answers.EVENT, command, answer["item"] or {})

    def _checked(self, shape: answers.Shape, command: str, value: t.Any) -> t.Any:
        try:
            return shape(value)
        except answers.Misfit as misfit:
            raise self._broken(f"the answer to {command} is not understood: {misfit}") from None

    def _answer(self, seconds: float, *wanted: str) -> dict[str, t.Any]:
        """The next answer, which must have one of these; raises `ControlError` with the server's error."""
        try:
            answer = self.receive()
        except TimeoutError:
            raise self._broken(f"no whole answer within {seconds:g} s") from None
        if answer.get("ok") is False:
            raise wire.error_of(answer)
        if not any(part in answer for part in wanted):
            raise self._broken(f"the answer is not understood: {answers.Misfit(answer)}")
        return answer


def _refuse(name: str) -> t.NoReturn:
    """Refuse NaN and infinite numbers, which JSON does not have."""
    raise ValueError(name)
