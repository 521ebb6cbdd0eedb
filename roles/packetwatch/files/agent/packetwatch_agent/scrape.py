# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""As much of an HTTP server as Prometheus needs, inside the agent's loop."""

from __future__ import annotations

import socket
import time
import typing as t

from .loop import Loop
from .metrics import CONTENT_TYPE

_MAX_CLIENTS = 16
_MAX_REQUEST = 8192
_PATIENCE = 10.0
_SWEEP = 5.0
_IP_FREEBIND = 15


class Server:
    """Answers GET /metrics with what `page` returns; every answer closes its connection."""

    def __init__(self, loop: Loop, listen: tuple[str, int], page: t.Callable[[], str]) -> None:
        self._loop = loop
        self._page = page
        self._clients: dict[_Client, None] = {}
        """All connections, the oldest first."""
        family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The host may get the address later; the agent must not wait for the network.
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        try:
            self._socket.bind(listen)
            self._socket.listen(_MAX_CLIENTS)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        loop.watch(self._socket, self._accept)
        loop.after(_SWEEP, self._sweep)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port of the listening socket."""
        host, port, *dummy = self._socket.getsockname()
        return host, port

    def close(self) -> None:
        for client in list(self._clients):
            self._drop(client)
        self._loop.unwatch(self._socket)
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, dummy = self._socket.accept()
        except OSError:
            return
        if len(self._clients) >= _MAX_CLIENTS:
            # Prometheus must not wait for clients that only hold a connection.
            self._drop(next(iter(self._clients)))
        connection.setblocking(False)
        client = _Client(connection)
        self._clients[client] = None
        self._loop.watch(connection, lambda: self._serve(client))

    def _serve(self, client: _Client) -> None:
        """Read more of the request, or write more of the answer."""
        try:
            if client.answer is None:
                client.read()
                if client.is_complete:
                    client.answer = memoryview(answer(client.request, self._page))
                    self._loop.watch(client.socket, lambda: self._serve(client), write=True)
            else:
                client.answer = client.answer[client.socket.send(client.answer) :]
        except BlockingIOError:
            return
        except OSError:
            client.is_gone = True
        if client.is_gone or (client.answer is not None and not client.answer):
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client]
        self._loop.unwatch(client.socket)
        client.socket.close()

    def _sweep(self) -> float:
        deadline = time.monotonic() - _PATIENCE
        for client in [client for client in self._clients if client.since < deadline]:
            self._drop(client)
        return _SWEEP


class _Client:
    """A connection: first the request grows, then the answer shrinks."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.request = b""
        self.answer: memoryview | None = None
        self.since = time.monotonic()
        self.is_gone = False

    @property
    def is_complete(self) -> bool:
        return b"\r\n\r\n" in self.request or len(self.request) > _MAX_REQUEST

    def read(self) -> None:
        data = self.socket.recv(_MAX_REQUEST)
        self.request += data
        self.is_gone = not data


def answer(request: bytes, page: t.Callable[[], str]) -> bytes:
    """The whole answer to a request."""
    words = request.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or len(request) > _MAX_REQUEST:
        return _answer("400 Bad Request", "text/plain", "Not understood.\n")
    if words[0] not in (b"GET", b"HEAD"):
        return _answer("405 Method Not Allowed", "text/plain", "Only GET.\n")
    with_body = words[0] == b"GET"
    if words[1].partition(b"?")[0] != b"/metrics":
        return _answer("404 Not Found", "text/plain", "See /metrics.\n", with_body)
    return _answer("200 OK", CONTENT_TYPE, page(), with_body)


def _answer(status: str, content_type: str, text: str, with_body: bool = True) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
