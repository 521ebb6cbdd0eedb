# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's control socket, as work in steps. docs/fleet-protocol.md is the contract."""

from __future__ import annotations

import json
import math
import os
import socket
import time
import typing as t

from packetwatch_core._base.errors import PacketwatchError

from ..store.backoff import Backoff
from ..store.waits import Wait, Waiting

# Seconds for an answer. A long one is made while other clients are served.
PATIENCE = 30.0
_PIECE, _MAX_LINE = 65536, 1 << 20


class AgentLost(PacketwatchError):
    """The agent does not answer, or refuses. The bans in the kernel stay as they are."""


def follow(
    path: str, work: t.Callable[[Talk], Waiting[None]], lose: t.Callable[[AgentLost], None]
) -> Waiting[t.NoReturn]:
    """Do work that never returns, on one connection after the other. lose: called when one has ended."""
    backoff = Backoff()
    while True:
        backoff.begin()
        try:
            talk = Talk(path)
            try:
                yield from work(talk)
            finally:
                talk.close()
        except AgentLost as error:
            lose(error)
            yield Wait(None, False, time.monotonic() + backoff.pause())


class Talk:
    """One connection to the agent."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._data = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        try:
            # A socket of this kind connects at once or not at all.
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise AgentLost(f"{path}: {error.strerror or error}") from None

    def close(self) -> None:
        self._socket.close()

    def send(self, command: str, **arguments: t.Any) -> Waiting[None]:
        line = json.dumps({"command": command} | arguments, separators=(",", ":")) + "\n"
        view = memoryview(line.encode())
        until = time.monotonic() + PATIENCE
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                yield from self._ready(True, until)
            except OSError as error:
                raise AgentLost(f"{self._path}: {os.strerror(error.errno or 0)}") from None

    def ask(
        self, take: t.Callable[[t.Any], None], command: str, **arguments: t.Any
    ) -> Waiting[dict[str, t.Any]]:
        """The result of a command; take: gets each item of the answer."""
        yield from self.send(command, **arguments)
        while True:
            answer = yield from self.line(time.monotonic() + PATIENCE)
            if "item" in answer:
                take(answer["item"])
            elif "result" in answer:
                result = answer["result"]
                return result if isinstance(result, dict) else {}

    def line(self, until: float = math.inf) -> Waiting[dict[str, t.Any]]:
        """The next object; raises `AgentLost`, also for an error that the agent sends."""
        return self.checked((yield from self.text(until)))

    def checked(self, line: bytes) -> dict[str, t.Any]:
        """The object in a line; raises `AgentLost`, also for an error that the agent sends."""
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise AgentLost(f"{self._path}: not an object: {line[:80]!r}")
        if found.get("ok") is False:
            error = found.get("error")
            text = error.get("message") if isinstance(error, dict) else error
            raise AgentLost(f"the agent refuses: {str(text)[:500]}")
        return found

    def text(self, until: float = math.inf) -> Waiting[bytes]:
        """The next line as it is."""
        while (end := self._data.find(b"\n")) < 0:
            if len(self._data) > _MAX_LINE:
                raise AgentLost(f"{self._path}: a line has more than {_MAX_LINE} bytes")
            self._data += yield from self._receive(until)
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        return line

    def _receive(self, until: float) -> Waiting[bytes]:
        while True:
            try:
                data = self._socket.recv(_PIECE)
            except BlockingIOError:
                yield from self._ready(False, until)
                continue
            except OSError as error:
                raise AgentLost(f"{self._path}: {os.strerror(error.errno or 0)}") from None
            if not data:
                raise AgentLost(f"{self._path}: the agent has ended the connection")
            return data

    def _ready(self, write: bool, until: float) -> Waiting[None]:
        if not (yield Wait(self._socket, write, until)) and time.monotonic() >= until:
            raise AgentLost(f"{self._path}: no answer in time")
