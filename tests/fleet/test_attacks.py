# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a taken-over host can do to the fleet's store: at the gate, and at the ports of etcd behind it.

The host `host-a` attacks, with its own certificate and token. Its own watch must go on meanwhile.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet.servers import NETWORK, Credentials, FleetNodes, fleet_nodes
from fleet.software import VERSIONS

from packetwatch_core._node.authority import Node, Vault
from packetwatch_core._node.gateway import (
    Gateway,
    Identity,
    Json,
    Refused,
    Unreached,
    below,
    context,
    encoded,
)
from packetwatch_core._node.keys import KEYS

pytestmark = pytest.mark.slow(0.1)

NODE = f"{NETWORK}11"
# More than a host ever writes, and less than etcd's own limit of 1.5 MB for a request.
LARGE = 1_000_000


class Stream:
    """A watch through the gate."""

    def __init__(self, nodes: FleetNodes, credentials: Credentials, token: str, body: Json) -> None:
        address = nodes.gates[0]
        with nodes.lan.entered():
            sock = socket.create_connection(address, 60.0)
        self._sock = context(credentials.identity).wrap_socket(sock, server_hostname="node0")
        connection = http.client.HTTPConnection(*address)
        connection.sock = self._sock
        text = json.dumps({"create_request": body})
        connection.request("POST", "/v3/watch", text, {"Authorization": token} if token else {})
        self._response = connection.getresponse()

    def frames(self) -> Iterator[str]:
        """The answers, as text; none if the request was refused as a whole."""
        while line := self._response.readline():
            yield line.decode()

    def close(self) -> None:
        """Let a reader come to the end."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class Watch(threading.Thread):
    """A watch of a host, as its fleet process has it."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._seen: set[str] = set()

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            for frame in self._stream.frames():
                self._seen |= set(re.findall(r'"key":"([^"]*)"', frame))

    def sees(self, key: str, seconds: float = 60.0) -> bool:
        """Whether it hears of a key in time."""
        deadline = time.monotonic() + seconds
        while encoded(KEYS + key) not in self._seen and time.monotonic() < deadline:
            time.sleep(0.01)
        return encoded(KEYS + key) in self._seen


@pytest.fixture(scope="module", params=VERSIONS)
def nodes(request: pytest.FixtureRequest) -> Iterator[FleetNodes]:
    with fleet_nodes(request.param) as nodes:
        nodes.add_hosts("host-a", "host-b")
        nodes.put("bans/e1/page", "1", lease=nodes.lease(3600))
        nodes.put("hosts/host-b/seen", "1")
        yield nodes


@pytest.fixture(scope="module")
def attacker(nodes: FleetNodes) -> Credentials:
    return nodes.host_credentials("host-a")


@pytest.fixture(scope="module")
def gate(nodes: FleetNodes, attacker: Credentials) -> Gateway:
    """The gate, as host-a reaches it."""
    gateway = nodes.gateway(attacker)
    with nodes.lan.entered():
        gateway.login()
    return gateway


@pytest.fixture(scope="module")
def inside(nodes: FleetNodes, attacker: Credentials) -> Gateway:
    """etcd itself with the user host-a and the certificate of the gate: whoever has taken over that too."""
    user = (attacker.name, attacker.password)
    gateway = Gateway(("127.0.0.1", 2379), inner_identity(nodes), user)
    with nodes.nodes[0].namespace.entered():
        gateway.login()
    return gateway


@pytest.fixture(scope="module")
def watch(nodes: FleetNodes, attacker: Credentials, gate: Gateway) -> Iterator[Watch]:
    """The attacker's own watch, over all attacks."""
    key, end = below(f"{KEYS}bans/")
    stream = Stream(nodes, attacker, gate.token, {"key": key, "range_end": end})
    watch = Watch(stream)
    watch.start()
    yield watch
    stream.close()
    watch.join(5.0)


def denied(nodes: FleetNodes, credentials: Credentials, token: str, body: Json) -> bool:
    """Whether a watch through the gate is refused; it begins with status 200 nevertheless."""
    stream = Stream(nodes, credentials, token, body)
    text = ""
    for frame in stream.frames():
        text += frame
        if "denied" in text or "user name is empty" in text or '"events"' in text:
            break
    stream.close()
    return "denied" in text or "user name is empty" in text


@pytest.fixture(autouse=True)
def _own_watch_goes_on(nodes: FleetNodes, watch: Watch) -> Iterator[None]:
    """A decision during an attack, and one after it, reach the attacker's own watch."""
    yield
    key = f"bans/e1/{time.monotonic_ns()}"
    nodes.put(key, "1")
    assert watch.sees(key)


def refusal(gateway: Gateway, path: str, body: Json) -> Refused:
    """The error of a request that must be refused, and not only because there were too many."""
    while True:
        with pytest.raises(Refused) as caught:
            gateway.call(path, body)
        if caught.value.status != 429:
            return caught.value
        time.sleep(0.2)


def put(key: str, value: str = "1", **options: Any) -> Json:
    return {"key": encoded(KEYS + key), "value": encoded(value), **options}


def span(first: str, end: str) -> Json:
    return {"key": encoded(first), "range_end": encoded(end)}


FOREIGN_WRITES = {
    "another host's key": "hosts/host-b/seen",
    "a name that begins alike": "hosts/host-a-evil/seen",
    "a fourth key": "hosts/host-a/other",
    "a key that begins alike": "hosts/host-a/seen2",
    "a key below its own": "hosts/host-a/seen/x",
    "a key above its own": "hosts/host-a",
    "a ban": "bans/api/x",
    "an enforcer's page": "bans/e1/page",
    "a lift": "lifts/x",
    "a list": "lists/x",
    "a rule": "rules/e1",
    "a path that leads up": "hosts/host-a/../host-b/seen",
    "nothing": "",
}
FOREIGN_READS = {
    "another host's report": span(f"{KEYS}hosts/host-b/seen", f"{KEYS}hosts/host-b/sees"),
    "reports of all hosts": span(f"{KEYS}hosts/", f"{KEYS}hosts0"),
    "its own report": {"key": encoded(f"{KEYS}hosts/host-a/seen")},
    "everything of the fleet": span(KEYS, "/packetwatch/v10"),
    "everything": span("\0", "\0"),
    "a range that begins alike": span(f"{KEYS}bans/", f"{KEYS}hosts0"),
}
# Everything but four paths is closed. These are what an attacker wants most.
CLOSED = {
    "delete": ("/v3/kv/deleterange", span(f"{KEYS}bans/", f"{KEYS}bans0")),
    "delete its own": ("/v3/kv/deleterange", {"key": encoded(f"{KEYS}hosts/host-a/seen")}),
    "transaction": ("/v3/kv/txn", {"success": [{"request_put": put("hosts/host-a/seen")}]}),
    "compaction": ("/v3/kv/compaction", {"revision": 2}),
    "alarm": (
        "/v3/maintenance/alarm",
        {"action": "ACTIVATE", "memberID": "1", "alarm": "NOSPACE"},
    ),
    "end of an alarm": ("/v3/maintenance/alarm", {"action": "DEACTIVATE", "alarm": "NOSPACE"}),
    "defragmentation": ("/v3/maintenance/defragment", {}),
    "snapshot": ("/v3/maintenance/snapshot", {}),
    "status": ("/v3/maintenance/status", {}),
    "another leader": ("/v3/maintenance/transfer-leadership", {"targetID": "1"}),
    "lease": ("/v3/lease/grant", {"TTL": 60}),
    "end of a lease": ("/v3/lease/revoke", {"ID": "1"}),
    "leases": ("/v3/lease/leases", {}),
    "members": ("/v3/cluster/member/list", {}),
    "new member": ("/v3/cluster/member/add", {"peerURLs": ["https://10.79.0.99:2380"]}),
    "removal of a member": ("/v3/cluster/member/remove", {"ID": "1"}),
    "end of passwords": ("/v3/auth/disable", {}),
    "new user": ("/v3/auth/user/add", {"name": "eve", "password": "x"}),
    "users": ("/v3/auth/user/list", {}),
    "another's password": ("/v3/auth/user/changepw", {"name": "host-b", "password": "x"}),
    "election": ("/v3/election/campaign", {"name": encoded("x")}),
    "lock": ("/v3/lock/lock", {"name": encoded("x")}),
    "an older name": ("/v3beta/kv/compaction", {"revision": 2}),
    "the second version": ("/v2/keys/x", {}),
    "metrics": ("/metrics", {}),
    "profiles": ("/debug/pprof/heap", {}),
    "a path that leads up": ("/v3/kv/put/../../maintenance/alarm", {}),
    "an encoded path": ("/v3/kv/put/%2e%2e/%2e%2e/maintenance/alarm", {}),
    "two slashes": ("//v3//maintenance/alarm", {}),
    "a path below an open one": ("/v3/kv/put/x", {}),
}


# At the gate


@pytest.mark.parametrize("key", FOREIGN_WRITES.values(), ids=FOREIGN_WRITES)
def test_the_gate_lets_a_host_write_no_other_key(
    nodes: FleetNodes, gate: Gateway, key: str
) -> None:
    with nodes.lan.entered():
        assert refusal(gate, "/v3/kv/put", put(key)).status in (400, 403)


@pytest.mark.parametrize("body", FOREIGN_READS.values(), ids=FOREIGN_READS)
def test_the_gate_lets_a_host_read_only_decisions(
    nodes: FleetNodes, attacker: Credentials, gate: Gateway, body: Json
) -> None:
    with nodes.lan.entered():
        assert refusal(gate, "/v3/kv/range", body).status == 403
    assert denied(nodes, attacker, gate.token, body)


@pytest.mark.parametrize(("path", "body"), CLOSED.values(), ids=CLOSED)
def test_the_gate_has_four_paths(nodes: FleetNodes, gate: Gateway, path: str, body: Json) -> None:
    with nodes.lan.entered():
        found = refusal(gate, path, body)
    assert found.status == 403
    assert found.reason == "refused by the gate"


def test_a_host_cannot_hang_its_key_on_the_lease_of_a_ban(nodes: FleetNodes, gate: Gateway) -> None:
    call = nodes.root()
    found = call("/v3/kv/range", {"key": encoded(f"{KEYS}bans/e1/page")})
    lease = found["kvs"][0]["lease"]
    with nodes.lan.entered():
        assert refusal(gate, "/v3/kv/put", put("hosts/host-a/seen", lease=lease)).status == 403
        # What it wrote before is its own, but it was granted writing alone.
        assert refusal(gate, "/v3/kv/put", put("hosts/host-a/seen", prev_kv=True)).status == 403


def test_without_a_certificate_the_gate_says_nothing(nodes: FleetNodes) -> None:
    tls = ssl.create_default_context(cafile=nodes.ca)
    with nodes.lan.entered():
        connection = http.client.HTTPSConnection(*nodes.gates[0], context=tls, timeout=5)
        connection.request("POST", "/v3/auth/authenticate", "{}")
        answer = connection.getresponse()
    assert answer.status == 400
    assert b"SSL certificate" in answer.read()


def test_a_certificate_of_another_authority_is_refused(
    nodes: FleetNodes, attacker: Credentials, tmp_path: Path
) -> None:
    vault = Vault(nodes.vault._run, str(tmp_path / "vault"))
    vault.provide([Node("node0", NODE)], ["host-a"], [])
    for certificate in (vault.host("host-a"), nodes.vault.inner("node0")):
        identity = Identity(str(nodes.ca), certificate)
        user = (attacker.name, attacker.password)
        with nodes.lan.entered():
            gateway = Gateway(nodes.gates[0], identity, user, name="node0")
            assert refusal(gateway, "/v3/kv/put", put("hosts/host-a/seen")).status == 400


def test_without_a_token_the_gate_gives_nothing(nodes: FleetNodes, attacker: Credentials) -> None:
    with nodes.lan.entered():
        gateway = Gateway(nodes.gates[0], attacker.identity, None, name="node0")
        assert refusal(gateway, "/v3/kv/put", put("hosts/host-a/seen")).status in (400, 401, 403)
        body = span(f"{KEYS}bans/", f"{KEYS}bans0")
        assert refusal(gateway, "/v3/kv/range", body).status in (400, 401, 403)
    assert denied(nodes, attacker, "", body)


@pytest.mark.parametrize("size", [30_000, LARGE], ids=["30 kB", "1.4 MB in base64"])
def test_a_large_value_is_refused_before_etcd_sees_it(
    nodes: FleetNodes, gate: Gateway, size: int
) -> None:
    before = nodes.revision()
    # nginx may close while the client still sends.
    with nodes.lan.entered(), pytest.raises((Refused, Unreached), match=r"413|not answer"):
        gate.call("/v3/kv/put", put("hosts/host-a/seen", "x" * size))
    assert nodes.revision() == before


class Pipe:
    """A connection on which many requests are sent before the first answer is read."""

    def __init__(self, address: tuple[str, int], identity: Identity, name: str) -> None:
        sock = socket.create_connection(address, 60.0)
        self._sock = context(identity).wrap_socket(sock, server_hostname=name)
        self._left = b""

    def ask(self, request: bytes, count: int) -> Counter[int]:
        """Send a request so often; return how many answers have which status."""
        self._sock.sendall(request * count)
        found: Counter[int] = Counter()
        while sum(found.values()) < count:
            found[self._answer()] += 1
        return found

    def _answer(self) -> int:
        head = self._until(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if length:
            self._take(int(length[1]))
        else:
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                self._take(size + 2)
            self._until(b"\r\n")
        return int(head.split()[1])

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._left:
            self._read()
        found, _mark, self._left = self._left.partition(mark)
        return found

    def _take(self, size: int) -> None:
        while len(self._left) < size:
            self._read()
        self._left = self._left[size:]

    def _read(self) -> None:
        data = self._sock.recv(65536)
        assert data, "the gate has closed the connection"
        self._left += data

    def close(self) -> None:
        self._sock.close()


def to_gate(nodes: FleetNodes) -> Pipe:
    with nodes.lan.entered():
        return Pipe(nodes.gates[0], nodes.host_credentials("host-a").identity, "node0")


def to_etcd(nodes: FleetNodes) -> Pipe:
    with nodes.nodes[0].namespace.entered():
        return Pipe(("127.0.0.1", 2379), inner_identity(nodes), "localhost")


def inner_identity(nodes: FleetNodes) -> Identity:
    """The certificate of the gate, which etcd accepts."""
    config = nodes.nodes[0].config
    return Identity(str(config / "nodes-ca.pem"), str(config / "inner.pem"))


def flood(
    nodes: FleetNodes,
    watch: Watch,
    gateway: Gateway,
    path: str,
    body: Json,
    count: int,
    connect: Callable[[FleetNodes], Pipe] = to_gate,
) -> tuple[Counter[int], float]:
    """Send many requests as fast as they are answered; return the answers and the seconds.

    Midway, a decision reaches the attacker's watch.
    """
    text = json.dumps(body)
    request = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {gateway.token}\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    ).encode()
    found: Counter[int] = Counter()
    began = time.monotonic()
    # nginx answers at most 1,000 requests of a connection.
    for dummy in range(count // 1000):
        pipe = connect(nodes)
        for turn in range(20):
            found += pipe.ask(request, 50)
            if turn == 10:
                key = f"bans/e1/{time.monotonic_ns()}"
                nodes.put(key, "1")
                assert watch.sees(key)
        pipe.close()
    return found, time.monotonic() - began


def writes(nodes: FleetNodes) -> int:
    """How often the attacker's key was written."""
    found = nodes.root()("/v3/kv/range", {"key": encoded(f"{KEYS}hosts/host-a/seen")})
    return sum(int(kv["version"]) for kv in found.get("kvs", ()))


def test_ten_thousand_puts_are_bounded(nodes: FleetNodes, watch: Watch, gate: Gateway) -> None:
    before = writes(nodes)
    found, seconds = flood(nodes, watch, gate, "/v3/kv/put", put("hosts/host-a/seen"), 10_000)
    assert set(found) == {200, 429}
    assert found[200] <= 15 + 1 + 5 * seconds + 1
    assert writes(nodes) - before == found[200]


def test_ranges_are_bounded(nodes: FleetNodes, watch: Watch, gate: Gateway) -> None:
    body = span(f"{KEYS}bans/", f"{KEYS}bans0")
    found, seconds = flood(nodes, watch, gate, "/v3/kv/range", body, 1000)
    assert set(found) == {200, 429}
    assert found[200] <= 50 + 1 + 10 * seconds + 1


def test_guesses_of_passwords_are_bounded(nodes: FleetNodes, watch: Watch, gate: Gateway) -> None:
    body = {"name": "root", "password": "guess"}
    found, seconds = flood(nodes, watch, gate, "/v3/auth/authenticate", body, 1000)
    tried = sum(found.values()) - found[429]
    assert 200 not in found
    assert tried <= 10 + 1 + seconds + 1


# At the ports of etcd


def closes(address: tuple[str, int], tls: ssl.SSLContext) -> bool:
    """Whether a server ends the connection of a client with this certificate."""
    try:
        with tls.wrap_socket(socket.create_connection(address, 5.0)) as sock:
            sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            return sock.recv(1) == b""
    except OSError:
        return True


@pytest.mark.parametrize("port", [2379, 2380])
def test_etcd_refuses_a_host_s_certificate_and_none(
    nodes: FleetNodes, attacker: Credentials, port: int
) -> None:
    address = ("127.0.0.1" if port == 2379 else NODE, port)
    for certificate in (None, str(attacker.certificate), nodes.nodes[0].config / "etcd.pem"):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if certificate:
            tls.load_cert_chain(certificate)
        with nodes.nodes[0].namespace.entered():
            # The last one shows that the port is open for its own.
            assert closes(address, tls) is (certificate is None or "host-a" in str(certificate))


def test_hosts_do_not_reach_the_clients_port(nodes: FleetNodes) -> None:
    with nodes.lan.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((NODE, 2379), 5.0)


@pytest.mark.parametrize("key", FOREIGN_WRITES.values(), ids=FOREIGN_WRITES)
def test_etcd_itself_lets_a_host_write_no_other_key(
    nodes: FleetNodes, inside: Gateway, key: str
) -> None:
    with nodes.nodes[0].namespace.entered():
        assert refusal(inside, "/v3/kv/put", put(key)).status in (400, 403)


@pytest.mark.parametrize("body", FOREIGN_READS.values(), ids=FOREIGN_READS)
def test_etcd_itself_lets_a_host_read_only_decisions(
    nodes: FleetNodes, inside: Gateway, body: Json
) -> None:
    with nodes.nodes[0].namespace.entered():
        assert refusal(inside, "/v3/kv/range", body).status == 403


REFUSED_BY_ETCD = (
    "delete",
    "defragmentation",
    "snapshot",
    "new member",
    "removal of a member",
    "end of passwords",
    "new user",
    "users",
    "another's password",
)


@pytest.mark.parametrize("name", REFUSED_BY_ETCD)
def test_etcd_itself_refuses(nodes: FleetNodes, inside: Gateway, name: str) -> None:
    path, body = CLOSED[name]
    with nodes.nodes[0].namespace.entered():
        assert "permission denied" in str(refusal(inside, path, body))


def test_a_transaction_with_a_foreign_key_is_refused_as_a_whole(
    nodes: FleetNodes, inside: Gateway
) -> None:
    puts = [{"request_put": put(key)} for key in ("hosts/host-a/seen", "bans/e1/page")]
    before = nodes.revision()
    with nodes.nodes[0].namespace.entered():
        assert refusal(inside, "/v3/kv/txn", {"success": puts}).status == 403
    assert nodes.revision() == before


def test_without_a_token_etcd_itself_neither_reads_nor_writes(nodes: FleetNodes) -> None:
    nobody = Gateway(("127.0.0.1", 2379), inner_identity(nodes))
    key = {"key": encoded(f"{KEYS}bans/e1/page")}
    before = nodes.revision()
    with nodes.nodes[0].namespace.entered():
        for path, body in (
            ("/v3/kv/put", put("hosts/host-a/seen")),
            ("/v3/kv/range", key),
            ("/v3/kv/deleterange", key),
            ("/v3/auth/user/list", {}),
        ):
            assert refusal(nobody, path, body).status in (400, 401, 403), path
    assert nodes.revision() == before


def test_etcd_itself_keeps_a_host_from_ending_the_lease_of_a_ban(
    nodes: FleetNodes, inside: Gateway
) -> None:
    [page] = nodes.root()("/v3/kv/range", {"key": encoded(f"{KEYS}bans/e1/page")})["kvs"]
    with nodes.nodes[0].namespace.entered():
        error = refusal(inside, "/v3/lease/revoke", {"ID": page["lease"]})
    assert "permission denied" in str(error) and nodes.get("bans/e1/page") == "1"


def test_etcd_itself_takes_ten_thousand_puts_and_the_watch_goes_on(
    nodes: FleetNodes, watch: Watch, inside: Gateway
) -> None:
    """Without the gate, nothing bounds them. They are below the host's own key, and disturb no watch."""
    before = writes(nodes)
    body = put("hosts/host-a/seen")
    found, seconds = flood(nodes, watch, inside, "/v3/kv/put", body, 10_000, to_etcd)
    print(f"10,000 puts in {seconds:.0f} s")
    assert set(found) == {200} and writes(nodes) - before == 10_000


def test_etcd_itself_does_not_refuse_what_the_gate_is_there_for(
    nodes: FleetNodes, inside: Gateway
) -> None:
    """If one of these fails with a new version of etcd, the gate has become less important."""
    nobody = Gateway(("127.0.0.1", 2379), inner_identity(nodes))
    alarm = {"memberID": "1", "alarm": "NOSPACE"}
    with nodes.nodes[0].namespace.entered():
        nobody.call("/v3/maintenance/alarm", {"action": "ACTIVATE", **alarm})
        with pytest.raises(Refused, match="space"):
            nodes.put("bans/e1/full", "1")
        nobody.call("/v3/maintenance/alarm", {"action": "DEACTIVATE", **alarm})
        nobody.call("/v3/kv/compaction", {"revision": nodes.revision()})
        nobody.call("/v3/cluster/member/list", {})
        inside.call("/v3/lease/grant", {"TTL": 60})
        inside.call("/v3/kv/put", put("hosts/host-a/seen", "x" * LARGE))
