# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`scan_counts: closed`: real listeners, real clients, and ports that only look closed."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from socket import AF_INET, AF_INET6

import pytest
from kernel.datapath import Datapath, Namespace, command
from kernel.packets import ACK, HOST4, HOST6, MORE_FRAGMENTS, ethernet, ipv4, syn4, syn6, tcp

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
PASSES4, PASSES6 = "pass unlisted ipv4", "pass unlisted ipv6"
SCAN4, SCAN6 = "drop scan ipv4", "drop scan ipv6"
GRACE = 30
PORTS = 65536


@pytest.fixture
def closed(datapath: Datapath) -> Datapath:
    """Five closed ports are a scan; no port was ever seen open."""
    datapath.policy(scan_counts="closed", scan_ports=5, scan_grace=GRACE)
    keys = b"".join(port.to_bytes(4, sys.byteorder) for port in range(PORTS))
    datapath.maps["open_ports"].update_many(keys, bytes(8 * PORTS), PORTS)
    return datapath


@contextlib.contextmanager
def listening(family: int, address: str, port: int, v6only: bool = False) -> Iterator[None]:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        server.bind((address, port))
        server.listen(64)
        yield


def counts(datapath: Datapath, frame: bytes) -> bool:
    """Whether a frame from a source that was never seen leaves a trace."""
    datapath.run(frame)
    tracks = datapath.maps["tracks"].items()
    for key, dummy in tracks:
        datapath.maps["tracks"].delete(key)
    return bool(tracks)


def test_a_scan_of_closed_ports_is_banned_at_the_fifth(closed: Datapath) -> None:
    fates = closed.fates(*(syn4(SOURCE4, port) for port in range(1, 101)))
    assert fates == [PASSES4] * 4 + [SCAN4] + ["drop ban ipv4"] * 95
    fates = closed.fates(*(syn6(SOURCE6, port) for port in range(1, 101)))
    assert fates == [PASSES6] * 4 + [SCAN6] + ["drop ban ipv6"] * 95


def test_a_real_scan_is_banned_at_the_fifth_closed_port(closed: Datapath) -> None:
    if not shutil.which("nmap"):
        pytest.skip("nmap is not installed")
    before = closed.counters()
    with listening(AF_INET, "0.0.0.0", 22), listening(AF_INET, "0.0.0.0", 80):
        scanner = ["nmap", "-sS", "-Pn", "-n", "-p", "1-100", "--max-retries", "0"]
        with closed.peer():
            subprocess.run([*scanner, HOST4], capture_output=True, timeout=60, check=True)
    ban = closed.ban_of("10.77.0.2")
    assert ban is not None and ban.ports == 5
    after = closed.counters()
    assert after["scans"] - before["scans"] == 1
    assert after["connections"][1] - before["connections"][1] <= 7


SERVED = [
    (AF_INET, "0.0.0.0", 8001, False),
    (AF_INET, "0.0.0.0", 8002, False),
    (AF_INET, HOST4, 8003, False),
    (AF_INET, HOST4, 8004, False),
    (AF_INET6, "::", 8005, False),
    (AF_INET6, "::", 8006, False),
    (AF_INET6, "::", 8007, True),
    (AF_INET6, "::", 8008, True),
    (AF_INET6, HOST6, 8009, True),
    (AF_INET6, HOST6, 8010, True),
]


def test_a_client_of_ten_served_ports_is_never_suspected(closed: Datapath) -> None:
    with contextlib.ExitStack() as stack:
        for family, address, port, v6only in SERVED:
            stack.enter_context(listening(family, address, port, v6only))
        before = closed.counters()
        for dummy, address, port, v6only in SERVED:
            targets = [HOST6] if ":" in address else [HOST4]
            if address == "::" and not v6only:
                targets.append(HOST4)
            for target in targets:
                with closed.peer(), socket.create_connection((target, port), 10):
                    pass
        after = closed.counters()
        connections = [b - a for a, b in zip(before["connections"], after["connections"])]
        assert connections == [0, 6, 6]
    assert not closed.maps["tracks"].items()
    assert not closed.banned()


def test_a_port_served_in_the_other_family_only_is_closed(closed: Datapath) -> None:
    with (
        listening(AF_INET, "0.0.0.0", 8101),
        listening(AF_INET6, "::", 8102, v6only=True),
        listening(AF_INET, "127.0.0.1", 8103),
    ):
        assert counts(closed, syn6(SOURCE6, 8101))
        assert counts(closed, syn4(SOURCE4, 8102))
        assert counts(closed, syn4(SOURCE4, 8103))
        assert not counts(closed, syn4(SOURCE4, 8101))
        assert not counts(closed, syn6(SOURCE6, 8102))


def test_a_port_closed_within_the_grace_is_not_counted(closed: Datapath) -> None:
    with listening(AF_INET, "0.0.0.0", 8201):
        assert not counts(closed, syn4(SOURCE4, 8201))
    assert not counts(closed, syn4(SOURCE4, 8201))
    key = (8201).to_bytes(4, sys.byteorder)
    for age, expected in ((GRACE - 10, False), (GRACE + 1, True)):
        seen = time.monotonic_ns() - age * 10**9
        closed.maps["open_ports"].update(key, seen.to_bytes(8, sys.byteorder))
        assert counts(closed, syn4(SOURCE4, 8201)) == expected


def test_without_grace_a_port_is_closed_at_once(closed: Datapath) -> None:
    closed.policy(scan_counts="closed", scan_ports=5, scan_grace=0)
    with listening(AF_INET, "0.0.0.0", 8202):
        assert not counts(closed, syn4(SOURCE4, 8202))
    assert counts(closed, syn4(SOURCE4, 8202))


def test_nothing_counts_until_services_had_time_to_start(closed: Datapath) -> None:
    day = 86400
    if time.monotonic() > day - 60:
        pytest.skip("this machine has been up for longer than the longest grace")
    closed.policy(scan_counts="closed", scan_ports=5, scan_grace=day)
    assert closed.fates(*(syn4(SOURCE4, port) for port in range(1, 20))) == [PASSES4] * 19


@pytest.mark.parametrize(
    "target", ["203.0.113.5", "10.77.0.2", "10.77.0.255", "255.255.255.255", "224.0.0.1"]
)
def test_what_is_not_for_this_host_is_no_evidence(closed: Datapath, target: str) -> None:
    frames = [syn4(SOURCE4, port, target) for port in range(1, 20)]
    assert closed.fates(*frames) == [PASSES4] * 19
    assert not closed.maps["tracks"].items()


@pytest.mark.parametrize("target", ["2001:db8:1::5", "fd77::2", "ff02::1"])
def test_what_is_not_for_this_host_is_no_evidence_in_ipv6(closed: Datapath, target: str) -> None:
    frames = [syn6(SOURCE6, port, target) for port in range(1, 20)]
    assert closed.fates(*frames) == [PASSES6] * 19


def test_only_syns_to_closed_ports_count(closed: Datapath) -> None:
    frames = [syn4(SOURCE4, port, flags=ACK) for port in range(1, 20)]
    assert closed.fates(*frames) == [PASSES4] * 19


def test_a_fragmented_scan_of_closed_ports_is_banned(closed: Datapath) -> None:
    def first(port: int) -> bytes:
        return ethernet(0x0800, ipv4(SOURCE4, HOST4, tcp(40000, port)[:8], fragment=MORE_FRAGMENTS))

    with listening(AF_INET, "0.0.0.0", 8301):
        assert not counts(closed, first(8301))
    fates = closed.fates(*(first(port) for port in range(1, 6)))
    assert fates == ["pass opaque ipv4"] * 4 + [SCAN4]


def test_hidden_ports_count_only_towards_this_host(closed: Datapath) -> None:
    assert counts(closed, ethernet(0x0800, ipv4(SOURCE4, HOST4, bytes(8), fragment=1)))
    away = ethernet(0x0800, ipv4(SOURCE4, "203.0.113.5", bytes(8), fragment=1))
    assert not counts(closed, away)


# A port that is served in another namespace


@pytest.fixture
def container(closed: Datapath) -> Iterator[Namespace]:
    """A namespace behind the host, to which the host's port 8080 is redirected."""
    if not shutil.which("nft"):
        pytest.skip("nft is not installed")
    host = closed.host_namespace
    inner = Namespace(host.name.replace("-host", "-container"))
    rules = (
        "add table ip packetwatch_test",
        "add chain ip packetwatch_test before { type nat hook prerouting priority dstnat ; }",
        "add rule ip packetwatch_test before tcp dport 8080 dnat to 10.78.0.2:80",
    )
    try:
        command(f"ip -n {host.name} link add c0 type veth peer name c1 netns {inner.name}")
        for name, device, address in (
            (host.name, "c0", "10.78.0.1/24"),
            (inner.name, "c1", "10.78.0.2/24"),
        ):
            command(f"ip -n {name} address add {address} dev {device}")
            command(f"ip -n {name} link set {device} up")
        inner.command("ip route add default via 10.78.0.1")
        host.command("sysctl -qw net.ipv4.ip_forward=1")
        for rule in rules:
            host.command(f"nft {rule}")
        yield inner
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "packetwatch_test"], check=False)
        inner.close()


def connect(datapath: Datapath, port: int) -> None:
    with datapath.peer(), socket.create_connection((HOST4, port), 10):
        pass


def test_a_published_port_of_a_container_is_served(closed: Datapath, container: Namespace) -> None:
    with contextlib.ExitStack() as stack:
        with container.inside():
            stack.enter_context(listening(AF_INET, "0.0.0.0", 80))
        connect(closed, 8080)
        assert len(closed.maps["tracks"].items()) == 1, "it looks closed"
        for key, dummy in closed.maps["tracks"].items():
            closed.maps["tracks"].delete(key)

        closed.policy(
            scan_counts="closed", scan_ports=5, scan_grace=GRACE, published_ports="8080,9000-9063"
        )
        connect(closed, 8080)
        assert not closed.maps["tracks"].items()


def test_a_client_of_ten_served_ports_with_a_published_one_is_not_banned(
    closed: Datapath, container: Namespace
) -> None:
    closed.policy(scan_counts="closed", scan_ports=1, scan_grace=GRACE, published_ports="8080")
    with contextlib.ExitStack() as stack:
        for port in range(8401, 8410):
            stack.enter_context(listening(AF_INET6, "::", port))
        with container.inside():
            stack.enter_context(listening(AF_INET, "0.0.0.0", 80))
        for port in (*range(8401, 8410), 8080):
            connect(closed, port)
    assert not closed.banned()


@pytest.mark.parametrize("ports", ["1-65535", "63,64,127-128,65535"])
def test_published_ports_are_taken_exactly(closed: Datapath, ports: str) -> None:
    closed.policy(scan_counts="closed", scan_ports=5, scan_grace=GRACE, published_ports=ports)
    published = set(range(1, PORTS)) if "1-" in ports else {63, 64, 127, 128, 65535}
    for port in (0, 1, 62, 63, 64, 65, 126, 127, 128, 129, 1000, 65534, 65535):
        assert counts(closed, syn4(SOURCE4, port)) == (port not in published), port
