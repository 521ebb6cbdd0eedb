# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Segments with ACK that nobody here expects: the scans `-sA`, `-sW`, `-sM` and SYN+ACK, and honest traffic."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
from kernel.datapath import GRACE, Datapath, listening, wait_for
from kernel.packets import (
    ACK,
    ECE,
    FIN,
    HOST4,
    HOST6,
    IPV4,
    IPV6,
    PUSH,
    RST,
    SYN,
    URGENT,
    ethernet,
    ipv4,
    ipv6,
    syn4,
    syn6,
    tcp,
)

from packetwatch_core._kernel import abi
from packetwatch_core._network import stack

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
OPEN, PUBLISHED, CLOSED = 8711, 8712, 8713
SERVICE, CLIENT = 443, 40000
TIMESTAMPS = b"\x01\x01\x08\x0a" + bytes(8)
MSS = b"\x02\x04\x05\xb4"
KINDS = {"ACK": ACK, "Maimon": FIN | ACK, "SYN+ACK": SYN | ACK, "odd": ACK | PUSH | URGENT | ECE}
FAMILIES: list[tuple[Callable[..., bytes], str]] = [(syn4, SOURCE4), (syn6, SOURCE6)]
POLICY = {"scan_counts": "closed", "scan_ports": 5, "scan_grace": GRACE}


def set_stack(datapath: Datapath, forwarding: bool = False, ports: str = "32768 60999") -> None:
    """Set what the host's namespace does with packets and ports, and report it to the program."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text(str(int(forwarding)))
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(ports)
    stack.write_stack(datapath.maps)


@pytest.fixture
def serving(closed: Datapath) -> Iterator[Datapath]:
    """Five closed ports are a scan; one port has a service here, another one elsewhere."""
    closed.policy(**POLICY, published_ports=str(PUBLISHED))
    set_stack(closed)
    with listening(AF_INET6, "::", OPEN):
        yield closed
    set_stack(closed)


def segment(
    port: int, flags: int = ACK, sport: int = CLIENT, options: bytes = b"", data: bytes = b""
) -> bytes:
    return ethernet(IPV4, ipv4(SOURCE4, HOST4, tcp(sport, port, flags, options) + data))


def segment6(
    port: int, flags: int = ACK, sport: int = CLIENT, options: bytes = b"", data: bytes = b""
) -> bytes:
    return ethernet(IPV6, ipv6(SOURCE6, HOST6, tcp(sport, port, flags, options) + data))


def counts(datapath: Datapath, frame: bytes) -> bool:
    datapath.run(frame)
    found = datapath.hits()
    datapath.forget_hits()
    return bool(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("make", "source"), FAMILIES, ids=["ipv4", "ipv6"])
def test_a_scan_is_banned_at_the_fifth_closed_port(
    serving: Datapath, make: Callable[..., bytes], source: str, kind: str
) -> None:
    ports = (OPEN, PUBLISHED, *range(CLOSED, CLOSED + 6), OPEN)
    fates = [serving.fate(make(source, port, flags=KINDS[kind])).split()[1] for port in ports]
    assert fates == ["unlisted"] * 6 + ["scan", "ban", "unlisted"]
    (event,) = (event for event in serving.events() if event["type"] == abi.EVENT_BAN)
    assert abi.kind_of(event["flags"]) == "ack"
    assert event["count"] == 5 and set(range(CLOSED, CLOSED + 5)) <= set(event["ports"])


def test_they_count_together_with_syns_as_the_same_probes(serving: Datapath) -> None:
    frames = [
        syn4(SOURCE4, CLOSED + port, flags=flags) for port in range(2) for flags in (SYN, ACK)
    ]
    serving.fates(*frames)
    assert serving.hits() == 2


NEVER: dict[str, dict[str, Any]] = {
    "reset": {"flags": RST | ACK},
    "reset with SYN": {"flags": RST | ACK | SYN},
    "data": {"data": b"x"},
    "timestamps": {"options": TIMESTAMPS},
    "from a service": {"sport": SERVICE},
    "backscatter": {"flags": SYN | ACK, "sport": SERVICE, "options": MSS},
    "to a client": {"port": 50000},
    "to the first port of clients": {"port": 32768},
}


@pytest.mark.parametrize("case", NEVER)
@pytest.mark.parametrize("make", [segment, segment6])
def test_what_never_counts(serving: Datapath, make: Callable[..., bytes], case: str) -> None:
    assert not counts(serving, make(**{"port": CLOSED, **NEVER[case]}))


@pytest.mark.parametrize("make", [segment, segment6])
@pytest.mark.parametrize(
    "odd", [{"sport": 32768}, {"port": 32767}, {"flags": SYN | ACK, "options": MSS}]
)
def test_what_counts_at_the_limits(
    serving: Datapath, make: Callable[..., bytes], odd: dict[str, int]
) -> None:
    assert counts(serving, make(**{"port": CLOSED, **odd}))


def test_forwarded_segments_are_no_evidence(serving: Datapath) -> None:
    for flags in KINDS.values():
        assert not counts(serving, syn4(SOURCE4, CLOSED, "203.0.113.5", flags))
        assert not counts(serving, syn6(SOURCE6, CLOSED, "2001:db8:1::5", flags))


def test_a_host_that_forwards_may_translate_addresses(serving: Datapath) -> None:
    """Then answers to other hosts come to any port from 1024 on."""
    set_stack(serving, forwarding=True)
    assert not counts(serving, segment(CLOSED)) and not counts(serving, segment(1024))
    assert counts(serving, segment(1023))


def test_ports_of_clients_are_those_of_the_kernel(serving: Datapath) -> None:
    set_stack(serving, ports="8713 9999")
    assert counts(serving, segment(CLOSED - 3))
    assert not counts(serving, segment(CLOSED))
    set_stack(serving, ports="50000 60999")
    assert counts(serving, segment(32767)) and not counts(serving, segment(32768))


def test_nothing_counts_while_the_ports_of_clients_are_unknown(serving: Datapath) -> None:
    serving.maps["shared"].write_word(abi.STACK, 0)
    assert not counts(serving, segment(CLOSED)) and not counts(serving, segment(1))
    assert counts(serving, syn4(SOURCE4, CLOSED))


@pytest.mark.parametrize(
    "options", [{"scan_kinds": ["syn", "stealth"]}, {"scan_counts": "any", "scan_ports": 3}]
)
def test_policies_by_which_they_do_not_count(serving: Datapath, options: dict[str, object]) -> None:
    serving.policy(**POLICY | options)
    assert not counts(serving, segment(CLOSED))
    assert counts(serving, syn4(SOURCE4, CLOSED))


def test_kinds_that_are_left_out_do_not_count(serving: Datapath) -> None:
    serving.policy(**POLICY, scan_kinds=["ack"])
    assert counts(serving, segment(CLOSED))
    assert not counts(serving, syn4(SOURCE4, CLOSED))
    assert not counts(serving, syn4(SOURCE4, CLOSED, flags=FIN))


def test_nothing_counts_until_services_had_time_to_start(serving: Datapath) -> None:
    serving.policy(**POLICY | {"scan_grace": 86400})
    assert not counts(serving, segment(CLOSED))


def test_a_banned_source_keeps_its_connections(serving: Datapath) -> None:
    serving.bans.add(SOURCE4, 600)
    assert serving.fates(segment(CLOSED), segment(OPEN), segment(CLOSED, sport=SERVICE)) == [
        "drop ban ipv4",
        "pass unlisted ipv4",
        "pass unlisted ipv4",
    ]


def test_a_known_flow_is_not_looked_up_again(serving: Datapath) -> None:
    """Its socket is gone, and the program does not know that for up to 256 jiffies."""
    port, attempts = CLOSED + 9, 5
    for attempt in range(attempts):
        with listening(AF_INET, "0.0.0.0", port):
            assert not counts(serving, segment(port, sport=CLIENT + attempt))
        serving.maps["open_ports"].update(port.to_bytes(4, sys.byteorder), bytes(8))
        known = not counts(serving, segment(port, sport=CLIENT + attempt))
        assert counts(serving, segment(port, sport=CLIENT + attempts))
        if known:
            break
    else:
        pytest.fail("each flow was looked up again")


# Real connections


class Connection:
    """A connection from the peer to a port of the host, and its segments."""

    def __init__(self, datapath: Datapath, port: int) -> None:
        self._datapath = datapath
        self.port = port
        with socket.create_server((HOST4, port)) as listener:
            with datapath.peer():
                self.client = socket.create_connection((HOST4, port), 10)
            self.server = listener.accept()[0]
        self._name = self.client.getsockname()
        self.forget_the_grace()

    def forget_the_grace(self) -> None:
        key = self.port.to_bytes(4, sys.byteorder)
        self._datapath.maps["open_ports"].update(key, bytes(8))

    def segment(self, flags: int = ACK) -> bytes:
        address, sport = self._name
        return ethernet(IPV4, ipv4(address, HOST4, tcp(sport, self.port, flags)))

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def connection(serving: Datapath, plugged_in: None) -> Iterator[Connection]:
    found = Connection(serving, CLOSED + 20)
    serving.forget_hits()
    yield found
    found.close()


def test_a_connection_whose_listener_is_gone(serving: Datapath, connection: Connection) -> None:
    assert counts(serving, segment(connection.port)), "nobody listens"
    connection.forget_the_grace()
    assert not counts(serving, connection.segment())
    assert not counts(serving, connection.segment(FIN | ACK))


def test_a_port_whose_connection_was_seen_has_its_grace(
    serving: Datapath, connection: Connection
) -> None:
    assert not counts(serving, connection.segment())
    connection.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.server.close()
    assert not counts(serving, connection.segment())
    assert not counts(serving, segment(connection.port)) and not counts(
        serving, syn4(SOURCE4, connection.port)
    )


def test_late_segments_meet_a_socket_that_waits(serving: Datapath, connection: Connection) -> None:
    connection.server.shutdown(socket.SHUT_RDWR)
    connection.server.close()
    with serving.peer():
        assert connection.client.recv(1) == b""
        connection.client.close()
    query = ["ss", "-tan", f"sport = :{connection.port}"]
    wait_for(lambda: b"TIME-WAIT" in subprocess.check_output(query))
    assert not counts(serving, connection.segment())
    assert not counts(serving, connection.segment(FIN | ACK))


def test_clients_without_timestamps_are_never_suspected(
    serving: Datapath, plugged_in: None
) -> None:
    """Short ones, long ones, resets by either side, services that end, connections of the host itself."""
    timestamps = Path("/proc/sys/net/ipv4/tcp_timestamps")
    ports = range(CLOSED + 30, CLOSED + 50)
    try:
        timestamps.write_text("0")
        for port in ports:
            with socket.create_server((HOST4, port)) as listener:
                with serving.peer():
                    client = socket.create_connection((HOST4, port), 10)
                server = listener.accept()[0]
            for side in ((client, server), (server, client))[port % 2]:
                with contextlib.suppress(OSError):  # the other side may have reset it
                    side.sendall(b"x" * 100_000)
                if port % 3 == 0:
                    linger = struct.pack("ii", 1, 0)
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                side.close()
        with serving.peer():
            listener = socket.create_server(("10.77.0.2", 52000))
        with listener:
            for dummy in ports:
                with socket.create_connection(("10.77.0.2", 52000), 10) as client:
                    server = listener.accept()[0]
                    server.sendall(b"x" * 1000)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                server.close()
    finally:
        timestamps.write_text("1")
    assert not serving.hits() and not serving.banned()


@pytest.mark.slow
@pytest.mark.parametrize("scan", ["-sA", "-sW", "-sM", "--scanflags=SYNACK"])
@pytest.mark.parametrize(("target", "scanner"), [(HOST4, "10.77.0.2"), (HOST6, "fd77::2")])
@pytest.mark.usefixtures("plugged_in")
def test_a_real_scan_is_banned(serving: Datapath, scan: str, target: str, scanner: str) -> None:
    if not shutil.which("nmap"):
        pytest.skip("nmap is not installed")
    command = ["nmap", scan, "-Pn", "-n", "--max-retries", "0", "--max-rtt-timeout", "100ms"]
    command += ["-p", f"{OPEN}-{CLOSED + 28}", *(["-6"] if ":" in target else []), target]
    with serving.peer():
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert serving.banned() == {scanner}, done.stdout
    ban = serving.ban_of(scanner)
    assert ban is not None and ban.ports == 5 and ban.kind == "ack" and ban.dropped > 15
