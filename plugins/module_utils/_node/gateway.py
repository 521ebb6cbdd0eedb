# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""One connection to the JSON gateway of an etcd, for what an administrator does."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import typing as t

from .._base.errors import PacketwatchError

_MAX_ANSWER = 1 << 24
# No leader, or no answer of a majority in time.
_PASSING = (503, 504)
Json = dict[str, t.Any]


class Refused(PacketwatchError):
    """The store, or the gate in front of it, has answered a request with an error."""

    def __init__(self, path: str, status: int, reason: str) -> None:
        super().__init__(f"{path}: {reason} (HTTP status {status})")
        self.status = status
        self.reason = reason


class Unreached(PacketwatchError):
    """There was no answer, or none that can be understood."""


def may_pass(error: PacketwatchError) -> bool:
    """Whether the same request may succeed some seconds later: the store is slow, or chooses a leader."""
    if isinstance(error, Refused):
        return error.status in _PASSING
    return isinstance(error, Unreached)


class Identity(t.NamedTuple):
    """What a client shows and trusts: paths of an authority's certificate, and of its own with its key."""

    authority: str
    certificate: str


class Gateway:
    """A client that logs in when it first needs a token, and keeps its connection.

    name: what the server's certificate must have.
    """

    def __init__(
        self,
        address: tuple[str, int],
        identity: Identity | None,
        user: tuple[str, str] | None = None,
        *,
        name: str = "localhost",
        timeout: float = 10.0,
    ) -> None:
        self._address = address
        self._context = context(identity) if identity else None
        self._user = user
        self._name = name
        self._timeout = timeout
        self.token = ""
        self._connection: http.client.HTTPConnection | None = None

    def login(self) -> None:
        """Get a token; raises `Refused` if the password is wrong, or if the store has no passwords yet."""
        name, password = self._user or ("", "")
        self.token = ""
        answer = self.post("/v3/auth/authenticate", {"name": name, "password": password})
        self.token = str(answer["token"])

    def call(self, path: str, body: Json) -> Json:
        """Return the answer to a request; raises `Refused`, or `Unreached` if there is no answer."""
        if self._user and not self.token:
            self.login()
        return self.post(path, body)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def post(self, path: str, body: Json) -> Json:
        """Do as `call`, with the token that is there, or without one."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = self.token
        try:
            if self._connection is None:
                self._connection = self._connected()
            self._connection.request("POST", path, json.dumps(body), headers)
            response = self._connection.getresponse()
            answer = response.read(_MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            host, port = self._address
            raise Unreached(
                f"the store at {host} port {port} does not answer: {error!r}"
            ) from error
        if response.status != 200:
            # The gate closes a connection whose request it has not read to the end.
            self.close()
            raise Refused(path, response.status, _reason(answer))
        return _parsed(answer)

    def _connected(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(*self._address, timeout=self._timeout)
        return _Named(self._address, self._context, self._name, self._timeout)


class _Named(http.client.HTTPSConnection):
    """A connection to a numeric address, whose server shows a certificate with a name."""

    def __init__(
        self, address: tuple[str, int], tls: ssl.SSLContext, name: str, timeout: float
    ) -> None:
        super().__init__(*address, timeout=timeout, context=tls)
        self._tls = tls
        self._name = name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def context(identity: Identity) -> ssl.SSLContext:
    """What a client of a gate or of an etcd shows and trusts; raises OSError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_verify_locations(identity.authority)
    made.load_cert_chain(identity.certificate)
    return made


def encoded(text: str | bytes) -> str:
    """A key or value as the gateway wants it."""
    raw = text.encode() if isinstance(text, str) else text
    return base64.b64encode(raw).decode()


def below(prefix: str) -> tuple[str, str]:
    """The range of all keys that begin with a prefix, as a request has it."""
    raw = prefix.encode()
    return encoded(raw), encoded(raw[:-1] + bytes([raw[-1] + 1]))


def _parsed(answer: bytes) -> Json:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise Unreached(f"the store's answer is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Unreached("the store's answer is not an object")
    return found


def _reason(answer: bytes) -> str:
    """What an error says: etcd answers with JSON, nginx with a page."""
    try:
        found = json.loads(answer)
        return str(found.get("error") or found.get("message"))
    except (ValueError, AttributeError, RecursionError):
        return "refused by the gate"
