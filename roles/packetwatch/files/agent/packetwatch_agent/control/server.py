# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control socket, inside the agent's loop: bounded in clients, in bytes and in time."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
import typing as t

from packetwatch_core._base.errors import PacketwatchError

from ..loop import Loop
from ..output import Output
from . import audit, wire
from .rights import CHANGE, NOTHING, READ, Peer, Rights, peer_of

# Clients at once: in all, of which some places are kept for those who may change; of one user; and
# those that follow events.
CLIENTS, KEPT, OF_ONE_USER, FOLLOWERS = 32, 8, 8, 8
# Bytes that wait for a client; of those that follow, lines beyond them are missed.
WAITING = 131072
# Seconds until a client is dropped that neither asks nor reads.
PATIENCE = 30.0
_PIECE = 65536
_SWEEP = 5.0
# Refusals that are told one by one between two sweeps.
_TOLD = 50

Items = t.Iterator[str]
Handler = t.Callable[[wire.Request], wire.Result | Items]


class Command(t.NamedTuple):
    """A right, and what is done: the result, or its lines one by one."""

    level: int
    run: Handler


class Follow(t.NamedTuple):
    """Which of the agent's lines a client wants: all that contain one of each set of texts."""

    wanted: tuple[tuple[str, ...], ...]

    def matches(self, line: str) -> bool:
        return all(any(text in line for text in texts) for texts in self.wanted)


class Server:
    """Answers `commands`, and ``watch`` by itself. Raises `OSError` if it cannot listen."""

    def __init__(
        self,
        loop: Loop,
        path: str,
        rights: Rights,
        commands: t.Mapping[str, Command],
        output: Output,
    ) -> None:
        self._loop = loop
        self._path = path
        self._rights = rights
        self._commands = commands
        self._output = output
        self._clients: set[_Client] = set()
        self._refused = 0
        self._socket = _listen(path)
        loop.watch(self._socket, self._accept)
        loop.after(_SWEEP, self._sweep)
        self._open = True

    def close(self) -> None:
        self._open = False
        for client in list(self._clients):
            self._drop(client)
        self._loop.unwatch(self._socket)
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    # Clients

    def _accept(self) -> None:
        try:
            connection, dummy = self._socket.accept()
        except OSError:
            return
        connection.setblocking(False)
        try:
            peer = peer_of(connection)
        except OSError:
            connection.close()
            return
        problem = self._problem(peer)
        if problem:
            # A fresh socket has room for a line.
            with contextlib.suppress(OSError):
                connection.send(wire.failed(problem).encode())
            connection.close()
            return
        client = _Client(connection, peer)
        self._clients.add(client)
        self._watch(client)

    def _problem(self, peer: Peer) -> wire.ControlError | None:
        """Why a peer is not served."""
        level = self._rights.of(peer)
        if level == NOTHING:
            error = wire.ControlError(self._rights.explain(READ), wire.DENIED)
            self._tell_refusal(peer, "connect", [], error)
            return error
        of_one = sum(client.peer.uid == peer.uid for client in self._clients)
        most = CLIENTS if level == CHANGE else CLIENTS - KEPT
        if len(self._clients) >= most or of_one >= OF_ONE_USER:
            return wire.ControlError(
                f"{len(self._clients)} clients are connected, {of_one} of this user "
                f"(at most {most} and {OF_ONE_USER}): end some, or try again later"
            )
        return None

    def _watch(self, client: _Client) -> None:
        self._loop.watch(client.socket, lambda: self._serve(client), write=bool(client.out))

    def _drop(self, client: _Client) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._loop.unwatch(client.socket)
        client.socket.close()
        self._follow_or_not()

    def _serve(self, client: _Client) -> None:
        """Go on with a client that can be read, or written to while something waits for it."""
        try:
            if client.out:
                client.write()
            else:
                client.read()
        except BlockingIOError:
            return
        except OSError:
            client.is_gone = True
        while not client.is_gone and not client.out:
            if client.items is not None:
                self._go_on(client)
                continue
            if client.missed:
                client.tell_missed()
                continue
            line = client.next_line()
            if line is None:
                break
            self._answer(client, line)
        if client.is_gone or (client.is_last and not client.out):
            self._drop(client)
        else:
            self._watch(client)

    def _go_on(self, client: _Client) -> None:
        """Put the next piece of a long answer where it waits to be sent."""
        assert client.items is not None
        try:
            for text in client.items:
                client.out += text.encode()
                if len(client.out) >= _PIECE:
                    return
            client.items = None
        except Exception as error:
            client.items = None
            client.out += self._failure(error).encode()

    # Requests

    def _answer(self, client: _Client, line: bytes) -> None:
        if client.follow is not None:
            return
        try:
            if len(line) > wire.LONGEST_REQUEST:
                client.is_last = True
                raise wire.ControlError(
                    f"the request is longer than {wire.LONGEST_REQUEST} bytes", wire.INPUT
                )
            request = wire.parse_request(line)
            if request["command"] == "watch":
                self._begin_to_follow(client, request)
                return
            result = self._run(client.peer, request)
        except Exception as error:
            client.out += self._failure(error).encode()
            return
        if isinstance(result, dict):
            client.out += wire.done(result).encode()
        else:
            client.items = result

    def _run(self, peer: Peer, request: wire.Request) -> wire.Result | Items:
        """Do what is asked for, if the peer may; a change is told whatever comes of it."""
        name = request["command"]
        command = self._commands.get(name)
        if command is None:
            known = ", ".join(sorted((*self._commands, "watch")))
            raise wire.ControlError(f"{name[:64]!r} is no command here: {known}", wire.INPUT)
        arguments = audit.arguments_of(request)
        if self._rights.of(peer) < command.level:
            error = wire.ControlError(self._rights.explain(command.level), wire.DENIED)
            self._tell_refusal(peer, name, arguments, error)
            raise error
        if command.level < CHANGE:
            return command.run(request)
        reason = str(request.get("reason") or "")[:500]
        try:
            result = command.run(request)
        except (PacketwatchError, OSError) as error:
            self._audit(peer, name, arguments, error=error, reason=reason)
            raise
        message = str(result.get("message", "")) if isinstance(result, dict) else ""
        self._audit(peer, name, arguments, message=message, reason=reason)
        return result

    def _failure(self, error: Exception) -> str:
        """What the client is told; a fault of ours does not end the agent, but is logged."""
        if not isinstance(error, (PacketwatchError, OSError)):
            self._output.say("error", f"a request has failed: {type(error).__name__}: {error}")
        return wire.failed(error)

    def _audit(self, peer: Peer, name: str, arguments: list[str], **outcome: t.Any) -> None:
        self._output.write([audit.line(self._output.host, peer, name, arguments, **outcome)])

    def _tell_refusal(
        self, peer: Peer, name: str, arguments: list[str], error: BaseException
    ) -> None:
        """Anybody on the host can be refused as often as they like."""
        self._refused += 1
        if self._refused <= _TOLD:
            self._audit(peer, name, arguments, error=error)

    # Those that follow

    def _begin_to_follow(self, client: _Client, request: wire.Request) -> None:
        if sum(other.follow is not None for other in self._clients) >= FOLLOWERS:
            raise wire.ControlError(f"{FOLLOWERS} clients follow already: end one")
        actions = wire.texts_of(request, "actions")
        sources = wire.texts_of(request, "sources")
        wanted = (
            tuple(f'"event.action":{wire.encode(action)}' for action in actions),
            tuple(f'"source.ip":{wire.encode(source)}' for source in sources),
        )
        client.follow = Follow(tuple(texts for texts in wanted if texts))
        client.out += b'{"item":null}\n'
        self._follow_or_not()

    def _follow_or_not(self) -> None:
        if self._open:
            followed = any(client.follow is not None for client in self._clients)
            self._output.tap = self._pass_on if followed else None
        else:
            self._output.tap = None

    def _pass_on(self, lines: t.Sequence[str]) -> None:
        for client in self._clients:
            if client.follow is not None and client.take(lines):
                self._watch(client)

    def _sweep(self) -> float | None:
        if not self._open:
            return None
        deadline = time.monotonic() - PATIENCE
        for client in list(self._clients):
            quiet = client.follow is not None and not client.out
            if not quiet and client.since < deadline:
                self._drop(client)
        more = self._refused - _TOLD
        self._refused = 0
        if more > 0:
            self._output.say("warn", f"{more} more requests on the control socket were refused")
        return _SWEEP


class _Client:
    """A connection: what was read of requests, and what waits to be written."""

    def __init__(self, connection: socket.socket, peer: Peer) -> None:
        self.socket = connection
        self.peer = peer
        self.out = bytearray()
        self.items: Items | None = None
        self.follow: Follow | None = None
        self.missed = 0
        self.since = time.monotonic()
        self.is_gone = False
        self.is_last = False
        self._in = bytearray()

    def read(self) -> None:
        data = self.socket.recv(_PIECE)
        self.since = time.monotonic()
        self.is_gone = not data
        self._in += data if self.follow is None else b""

    def write(self) -> None:
        sent = self.socket.send(memoryview(self.out)[:_PIECE])
        del self.out[:sent]
        self.since = time.monotonic()

    def next_line(self) -> bytes | None:
        """The next request, or what is too long for one; None: it is not whole yet."""
        end = self._in.find(b"\n") + 1
        if not end and len(self._in) <= wire.LONGEST_REQUEST:
            return None
        line = bytes(self._in[: end or None])
        del self._in[: len(line)]
        return line

    def take(self, lines: t.Sequence[str]) -> bool:
        """Let the lines that the client follows wait for it; returns whether any does."""
        assert self.follow is not None
        idle = not self.out
        for line in lines:
            if not self.follow.matches(line):
                continue
            if len(self.out) >= WAITING:
                self.missed += 1
                continue
            if self.missed:
                self.tell_missed()
            self.out += b'{"item":' + line.encode(errors="replace") + b"}\n"
        if idle and self.out:
            self.since = time.monotonic()
        return bool(self.out)

    def tell_missed(self) -> None:
        """How many lines found no room."""
        self.out += wire.encode({"missed": self.missed}).encode() + b"\n"
        self.missed = 0


def _listen(path: str) -> socket.socket:
    """A socket at the path, in the place of one that a former agent has left.

    Everybody may connect, and is asked who they are: the members of two groups cannot be told by
    the modes of one file.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        found.bind(path)
        os.chmod(path, 0o666)
        found.listen(CLIENTS)
    except OSError:
        found.close()
        raise
    found.setblocking(False)
    return found
