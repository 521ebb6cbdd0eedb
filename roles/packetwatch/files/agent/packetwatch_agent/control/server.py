# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control socket inside the agent's loop, with limits on clients, bytes and time."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
import typing as t

from ..loop import Loop, Steps
from ..output import Output
from . import wire
from .channel import Channel
from .follow import Follow, Taps
from .requests import Command, Requests
from .rights import FLEET, READ, Peer, Rights, peer_of

# Clients at once: in all; of these, kept for peers that may do more than read; of one user; and
# those that follow a stream. The fleet process is not among them.
MAX_CLIENTS, KEPT, MAX_OF_USER, MAX_FOLLOWERS = 32, 8, 8, 8
MAX_OF_FLEET = 4
# A client that neither asks nor reads is dropped after so many seconds.
PATIENCE = 30.0
_SWEEP = 5.0


class Server:
    """Serves `commands` at `path`. Raises `OSError` if it cannot listen."""

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
        self._requests = Requests(commands, rights, output)
        self._taps = Taps(self._wake)
        self._is_passing = False
        self._clients: set[Channel] = set()
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
        try:
            is_fleet = self._admit(peer)
        except wire.ControlError as error:
            # A new socket has room for a line.
            with contextlib.suppress(OSError):
                connection.send(wire.failed(error).encode())
            connection.close()
            return
        client = Channel(connection, peer, is_fleet)
        self._clients.add(client)
        self._watch(client)

    def _admit(self, peer: Peer) -> bool:
        """Raise `ControlError` if the peer has no right or there is no room for it.

        Returns whether it takes one of the places of the fleet process.
        """
        held = self._requests.admit(peer)
        is_fleet = held == FLEET
        clients = [client for client in self._clients if client.is_fleet == is_fleet]
        of_user = sum(client.peer.uid == peer.uid for client in clients)
        most = MAX_CLIENTS - KEPT if held == READ else MAX_CLIENTS
        most_of_user = MAX_OF_USER
        if is_fleet:
            most = most_of_user = MAX_OF_FLEET
        if len(clients) >= most or of_user >= most_of_user:
            raise wire.ControlError(
                f"{len(clients)} clients are connected, {of_user} of this user "
                f"(at most {most} and {most_of_user}): end some, or try again later"
            )
        return is_fleet

    def _watch(self, client: Channel) -> None:
        is_busy = client.is_waiting
        self._loop.watch(client.socket, lambda: self._serve(client), write=is_busy)

    def _drop(self, client: Channel) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._loop.unwatch(client.socket)
        client.socket.close()
        self._tap()

    def _serve(self, client: Channel) -> None:
        """Write to a client if something waits, else read from it; then do one thing for it."""
        try:
            if client.out:
                client.write()
            elif not client.is_waiting:
                client.read()
        except BlockingIOError:
            return
        except OSError:
            client.is_gone = True
        if not (client.is_gone or client.is_last or client.out):
            self._advance(client)
        if client.is_gone or (client.is_last and not client.out):
            self._drop(client)
        else:
            self._watch(client)

    def _advance(self, client: Channel) -> None:
        """Do the next thing for a client to which nothing waits."""
        if client.items is not None:
            try:
                client.make()
            except Exception as error:
                client.items = None
                client.out += self._requests.failure(error).encode()
        elif not client.report_missed() and (line := client.next_line()) is not None:
            self._answer(client, line)

    def _answer(self, client: Channel, line: bytes) -> None:
        client.is_last = len(line) > wire.MAX_REQUEST
        try:
            answer = self._requests.answer(client.peer, line)
            if isinstance(answer, Follow):
                self._begin_to_follow(client, answer)
            elif isinstance(answer, dict):
                client.out += wire.done(answer).encode()
            else:
                client.items = answer
        except Exception as error:
            client.out += self._requests.failure(error).encode()

    # Clients that follow

    def _begin_to_follow(self, client: Channel, follow: Follow) -> None:
        watching = sum(
            client.follow is not None and not client.is_fleet for client in self._clients
        )
        if not client.is_fleet and watching >= MAX_FOLLOWERS:
            raise wire.ControlError(
                f"{MAX_FOLLOWERS} clients already watch, which is the maximum: end one of them"
            )
        client.begin_to_follow(follow)
        self._tap()

    def _follows(self) -> list[Follow]:
        return [client.follow for client in self._clients if client.follow is not None]

    def _tap(self) -> None:
        self._taps.set(self._follows() if self._open else [])

    def _wake(self) -> None:
        """Pass lines on soon."""
        if not self._is_passing:
            self._is_passing = True
            self._loop.after(0, self._pass_on)

    def _pass_on(self) -> Steps:
        """Give each client what it follows, a batch of lines in each step."""
        while queue := next(filter(None, self._taps.queues), None):
            batch = queue.take()
            for client in list(self._clients):
                follow = client.follow
                # A client may have gone since the last step.
                if client in self._clients and follow and follow.source is queue.source:
                    if client.take(*batch):
                        self._watch(client)
                    yield
        self._is_passing = False
        return None

    def _sweep(self) -> float | None:
        if not self._open:
            return None
        deadline = time.monotonic() - PATIENCE
        for client in list(self._clients):
            is_quiet = client.follow is not None and not client.out
            if not is_quiet and client.since < deadline:
                self._drop(client)
        self._requests.count_refusals()
        return _SWEEP


def _listen(path: str) -> socket.socket:
    """Listen at the path, in place of a socket that an earlier agent has left.

    Every user may connect; the server asks the kernel who it is. The mode of one file could not
    distinguish the members of two groups.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        found.bind(path)
        os.chmod(path, 0o666)
        found.listen(MAX_CLIENTS)
    except OSError:
        found.close()
        raise
    found.setblocking(False)
    return found
