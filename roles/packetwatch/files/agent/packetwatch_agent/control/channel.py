# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client's connection to the control socket: buffers of a bounded size in both directions."""

from __future__ import annotations

import socket
import time
import typing as t

from . import wire
from .follow import Follow
from .requests import Items
from .rights import Peer

# Bytes that wait for a client; a client that follows misses the lines beyond them.
MAX_WAITING = 131072
# Bytes of a long answer that are made in one turn of the loop, and that are read or sent at once.
PIECE, MAX_SENT = 16384, 65536


class Channel:
    """What was read of requests, and what waits to be written."""

    def __init__(self, connection: socket.socket, peer: Peer, is_fleet: bool = False) -> None:
        self.socket = connection
        self.peer = peer
        self.is_fleet = is_fleet
        """Whether this is the fleet process, which has places of its own."""
        self.out = bytearray()
        self.items: Items | None = None
        self.follow: Follow | None = None
        self.since = time.monotonic()
        """When the client last sent or read something, or should have begun to read."""
        self.is_gone = False
        self.is_last = False
        """Whether the connection ends after what waits."""
        self._missed = 0
        self._in = bytearray()

    @property
    def is_waiting(self) -> bool:
        """Whether the client waits for more of an answer."""
        return bool(self.out or self._missed or self.items is not None)

    def read(self) -> None:
        """Read requests; whatever a client sends that follows is ignored."""
        data = self.socket.recv(MAX_SENT)
        self.since = time.monotonic()
        self.is_gone = not data
        self._in += data if self.follow is None else b""

    def write(self) -> None:
        sent = self.socket.send(memoryview(self.out)[:MAX_SENT])
        del self.out[:sent]
        self.since = time.monotonic()

    def next_line(self) -> bytes | None:
        """The next request, or as much as was read of one that is too long; None: not yet."""
        end = self._in.find(b"\n") + 1
        if not end and len(self._in) <= wire.MAX_REQUEST:
            return None
        line = bytes(self._in[: end or None])
        del self._in[: len(line)]
        return line

    def begin_to_follow(self, follow: Follow) -> None:
        self.follow = follow
        self._in.clear()
        self.out += b'{"item":null}\n'

    def make(self) -> None:
        """Queue the next piece of a long answer."""
        assert self.items is not None
        was_empty = not self.out
        for text in self.items:
            self.out += text.encode()
            if not text or len(self.out) >= PIECE:
                break
        else:
            self.items = None
        if was_empty:
            self.since = time.monotonic()

    def take(self, lines: t.Sequence[str], missed: int) -> bool:
        """Queue the lines that the client follows; return whether anything waits for it.

        missed: number of lines after these that nobody can have.
        """
        assert self.follow is not None
        was_empty = not self.out
        for line in lines:
            if not self.follow.matches(line):
                continue
            if len(self.out) >= MAX_WAITING:
                self._missed += 1
                continue
            self.report_missed()
            self.out += b'{"item":' + line.encode(errors="replace") + b"}\n"
        self._missed += missed
        if was_empty and self.out:
            self.since = time.monotonic()
        return bool(self.out or self._missed)

    def report_missed(self) -> bool:
        """Queue how many lines found no room since the last report; return whether any did."""
        missed, self._missed = self._missed, 0
        if missed:
            self.out += wire.encode({"missed": missed}).encode() + b"\n"
        return bool(missed)
