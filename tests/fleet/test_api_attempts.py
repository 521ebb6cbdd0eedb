# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What attackers try at the API: each attempt is refused with its status, and changes nothing in the store."""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from fleet.api import PORT, RELEASES, Api, running_api
from fleet.servers import fleet_nodes
from fleet.software import SUITES

from packetwatch_core._node.gateway import below
from packetwatch_core._node.keys import KEYS

pytestmark = pytest.mark.slow

ETCD = {suite: version for version, suite in SUITES.items()}
RATE = 200
# Seconds after which the gate gives up a request that does not go on.
SLOW = 5.0
BAN, ENTRY = "/v1/bans/203.0.113.9", "/v1/lists/common/deny/203.0.113.0/24"
GOOD = {"seconds": 600}
HOST, INSIDE = "192.0.2.10", "192.0.2.0/24"


@pytest.fixture(scope="module")
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    with (
        fleet_nodes(ETCD[request.param], 1, fleet_node_api_rate=RATE) as nodes,
        running_api(nodes, request.param) as found,
    ):
        status = {"v": 1, "t": time.time(), "addresses": [HOST, "2001:db8:1::1"]}
        nodes.put("hosts/web1/status", json.dumps(status))
        assert found.call("PUT", "/v1/bans/198.51.100.1", GOOD).status == 201
        assert found.call("PUT", "/v1/lists/ours/allow/198.51.100.64/26", {}).status == 201
        yield found


class Answer(NamedTuple):
    """status: 0: the connection was closed without an answer."""

    status: int
    body: Any = None


def raw(api: Api, data: bytes, pause: float = 0.0) -> Answer:
    """Send bytes, in pieces if there is a pause between them; return the first answer."""
    with api.connect() as connection:
        pieces = [data] if not pause else [data[at : at + 1] for at in range(len(data))]
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        except OSError:
            pass
        return received(connection)


def received(connection: socket.socket) -> Answer:
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except OSError:
        pass
    head, dummy, body = found.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
    if not status:
        return Answer(0)
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    text = body[: int(length[1])] if length else body
    return Answer(int(status[1]), parsed(text.decode()))


def head(api: Api, method: str, path: str, *lines: str, role: str = "admin") -> bytes:
    """The head of a request that is closed after its answer."""
    rows = [f"{method} {path} HTTP/1.1", f"Host: {api.node.name}", "Connection: close"]
    rows.append(f"Authorization: Bearer {api.secrets[role]}")
    return "".join(f"{row}\r\n" for row in (*rows, *lines, "")).encode()


def sent(method: str, path: str, *lines: str, body: bytes = b"") -> Callable[[Api], Answer]:
    """A request that a library would not send."""
    return lambda api: raw(api, head(api, method, path, *lines) + body)


def put(data: Any, path: str = BAN, **headers: str) -> Callable[[Api], Answer]:
    """A change by an admin with this body. Names of headers have underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda api: called(api, "PUT", path, data, headers=named)


def get(path: str, **options: Any) -> Callable[[Api], Answer]:
    return lambda api: called(api, "GET", path, **options)


def by(role: str, method: str, path: str, body: Any = None) -> Callable[[Api], Answer]:
    return lambda api: called(api, method, path, body, role=role)


def shown(authorization: Callable[[Api], str], method: str = "PUT") -> Callable[[Api], Answer]:
    """A change with another header `Authorization`."""

    def attempt(api: Api) -> Answer:
        headers = {"Authorization": authorization(api)}
        return called(api, method, BAN, GOOD, token="", headers=headers)

    return attempt


def called(api: Api, method: str, path: str, body: Any = None, **options: Any) -> Answer:
    reply = api.call(method, path, body, **options)
    return Answer(reply.status, parsed(reply.text))


def parsed(text: str) -> Any:
    """The problem in an answer; None: it is not in the form of the API."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def expired(api: Api) -> str:
    return f"Bearer {api.add_token('old', 'admin', time.time() - 1)}"


def revoked(api: Api) -> str:
    secret = api.add_token("gone", "admin")
    assert api.call("GET", "/v1/hosts", token=secret).status == 200
    api.revoke("gone")
    return f"Bearer {secret}"


def basic(api: Api) -> str:
    return "Basic " + base64.b64encode(f"x:{api.secrets['admin']}".encode()).decode()


def digest(api: Api) -> str:
    """What an attacker finds in the file of tokens."""
    rows = json.loads((api.tokens / "made.json").read_text())["tokens"]
    return f"Bearer {rows[0]['digest']}"


def with_certificate_of_a_host(api: Api) -> Answer:
    """A host of the fleet shows its own certificate, and no token."""
    own = api.nodes.host_credentials("web1")
    context = api.context()
    context.load_cert_chain(str(own.certificate))
    request = f"PUT {BAN} HTTP/1.1\r\nHost: {api.node.name}\r\nConnection: close\r\n"
    request += 'Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{"seconds":600}'
    with api.connect(context) as connection:
        connection.sendall(request.encode())
        return received(connection)


def without_tls(api: Api) -> Answer:
    with (
        api.nodes.lan.entered(),
        socket.create_connection((api.node.address, PORT), timeout=10) as connection,
    ):
        connection.sendall(head(api, "GET", "/v1/bans"))
        return received(connection)


def old_tls(api: Api) -> Answer:
    context = api.context()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with api.connect(context):
            return Answer(200)
    except OSError:
        return Answer(0)


def slow_head(api: Api) -> Answer:
    """Never ends its headers."""
    return raw(api, head(api, "GET", "/v1/bans")[:-2])


def slow_body(api: Api) -> Answer:
    """Announces a body, and sends the beginning of it."""
    return raw(api, head(api, "PUT", BAN, JSON, "Content-Length: 15") + b'{"seconds"')


JSON = "Content-Type: application/json"
BIG = "x" * 20_000
TEXT = '{"seconds":600}'
SMUGGLED = b"0\r\n\r\nDELETE /v1/bans/198.51.100.1 HTTP/1.1\r\nHost: x\r\n\r\n"
ATTEMPTS: dict[str, tuple[Callable[[Api], Answer], int | tuple[int, ...]]] = {
    # Who
    "no token": (shown(lambda api: ""), 401),
    "no token, to read": (get("/v1/bans", token=""), 401),
    "an unknown token": (shown(lambda api: f"Bearer pw_{'A' * 43}"), 401),
    "a token cut short": (shown(lambda api: f"Bearer {api.secrets['admin'][:-1]}"), 401),
    "a token in other case": (shown(lambda api: f"Bearer {api.secrets['admin'].swapcase()}"), 401),
    "a token's digest": (shown(digest), 401),
    "an expired token": (shown(expired), 401),
    "a revoked token": (shown(revoked), 401),
    "a token as a password": (shown(basic), 401),
    "a token as a password, to lift": (shown(basic, "DELETE"), 401),
    "another scheme": (shown(lambda api: f"Digest {api.secrets['admin']}"), 401),
    "two tokens in one header": (
        shown(lambda api: f"Bearer {api.secrets['admin']}, Bearer {api.secrets['admin']}"),
        401,
    ),
    "a token in the query": (
        lambda api: called(api, "GET", f"/v1/bans?token={api.secrets['admin']}", token=""),
        401,
    ),
    "two headers with tokens": (
        lambda api: raw(
            api, head(api, "GET", "/v1/bans", f"Authorization: Bearer {api.secrets['read']}")
        ),
        (400, 401),
    ),
    "a host's certificate": (with_certificate_of_a_host, 401),
    "read bans": (by("read", "PUT", BAN, GOOD), 403),
    "read lifts": (by("read", "DELETE", "/v1/bans/198.51.100.1"), 403),
    "read denies": (by("read", "PUT", ENTRY, {}), 403),
    "ban denies": (by("ban", "PUT", ENTRY, {}), 403),
    "ban allows": (by("ban", "PUT", ENTRY.replace("deny", "allow"), {}), 403),
    "ban takes off a list": (by("ban", "DELETE", "/v1/lists/ours/allow/198.51.100.64/26"), 403),
    "ban removes": (by("ban", "DELETE", "/v1/addresses/198.51.100.1"), 403),
    "lists bans": (by("lists", "PUT", BAN, GOOD), 403),
    "lists lifts": (by("lists", "DELETE", "/v1/bans/198.51.100.1"), 403),
    "lists removes": (by("lists", "DELETE", "/v1/addresses/198.51.100.1"), 403),
    # Whom
    "ban a host": (put(GOOD, f"/v1/bans/{HOST}"), 409),
    "ban a host's network": (put(GOOD, "/v1/bans/2001:db8:1::99"), 409),
    "ban a node": (put(GOOD, "/v1/bans/10.79.0.11"), 409),
    "ban a protected address": (put(GOOD, "/v1/bans/192.0.2.129"), 409),
    "ban an allowed address": (put(GOOD, "/v1/bans/198.51.100.65"), 409),
    "deny a host": (put({}, f"/v1/lists/common/deny/{HOST}"), 409),
    "deny a host's network": (put({}, f"/v1/lists/common/deny/{INSIDE}"), 409),
    "deny a node": (put({}, "/v1/lists/common/deny/10.79.0.11"), 409),
    "deny a node's network": (put({}, "/v1/lists/common/deny/10.79.0.0/24"), 409),
    "deny a protected address": (put({}, "/v1/lists/common/deny/192.0.2.129"), 409),
    "deny what is around a protected network": (
        put({}, "/v1/lists/common/deny/192.0.2.128/27"),
        409,
    ),
    "deny an allowed address": (put({}, "/v1/lists/common/deny/198.51.100.65"), 409),
    "deny everything": (put({}, "/v1/lists/common/deny/0.0.0.0/0"), (409, 422)),
    "deny half of IPv6": (put({}, "/v1/lists/common/deny/8000::/1"), 422),
    "ban in another notation": (put(GOOD, "/v1/bans/::ffff:203.0.113.9"), 422),
    "a prefix with bits of a host": (put({}, "/v1/lists/common/deny/203.0.113.9/24"), (400, 422)),
    # Bodies
    "a large body": (put(f'{{"seconds":600,"reason":"{BIG}"}}'), 413),
    "a body of a gigabyte": (sent("PUT", BAN, JSON, "Content-Length: 1000000000"), 413),
    "a large body in chunks": (
        sent(
            *("PUT", BAN, JSON, "Transfer-Encoding: chunked"),
            body=b"4e20\r\n" + b"x" * 20_000 + b"\r\n0\r\n\r\n",
        ),
        413,
    ),
    "a compressed body": (put(gzip.compress(TEXT.encode()), Content_Encoding="gzip"), 415),
    "a bomb": (put(gzip.compress(b" " * 10_000_000), Content_Encoding="gzip"), 415),
    "a body of text": (put(TEXT, Content_Type="text/plain"), 415),
    "a form": (put("seconds=600", Content_Type="application/x-www-form-urlencoded"), 415),
    "a body without a type": (sent("PUT", BAN, "Content-Length: 15", body=TEXT.encode()), 415),
    "no body": (sent("PUT", BAN, JSON, "Content-Length: 0"), 400),
    "a slow body": (slow_body, (0, 408)),
    "slow headers": (slow_head, (0, 408)),
    "half an object": (put('{"seconds":600'), 400),
    "bytes that are not UTF-8": (put(b'{"seconds":600,"reason":"\xff"}'), 400),
    "a list": (put("[600]"), 400),
    "a text": (put('"600"'), 400),
    "nothing": (put("null"), 400),
    "NaN": (put('{"seconds":NaN}'), 400),
    "a name twice": (put('{"seconds":1,"seconds":600}'), 400),
    "a deep body": (put("[" * 8000), 400),
    "no end": (put({}), 400),
    "seconds as text": (put({"seconds": "600"}), 400),
    "seconds as true": (put({"seconds": True}), 400),
    "half a second": (put({"seconds": 0.5}), 400),
    "no seconds": (put({"seconds": 0}), 400),
    "seconds before now": (put({"seconds": -600}), 400),
    "seconds without end": (put('{"seconds":1e999}'), 400),
    "a thousand years": (put({"seconds": 31_536_000_000}), 400),
    "a field of a row": (put({"seconds": 600, "evidence": "manual"}), 400),
    "a long reason": (put({"seconds": 600, "reason": "x" * 201}), 400),
    "an entry that has ended": (put({"expires": 1_000_000_000}, ENTRY), 422),
    "a comment of two lines": (put({"comment": "a\n203.0.113.1"}, ENTRY), 422),
    # Paths
    "not an address": (put(GOOD, "/v1/bans/localhost"), 400),
    "a network": (put(GOOD, "/v1/bans/203.0.113.0%2F24"), 404),
    "an address and a NUL": (put(GOOD, f"{BAN}%00"), (400, 404)),
    "an address and a line": (put(GOOD, f"{BAN}%0a"), 400),
    "an address with a zone": (put(GOOD, "/v1/bans/fe80::1%25eth0"), 400),
    "an address in octal": (put(GOOD, "/v1/bans/0313.0.113.9"), 400),
    "other digits": (put(GOOD, "/v1/bans/%D9%A1.2.3.4"), 400),
    "up and down": (sent("GET", "/v1/../v1/bans"), 404),
    "up, encoded": (sent("GET", "/v1/%2e%2e/v1/bans"), 404),
    "above the root": (sent("GET", "/../../etc/passwd"), 400),
    "two slashes": (get("/v1//bans"), 404),
    "a slash at the end": (get("/v1/bans/"), 404),
    "another case": (get("/V1/bans"), 404),
    "a list above the lists": (put({}, "/v1/lists/..%2f..%2fbans/deny/203.0.113.9"), 400),
    "a list with a slash": (put({}, "/v1/lists/a%2fb/deny/203.0.113.9"), 400),
    "a list that begins with a dot": (put({}, "/v1/lists/.a/deny/203.0.113.9"), 400),
    "a list in capitals": (put({}, "/v1/lists/COMMON/deny/203.0.113.9"), 400),
    "a list with a long name": (put({}, f"/v1/lists/{'a' * 65}/deny/203.0.113.9"), 400),
    "another kind": (put({}, "/v1/lists/common/pass/203.0.113.9"), 400),
    "a long prefix": (put({}, "/v1/lists/common/deny/203.0.113.0/0024"), 400),
    "etcd's path": (sent("PUT", "/v3/kv/put", JSON, "Content-Length: 2", body=b"{}"), 404),
    "a long path": (get(f"/v1/bans/{'1' * 5000}"), 414),
    "a whole URL": (sent("GET", "http://127.0.0.1:2379/v3/kv/range"), 404),
    # Queries
    "a long token of a page": (get(f"/v1/bans?page={'A' * 3000}"), 400),
    "a very long token of a page": (get(f"/v1/bans?page={'A' * 5000}"), 414),
    "not a token of a page": (get("/v1/bans?page=%27%20OR%201"), 400),
    "a deep token of a page": (
        get("/v1/bans?page=" + base64.urlsafe_b64encode(b"[" * 300).decode()),
        400,
    ),
    "no items": (get("/v1/bans?limit=0"), 400),
    "too many items": (get("/v1/bans?limit=1000000000000"), 400),
    "items in other digits": (get("/v1/bans?limit=%D9%A1"), 400),
    "two limits": (get("/v1/bans?limit=1&limit=2"), 400),
    "an unknown parameter": (get("/v1/bans?debug=1"), 400),
    "a hold before now": (by("admin", "DELETE", f"{BAN}?hold=-1"), 400),
    # Headers
    "garbage in If-Match": (put(GOOD, If_Match="garbage"), 400),
    "a weak If-Match": (put(GOOD, If_Match='W/"1"'), 400),
    "several in If-Match": (put(GOOD, If_Match='"1", "2"'), 400),
    "another version": (put(GOOD, "/v1/bans/198.51.100.1", If_Match='"1"'), 412),
    "a version of what is not there": (put(GOOD, If_Match="*"), 412),
    "a large header": (get("/v1/bans", headers={"X-Large": BIG}), 400),
    "many headers": (get("/v1/bans", headers={f"X-{n}": "1" for n in range(200)}), (400, 431)),
    "two lengths": (
        sent("PUT", BAN, JSON, "Content-Length: 15", "Content-Length: 16", body=TEXT.encode()),
        400,
    ),
    "a length and chunks": (
        sent(
            *("PUT", BAN, JSON, f"Content-Length: {len(SMUGGLED)}", "Transfer-Encoding: chunked"),
            body=SMUGGLED,
        ),
        400,
    ),
    "an unknown coding": (sent("PUT", BAN, JSON, "Transfer-Encoding: gzip, chunked"), (400, 501)),
    "no host": (
        lambda api: raw(api, head(api, "GET", "/v1/bans").replace(b"Host: ", b"X-Host: ")),
        400,
    ),
    "a strange host": (
        lambda api: raw(api, head(api, "GET", "/v1/bans").replace(b"Host: ", b"Host: /../")),
        400,
    ),
    "another method in a header": (
        lambda api: called(api, "POST", BAN, GOOD, headers={"X-HTTP-Method-Override": "PUT"}),
        405,
    ),
    # Methods and protocols
    "POST": (lambda api: called(api, "POST", "/v1/bans", GOOD), 405),
    "PATCH": (lambda api: called(api, "PATCH", BAN, GOOD), 405),
    "PUT of all": (lambda api: called(api, "PUT", "/v1/bans", GOOD), 405),
    "DELETE of all": (lambda api: called(api, "DELETE", "/v1/bans"), 405),
    "OPTIONS": (lambda api: called(api, "OPTIONS", "/v1/bans"), 405),
    "TRACE": (lambda api: called(api, "TRACE", "/v1/bans"), 405),
    "CONNECT": (sent("CONNECT", "127.0.0.1:2379"), (400, 405)),
    "an unknown method": (sent("BAN", BAN), 405),
    "no HTTP": (lambda api: raw(api, b"\x16\x03\x01\x00\xff\r\n\r\n"), 400),
    "no TLS": (without_tls, 400),
    "old TLS": (old_tls, 0),
}


def contents(api: Api) -> Any:
    key, end = below(KEYS)
    return api.nodes.root()("/v3/kv/range", {"key": key, "range_end": end})["kvs"]


# The gate alone waits for these, so the API's libraries do not matter.
GATES_OWN = ("a slow body", "slow headers", "a body of a gigabyte")


@pytest.mark.parametrize("name", [name for name in ATTEMPTS if name not in GATES_OWN])
@pytest.mark.parametrize("api", RELEASES, indirect=True, scope="module")
def test_an_attempt_is_refused_and_changes_nothing(api: Api, name: str) -> None:
    refuses(api, name)


@pytest.mark.parametrize("name", GATES_OWN)
@pytest.mark.parametrize("api", RELEASES[:1], indirect=True, scope="module")
def test_the_gate_refuses_an_attempt_by_itself(api: Api, name: str) -> None:
    refuses(api, name)


def refuses(api: Api, name: str) -> None:
    """Make an attempt, which must be answered as the table says, and change nothing."""
    attempt, wanted = ATTEMPTS[name]
    before = contents(api)
    answer = attempt(api)
    assert answer.status in (wanted if isinstance(wanted, tuple) else (wanted,)), answer
    # gunicorn refuses many headers before the API could.
    if answer.status and name != "many headers":
        assert answer.body["status"] == answer.status and answer.body["detail"], answer
    assert contents(api) == before
    assert api.server.running


@pytest.mark.parametrize("api", RELEASES[-1:], indirect=True, scope="module")
def test_an_address_that_sends_too_much_is_slowed_down(api: Api) -> None:
    """The API hardly sees it."""
    request = head(api, "GET", "/v1/nothing").replace(b"Connection: close\r\n", b"")
    count = 150

    def flood(_number: int) -> list[int]:
        with api.connect() as connection:
            connection.sendall(request * (count - 1) + head(api, "GET", "/v1/nothing"))
            found = b""
            while piece := connection.recv(65536):
                found += piece
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", found)]

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses = [status for found in pool.map(flood, range(8)) for status in found]
    assert {404, 429} <= set(statuses) <= {404, 429}
    assert statuses.count(404) < (5 + time.monotonic() - began) * RATE
    # It may go on soon.
    time.sleep(3)
    assert api.call("GET", "/v1/healthz", token="").status == 200


@pytest.mark.parametrize("api", RELEASES[-1:], indirect=True, scope="module")
def test_slow_clients_do_not_keep_others_waiting(api: Api) -> None:
    # On a busy machine, an answer may take as long by itself.
    assert any(beside_slow_clients(api) < SLOW for _attempt in range(3))


def beside_slow_clients(api: Api) -> float:
    """The seconds of an answer while more clients than the API has workers send no more of their requests."""
    slow = []
    try:
        for _number in range(8):
            connection = api.connect()
            connection.sendall(head(api, "PUT", BAN, JSON, "Content-Length: 15") + b"{")
            slow.append(connection)
        began = time.monotonic()
        assert api.call("GET", "/v1/hosts").status == 200
        return time.monotonic() - began
    finally:
        for connection in slow:
            connection.close()
