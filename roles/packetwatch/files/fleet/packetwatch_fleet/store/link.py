# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One connection, TCP or TLS, whose operations are work in steps."""

from __future__ import annotations

import errno
import functools
import os
import socket
import time
import typing as t

from packetwatch_core._network.endpoints import Endpoint

from .interface import Unavailable
from .waits import Wait, Waiting

if t.TYPE_CHECKING:
    import ssl

_PIECE = 65536


class Link:
    """A connection to an endpoint. Each operation has until `until` (monotonic), and raises `Unavailable`."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._translated = _Translated(endpoint)
        family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self, until: float) -> Waiting[None]:
        found = self._socket.connect_ex((self._endpoint.address, self._endpoint.port))
        if found == errno.EINPROGRESS:
            # Whoever wakes the task early must not take this for a connection.
            while not (yield Wait(self._socket, True, until)):
                if time.monotonic() >= until:
                    raise Unavailable(f"{self._endpoint}: no answer in time")
            found = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if found:
            raise Unavailable(f"{self._endpoint}: {os.strerror(found)}")
        if self._tls:
            with self._translated:
                secure = self._tls.wrap_socket(
                    self._socket, server_hostname=self._endpoint.name, do_handshake_on_connect=False
                )
            self._socket = secure
            yield from self._do(secure.do_handshake, until)

    def send(self, data: bytes, until: float) -> Waiting[None]:
        view = memoryview(data)
        while view:
            send = functools.partial(self._socket.send, view)
            view = view[(yield from self._do(send, until, write=True)) :]

    def receive(self, until: float) -> Waiting[bytes]:
        """Some bytes; raises `Unavailable` at the end of the connection."""
        data: bytes = yield from self._do(lambda: self._socket.recv(_PIECE), until)
        if not data:
            raise Unavailable(f"{self._endpoint}: it has ended the connection")
        return data

    def give(self, data: bytes | bytearray) -> int:
        """Send without waiting, and return how many bytes the socket took."""
        try:
            with self._translated:
                return self._socket.send(data)
        except (_WaitRead, _WaitWrite, BlockingIOError):
            return 0

    def take(self) -> bytes:
        """Receive without waiting; empty: nothing is there. Raises `Unavailable` at the end of the connection."""
        try:
            with self._translated:
                data = self._socket.recv(_PIECE)
        except (_WaitRead, _WaitWrite, BlockingIOError):
            return b""
        if not data:
            raise Unavailable(f"{self._endpoint}: it has ended the connection")
        return data

    def change(self, write: bool, until: float) -> Wait:
        """What to yield to wait for something to receive; write: also for room to send."""
        return Wait(self._socket, write, until, read_too=True)

    def idle(self, until: float) -> Waiting[bool]:
        """Wait; return whether the connection has ended or has got what was not asked for."""
        return (yield Wait(self._socket, False, until))

    def close(self) -> None:
        self._socket.close()

    def _do(
        self, operation: t.Callable[[], t.Any], until: float, write: bool = False
    ) -> Waiting[t.Any]:
        while True:
            try:
                with self._translated:
                    return operation()
            except _WaitRead:
                yield from self._ready(False, until)
            except _WaitWrite:
                yield from self._ready(True, until)
            except BlockingIOError:
                yield from self._ready(write, until)

    def _ready(self, write: bool, until: float) -> Waiting[None]:
        if not (yield Wait(self._socket, write, until)) and time.monotonic() >= until:
            raise Unavailable(f"{self._endpoint}: no answer in time")


class _Translated:
    """Raises errors of sockets and TLS as ours. The module ssl is loaded only where TLS is in use.

    A stream has a thousand pieces in a second, and a generator as a context would cost as much as the reading.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BlockingIOError):
            return
        if isinstance(error, OSError):
            name = type(error).__name__
            if name == "SSLWantReadError":
                raise _WaitRead from None
            if name == "SSLWantWriteError":
                raise _WaitWrite from None
            text = error.strerror or str(error) or name
            raise Unavailable(f"{self._endpoint}: {text}") from None
        if isinstance(error, ValueError):
            raise Unavailable(f"{self._endpoint}: {error}") from None


class _WaitRead(Exception):
    """TLS needs to read first."""


class _WaitWrite(Exception):
    """TLS needs to write first."""
