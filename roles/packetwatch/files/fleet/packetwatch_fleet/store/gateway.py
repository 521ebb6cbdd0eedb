# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to etcd's JSON gateway, and what its answers mean. Versions 3.4 and 3.5 differ in their errors."""

from __future__ import annotations

import base64
import binascii
import json
import time
import typing as t

from packetwatch_core._base.number import is_a, read_whole
from packetwatch_core._network.endpoints import Endpoint

from .dates import Clock
from .http import MAX_BODY, Http
from .interface import Change, Denied, Gone, Put, Unavailable
from .link import Link
from .waits import Waiting

if t.TYPE_CHECKING:
    import ssl

# Seconds for a connection and for an answer.
PATIENCE = 3.0
# Keys in one piece of a long answer: pages of 12 KB, coded in base64.
PIECE = 32
MAX_NUMBER = 1 << 64
_MAX_SHOWN = 200
# Bytes of a stream of requests that etcd's JSON gateway reads at once.
_FIRST_READ = 512
_UNAUTHORIZED, _FORBIDDEN, _TOO_MANY = 401, 403, 429


class BadToken(Unavailable):
    """The store does not know the token any more: log in again."""


class Busy(Unavailable):
    """A gate takes fewer requests: the same one will do later."""


class Account(t.NamedTuple):
    """How to log in. user: empty: the store asks nobody who he is."""

    user: str = ""
    password: str = ""


class Session:
    """Requests on one connection. token: kept by the store for all its sessions."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None, clock: Clock) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self.link = Link(endpoint, tls)
        self._http = Http(self.link, endpoint.name)

    def close(self) -> None:
        self.link.close()

    def connect(self) -> Waiting[None]:
        yield from self.link.connect(time.monotonic() + PATIENCE)

    def log_in(self, account: Account) -> Waiting[str]:
        """A token."""
        body = {"name": account.user, "password": account.password}
        try:
            answer = yield from self.call("/v3/auth/authenticate", body, "")
        except Denied as error:
            raise Denied(f"the store does not accept the user {account.user!r}: {error}") from None
        token = answer.get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise Unavailable(f"{self.endpoint}: the answer has no token")
        return token

    def call(self, path: str, body: object, token: str) -> Waiting[dict[str, t.Any]]:
        """One answer; raises `Unavailable`, `BadToken` or `Denied`."""
        until = time.monotonic() + PATIENCE
        head = yield from self._http.post(path, encode(body), _headers(token), until)
        data = yield from self._http.body(head, until)
        if head.date is not None:
            self._clock.note(head.date, head.sent, head.received)
        if head.status != 200:
            raise self._error(head.status, data)
        return self._object(data)

    def open(self, path: str, body: bytes, token: str) -> Waiting[None]:
        """Begin an answer without end; `piece` has its parts."""
        until = time.monotonic() + PATIENCE
        head = yield from self._http.post(path, body, _headers(token), until)
        if head.status != 200:
            raise self._error(head.status, (yield from self._http.body(head, until)))
        if head.length is not None:
            raise Unavailable(f"{self.endpoint}: the answer to {path} is not a stream")

    def piece(self, until: float) -> Waiting[bytes]:
        data = yield from self._http.chunk(until)
        if not data:
            raise Unavailable(f"{self.endpoint}: the stream has ended")
        return data

    def frame(self, data: bytes) -> dict[str, t.Any]:
        """The result in a frame of a stream; raises as `call` does."""
        found = self._object(data)
        if "error" in found:
            raise self._error(0, data)
        result = found.get("result")
        if not isinstance(result, dict):
            raise Unavailable(f"{self.endpoint}: a frame has no result: {data[:_MAX_SHOWN]!r}")
        return result

    def _object(self, data: bytes) -> dict[str, t.Any]:
        try:
            found = json.loads(data.decode())
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unavailable(f"{self.endpoint}: not JSON: {data[:_MAX_SHOWN]!r}")
        return found

    def _error(self, status: int, data: bytes) -> Unavailable | Denied:
        text = message_of(data)
        shown = f"{self.endpoint}: {f'{status}: ' * bool(status)}{text}"
        # Denied for good: neither another node nor another attempt helps.
        if "permission denied" in text or "authentication failed" in text:
            return Denied(shown)
        if status == _UNAUTHORIZED or "auth token" in text or "auth store" in text:
            return BadToken(shown)
        if status == _TOO_MANY and "space" not in text:
            return Busy(shown)
        return Denied(shown) if status == _FORBIDDEN else Unavailable(shown)


def encode(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def message_of(data: bytes) -> str:
    """The text of an error: of 3.4, of 3.5, of a stream, or of a proxy in HTML."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return data[:_MAX_SHOWN].decode(errors="replace").strip()
    error = found.get("error", found) if isinstance(found, dict) else found
    text = error.get("message") if isinstance(error, dict) else error
    if isinstance(found, dict) and not isinstance(text, str):
        text = found.get("message")
    return str(text)[:_MAX_SHOWN]


def _headers(token: str) -> dict[str, str]:
    # Without it, a node that is cut off from the others goes on with a stream that says nothing.
    headers = {"Grpc-Metadata-hasleader": "true"}
    return headers | {"Authorization": token} if token else headers


def code(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def range_of(prefix: str) -> dict[str, t.Any]:
    """The keys that begin with a prefix."""
    return {"key": code(prefix), "range_end": code(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


def decode(text: t.Any) -> bytes:
    """The bytes of a key or value; missing: empty."""
    try:
        return base64.b64decode(text or "", validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Unavailable(f"{str(text)[:_MAX_SHOWN]!r} is not base64") from None


def number(value: t.Any) -> int:
    """A number of 64 bits, which the gateway writes as text; missing: 0."""
    if is_a(value, int) and 0 <= value < MAX_NUMBER:
        return value
    found = read_whole(value, MAX_NUMBER) if isinstance(value, str) else None
    if value is not None and found is None:
        raise Unavailable(f"{str(value)[:_MAX_SHOWN]!r} is not a number")
    return found or 0


def fields(found: t.Any, name: str) -> dict[str, t.Any]:
    """An object in an object; missing: empty."""
    value = found.get(name) if isinstance(found, dict) else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unavailable(f"{name} is not an object")
    return value


def objects(found: dict[str, t.Any], name: str) -> list[dict[str, t.Any]]:
    """A list of objects in an object; missing: empty."""
    values = found.get(name) or []
    if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise Unavailable(f"{name} is not a list of objects")
    return values


def watch_request(prefixes: t.Sequence[str], revision: int) -> bytes:
    """A stream of all changes from a revision on: one stream for all prefixes, with a watch for each."""
    since = {"start_revision": str(revision), "progress_notify": True}
    requests = [{"create_request": range_of(prefix) | since} for prefix in prefixes]
    # When etcd begins to answer the first watch, it throws away what it has not read yet of the others. It reads so many
    # bytes at first, and more only within a watch, so the first one is longer than that.
    return b"{" + b" " * _FIRST_READ + b"".join(map(encode, requests))[1:]


def revision_of(answer: dict[str, t.Any]) -> int:
    revision = number(fields(answer, "header").get("revision"))
    if not revision:
        raise Unavailable("an answer has no revision")
    return revision


def change_of(event: dict[str, t.Any]) -> Change:
    """What an event of a watch says. The type of a put is absent."""
    pair = fields(event, "kv")
    key, revision = text_of(pair.get("key")), number(pair.get("mod_revision"))
    if event.get("type", "PUT") == "PUT":
        return Put(key, decode(pair.get("value")), revision)
    return Gone(key, revision)


def text_of(key: t.Any) -> str:
    """A key as text. Bytes that are not UTF-8 make a key that nothing knows."""
    return decode(key).decode(errors="replace")


class Frames:
    """Cuts the objects out of a stream: each ends with a line break, or with the stream."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now."""
        self._data += data
        *lines, rest = self._data.split(b"\n")
        if len(rest) > MAX_BODY:
            raise Unavailable(f"a frame of the stream is longer than {MAX_BODY} bytes")
        self._data = rest
        found = [bytes(line) for line in lines if line.strip()]
        # The last frame of a stream that ends with an error has no line break.
        if rest.startswith(b'{"error"') and rest.endswith(b"}"):
            found.append(bytes(rest))
            self._data = bytearray()
        return found
