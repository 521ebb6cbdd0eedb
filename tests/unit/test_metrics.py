# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of the metrics, their server and their documentation."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from packetwatch_bus.__main__ import Counter
from unit.catalogue import CATALOGUE

from packetwatch_agent import metrics, scrape
from packetwatch_agent.counters import of_counters
from packetwatch_agent.loop import IDLE, Loop
from packetwatch_agent.process import Process
from packetwatch_core._kernel import abi, counters
from packetwatch_fleet.bus.publisher import Publisher

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r'[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+')


def test_counters_of_all_cpus_are_added() -> None:
    packets = [0] * (len(abi.REASONS) * len(abi.FAMILIES))
    packets[abi.REASONS.index(("drop", "ban")) * 3 + 1] = 5
    one = abi.COUNTERS.pack(packets=packets, scans=(2, 1), connections=(0, 7, 1), bans=1)
    values = of_counters(counters.add_up(one * 4))
    labels = {"verdict": "drop", "reason": "ban", "family": "ipv4"}
    assert (labels, 20) in values["packetwatch_packets_total"]
    assert sum(value for dummy, value in values["packetwatch_packets_total"]) == 20
    assert values["packetwatch_scans_total"][:2] == [({"kind": "syn"}, 8), ({"kind": "stealth"}, 4)]
    assert sum(value for dummy, value in values["packetwatch_scans_total"]) == 12
    assert values["packetwatch_connections_total"] == [
        ({"family": "ipv4"}, 28),
        ({"family": "ipv6"}, 4),
    ]
    assert values["packetwatch_bans_total"] == [({"origin": "scan"}, 4)]


def test_sums_over_cpus_for_all_who_ask() -> None:
    cells = [0] * (len(abi.REASONS) * len(abi.FAMILIES))
    for family, number in ((1, 2**40), (2, 3)):
        cells[abi.REASONS.index(("pass", "allow")) * len(abi.FAMILIES) + family] = number
    block = abi.COUNTERS.pack(packets=cells, connections=(0, 7, 1), events_lost=4)
    found = counters.add_up(block * 3 + block[:-1])
    assert counters.packets_by_reason(found) == {"pass allow": 3 * (2**40 + 3)}
    assert ("pass", "allow", "ipv6", 9) in list(counters.packets(found))
    assert counters.connections(found) == {"ipv4": 21, "ipv6": 3}
    assert found["events_lost"] == 12
    assert counters.add_up(b"") == abi.COUNTERS.unpack(bytes(abi.COUNTERS.size))


def test_text_format() -> None:
    values = of_counters(counters.add_up(abi.COUNTERS.pack())) | Process().values()
    text = metrics.render(CATALOGUE, values)
    assert text.endswith("\n")
    for line in text.splitlines():
        assert line.startswith("# ") or LINE.fullmatch(line)
    names = re.findall(r"^# TYPE (\S+)", text, re.M)
    assert len(names) == len(set(names))


def test_labels_are_escaped() -> None:
    text = metrics.render(CATALOGUE, {"packetwatch_attached": [({"interface": 'a"b\\c'}, 1)]})
    assert 'packetwatch_attached{interface="a\\"b\\\\c"} 1' in text


def test_large_counters_keep_their_digits() -> None:
    assert "9007199254740993" in metrics.render(
        CATALOGUE, {"packetwatch_scans_total": [({}, 2**53 + 1)]}
    )


@pytest.mark.parametrize("name", CATALOGUE)
def test_names(name: str) -> None:
    kind, text = CATALOGUE[name]
    assert name.startswith("packetwatch_")
    assert (kind == metrics.COUNTER) == name.endswith("_total")
    assert text.endswith(".")


def test_documentation_names_every_metric_and_no_other() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    bus = Publisher.METRICS | Counter.METRICS
    assert set(re.findall(r"^\| `(packetwatch_[a-z_]+)", text, re.M)) == set(CATALOGUE | bus)


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    loop = Loop(lambda: IDLE)
    page = "packetwatch_scans_total 1\n" * 100_000
    server = scrape.Server(loop, ("127.0.0.1", 0), lambda: page)
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield server.address
    loop.stop()
    thread.join()
    server.close()
    loop.close()


def ask(address: tuple[str, int], request: bytes) -> bytes:
    with socket.create_connection(address, timeout=5) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_a_page_larger_than_the_socket_s_buffer(server: tuple[str, int]) -> None:
    with urllib.request.urlopen(f"http://{server[0]}:{server[1]}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"] == metrics.CONTENT_TYPE
        assert len(answer.read()) == 2_600_000


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics?x=1 HTTP/1.0", b"200"),
        (b"HEAD /metrics HTTP/1.1", b"200"),
        (b"GET / HTTP/1.1", b"404"),
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"GET /metrics", b"400"),
        (b"\xff\xfe\x00", b"400"),
    ],
)
def test_requests(server: tuple[str, int], request_line: bytes, status: bytes) -> None:
    assert ask(server, request_line + b"\r\n\r\n").split(b" ")[1] == status


def test_a_request_without_an_end_is_refused(server: tuple[str, int]) -> None:
    # Data that is unread at the close resets the connection, maybe before the answer is read.
    with contextlib.suppress(ConnectionResetError):
        assert ask(server, b"GET /" + b"x" * 20_000).split(b" ")[1] == b"400"
    assert ask(server, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_ipv6_and_an_address_that_comes_later() -> None:
    for host in ("::1", "192.0.2.77", "2001:db8::77"):
        loop = Loop(lambda: IDLE)
        try:
            server = scrape.Server(loop, (host, 0), str)
        except OSError as error:
            assert ":" in host
            pytest.skip(f"no IPv6 here: {error}")
        assert server.address[0] == host
        server.close()
        loop.close()


@pytest.mark.slow
def test_clients_that_go_away_keep_nobody_out(server: tuple[str, int]) -> None:
    gone = [socket.create_connection(server) for dummy in range(40)]
    for client in gone:
        client.close()
    assert ask(server, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_sums_of_garbage_counters_wrap_like_the_kernels() -> None:
    raw = b"\xff" * abi.COUNTERS.size
    found = counters.add_up(raw * 2)
    assert found["bans"] == 2**64 - 2


@pytest.mark.slow
def test_silent_connections_do_not_keep_prometheus_out(server: tuple[str, int]) -> None:
    with contextlib.ExitStack() as held:
        for dummy in range(100):
            held.enter_context(socket.create_connection(server, 5))
        assert ask(server, b"HEAD /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")
