# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scans with other protocols than TCP: UDP, SCTP, and IP protocols that nobody uses."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from socket import AF_INET, AF_INET6, SOCK_DGRAM

import pytest
from kernel.datapath import GRACE, Datapath
from kernel.packets import (
    HOST4,
    HOST6,
    IPV4,
    IPV6,
    MORE_FRAGMENTS,
    SCTP,
    UDP,
    ethernet,
    ipv4,
    ipv6,
    options,
    sctp,
    syn4,
    udp,
)
from kernel.test_ack_kinds import set_stack

from packetwatch_core._kernel import abi
from packetwatch_core._network import listeners, stack

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
OPEN, PUBLISHED, PUBLISHED_SCTP, CLOSED = 8731, 8732, 8733, 8734
CLIENT = 40000
POLICY = {
    "scan_counts": "closed",
    "scan_ports": 5,
    "scan_grace": GRACE,
    "scan_kinds": ["syn", "udp", "sctp", "proto"],
    "published_ports": [f"{PUBLISHED}/udp", f"{PUBLISHED_SCTP}/sctp"],
}


@pytest.fixture
def serving(closed: Datapath) -> Iterator[Datapath]:
    """Everything counts; UDP has a port here and one elsewhere, SCTP one elsewhere."""
    closed.policy(**POLICY)
    set_stack(closed)
    with bound(OPEN):
        yield closed


@contextlib.contextmanager
def bound(port: int, family: int = AF_INET6, address: str = "::") -> Iterator[socket.socket]:
    with socket.socket(family, SOCK_DGRAM) as server:
        server.bind((address, port))
        yield server


def datagram(port: int, sport: int = CLIENT, target: str = HOST4, source: str = SOURCE4) -> bytes:
    return ethernet(IPV4, ipv4(source, target, udp(sport, port, b"data"), UDP))


def datagram6(port: int, sport: int = CLIENT, target: str = HOST6) -> bytes:
    return ethernet(IPV6, ipv6(SOURCE6, target, udp(sport, port, b"data"), UDP))


def init(port: int, chunk: int = 1) -> bytes:
    return ethernet(IPV4, ipv4(SOURCE4, HOST4, sctp(CLIENT, port, chunk), SCTP))


def init6(port: int, chunk: int = 1) -> bytes:
    return ethernet(IPV6, ipv6(SOURCE6, HOST6, sctp(CLIENT, port, chunk), SCTP))


def protocol(number: int) -> bytes:
    return ethernet(IPV4, ipv4(SOURCE4, HOST4, bytes(8), number))


def protocol6(number: int) -> bytes:
    return ethernet(IPV6, ipv6(SOURCE6, HOST6, bytes(8), number))


def counts(datapath: Datapath, frame: bytes) -> bool:
    datapath.run(frame)
    found = datapath.hits()
    datapath.forget_hits()
    return bool(found)


UNUSED = [number for number in range(256) if abi.UNUSED_PROTOCOLS[number >> 6] >> (number & 63) & 1]
UDP_PORTS = (OPEN, PUBLISHED, *range(CLOSED, CLOSED + 6), OPEN)
SCTP_PORTS = (PUBLISHED_SCTP, PUBLISHED_SCTP, *range(CLOSED, CLOSED + 6), PUBLISHED_SCTP)
PROTOCOLS = (1, 47, *UNUSED[:6], 50)


@pytest.mark.parametrize(
    ("make", "targets", "kind"),
    [
        (datagram, UDP_PORTS, "udp"),
        (datagram6, UDP_PORTS, "udp"),
        (init, SCTP_PORTS, "sctp"),
        (init6, SCTP_PORTS, "sctp"),
        (protocol, PROTOCOLS, "proto"),
        (protocol6, PROTOCOLS, "proto"),
    ],
)
def test_a_scan_is_banned_at_the_fifth_probe(
    serving: Datapath, make: Callable[[int], bytes], targets: tuple[int, ...], kind: str
) -> None:
    fates = [serving.fate(make(target)).split()[1] for target in targets]
    assert fates == ["unlisted"] * 6 + ["scan", "ban", "unlisted"]
    (event,) = (event for event in serving.events() if event["type"] == abi.EVENT_BAN)
    assert abi.kind_of(event["flags"]) == kind
    assert set(targets[2:7]) <= set(event["ports"])


def test_without_the_kinds_nothing_counts(closed: Datapath) -> None:
    for frame in (datagram(CLOSED), init(CLOSED), protocol(UNUSED[0]), datagram6(CLOSED)):
        assert not counts(closed, frame)


@pytest.mark.parametrize("kind", ["udp", "sctp", "proto"])
def test_only_the_chosen_kind_counts(serving: Datapath, kind: str) -> None:
    serving.policy(**POLICY | {"scan_kinds": [kind]})
    frames = {"udp": datagram(CLOSED), "sctp": init(CLOSED), "proto": protocol(UNUSED[0])}
    assert [name for name, frame in frames.items() if counts(serving, frame)] == [kind]
    assert not counts(serving, syn4(SOURCE4, CLOSED))


def test_ports_of_different_protocols_are_different_probes(serving: Datapath) -> None:
    for frame in (syn4(SOURCE4, CLOSED), datagram(CLOSED), init(CLOSED)) * 2:
        serving.run(frame)
    assert serving.hits() == 3


# UDP


@pytest.mark.parametrize(
    "sport", [53, 123, 443, 3478, 32767], ids=["resolver", "time", "QUIC", "STUN", "service"]
)
def test_answers_never_count(serving: Datapath, sport: int) -> None:
    assert not counts(serving, datagram(CLOSED, sport)) and not counts(
        serving, datagram6(CLOSED, sport)
    )


@pytest.mark.parametrize("port", [32768, 33434, 33500, 60999, 65535])
def test_clients_and_traceroute_never_count(serving: Datapath, port: int) -> None:
    assert not counts(serving, datagram(port)) and not counts(serving, datagram6(port))


def test_a_host_that_forwards_may_translate_addresses(serving: Datapath) -> None:
    set_stack(serving, forwarding=True)
    try:
        assert not counts(serving, datagram(CLOSED)) and counts(serving, datagram(161))
    finally:
        set_stack(serving)


@pytest.mark.parametrize("target", ["203.0.113.5", "10.77.0.255", "255.255.255.255", "224.0.0.251"])
def test_only_addresses_of_this_host_count(serving: Datapath, target: str) -> None:
    assert not counts(serving, datagram(CLOSED, target=target))
    assert not counts(serving, datagram6(CLOSED, target="ff02::fb"))


def test_sockets_of_one_address_or_one_peer(serving: Datapath) -> None:
    port = CLOSED + 20
    with bound(port, AF_INET, "127.0.0.1"):
        assert counts(serving, datagram(port))
    with bound(port, AF_INET, HOST4) as server:
        assert counts(serving, datagram6(port))
        server.connect(("10.77.0.2", CLIENT))
        assert counts(serving, datagram(port))
        assert not counts(serving, datagram(port, source="10.77.0.2"))


def test_a_port_whose_socket_was_seen_has_its_grace(serving: Datapath) -> None:
    """Media streams go on for a moment after a call has ended."""
    with bound(CLOSED):
        assert not counts(serving, datagram(CLOSED))
    assert not counts(serving, datagram(CLOSED, CLIENT + 1))
    serving.maps["open_ports"].update(CLOSED.to_bytes(4, sys.byteorder), bytes(8))
    assert counts(serving, datagram(CLOSED, CLIENT + 2))


def test_the_agent_reads_sockets_of_udp_too() -> None:
    with bound(CLOSED), bound(CLOSED + 1, AF_INET, "127.0.0.1"):
        assert CLOSED in listeners.read_ports(with_udp=True)
        assert CLOSED + 1 not in listeners.read_ports(with_udp=True)
        assert CLOSED not in listeners.read_ports()


def test_fragments_count_once(serving: Datapath) -> None:
    part = udp(CLIENT, CLOSED, bytes(1472))[:1480]
    first = ethernet(IPV4, ipv4(SOURCE4, HOST4, part, UDP, fragment=MORE_FRAGMENTS))
    later = ethernet(IPV4, ipv4(SOURCE4, HOST4, part, UDP, fragment=185))
    assert counts(serving, first) and not counts(serving, later)


def test_headers_before_it_hide_nothing(serving: Datapath) -> None:
    payload = options(UDP) + udp(CLIENT, CLOSED)
    assert counts(serving, ethernet(IPV6, ipv6(SOURCE6, HOST6, payload, 60)))
    packet = ipv4(SOURCE4, HOST4, udp(CLIENT, CLOSED), UDP, options=b"\1" * 4)
    assert counts(serving, ethernet(IPV4, packet))


def test_what_is_cut_short_does_not_count(serving: Datapath) -> None:
    for payload, number in ((udp(CLIENT, CLOSED)[:7], UDP), (sctp(CLIENT, CLOSED)[:15], SCTP)):
        assert not counts(serving, ethernet(IPV4, ipv4(SOURCE4, HOST4, payload, number)))
        assert not counts(serving, ethernet(IPV6, ipv6(SOURCE6, HOST6, payload, number)))


@pytest.mark.parametrize("make", [datagram, datagram6])
def test_headers_in_a_later_buffer(serving: Datapath, make: Callable[[int], bytes]) -> None:
    serving.run(make(CLOSED), linear=20)
    assert serving.hits() == 1


@pytest.mark.usefixtures("plugged_in")
def test_late_answers_of_a_real_service(serving: Datapath) -> None:
    """A client asks from 30 ports, half of them outside the kernel's range, and does not wait."""
    with serving.peer():
        server = socket.socket(AF_INET, SOCK_DGRAM)
        server.bind(("10.77.0.2", 53))
        server.settimeout(10)
    with server:
        for number in range(30):
            with socket.socket(AF_INET, SOCK_DGRAM) as client:
                if number % 2:
                    client.bind((HOST4, 10000 + number))
                client.sendto(b"question", ("10.77.0.2", 53))
            asked, sender = server.recvfrom(100)
            server.sendto(asked, sender)
    assert not serving.hits() and not serving.banned()


@pytest.mark.usefixtures("plugged_in")
def test_a_real_service_is_asked_and_answers(serving: Datapath) -> None:
    def answer() -> None:
        for dummy in range(20):
            server.sendto(*server.recvfrom(100))

    with bound(CLOSED + 40) as server:
        server.settimeout(10)
        thread = threading.Thread(target=answer)
        thread.start()
        for dummy in range(20):
            with serving.peer(), socket.socket(AF_INET, SOCK_DGRAM) as client:
                client.settimeout(10)
                client.sendto(b"question", (HOST4, CLOSED + 40))
                assert client.recv(100) == b"question"
        thread.join()
    assert not serving.hits()


# SCTP and IP protocols


@pytest.mark.parametrize("make", [init, init6])
def test_only_the_start_of_an_association_counts(
    serving: Datapath, make: Callable[..., bytes]
) -> None:
    assert [chunk for chunk in range(16) if counts(serving, make(CLOSED, chunk))] == [1, 10]


def test_ports_count_only_while_nobody_uses_sctp(serving: Datapath) -> None:
    with socket.socket(AF_INET, socket.SOCK_RAW, SCTP):
        stack.write_stack(serving.maps)
        assert not counts(serving, init(CLOSED))
        assert counts(serving, protocol(UNUSED[0])) and counts(serving, datagram(CLOSED))
    stack.write_stack(serving.maps)
    assert counts(serving, init(CLOSED))


def test_all_protocols(serving: Datapath) -> None:
    for number in range(256):
        if number != UDP:
            assert counts(serving, protocol(number)) == (number in UNUSED), number


def test_no_protocol_counts_while_a_raw_socket_has_one(serving: Datapath) -> None:
    for family, make in ((AF_INET, protocol), (AF_INET6, protocol6)):
        with socket.socket(family, socket.SOCK_RAW, UNUSED[3]):
            stack.write_stack(serving.maps)
            assert not counts(serving, make(UNUSED[0]))
        with socket.socket(family, socket.SOCK_RAW, 89):  # OSPF
            stack.write_stack(serving.maps)
            assert counts(serving, make(UNUSED[0]))
            assert not counts(serving, make(89))
    stack.write_stack(serving.maps)


def test_nothing_counts_while_the_stack_is_unknown(serving: Datapath) -> None:
    serving.maps["shared"].write_word(abi.STACK, 0)
    assert not any(
        counts(serving, frame)
        for frame in (datagram(CLOSED), datagram(1), init(CLOSED), protocol(UNUSED[0]))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scan", "kinds"),
    [
        (["-sU", "-p", f"{CLOSED}-{CLOSED + 30}"], {"udp"}),
        (["-sY", "-p", f"{CLOSED}-{CLOSED + 30}"], {"sctp"}),
        # The order of protocols is random, and UDP and SCTP are among them.
        (["-sO"], {"proto", "sctp", "udp"}),
    ],
)
@pytest.mark.parametrize(("target", "scanner"), [(HOST4, "10.77.0.2"), (HOST6, "fd77::2")])
@pytest.mark.usefixtures("plugged_in")
def test_a_real_scan_is_banned(
    serving: Datapath, scan: list[str], kinds: set[str], target: str, scanner: str
) -> None:
    if not shutil.which("nmap"):
        pytest.skip("nmap is not installed")
    command = ["nmap", *scan, "-Pn", "-n", "--max-retries", "0", "--max-rtt-timeout", "100ms"]
    command += [*(["-6"] if ":" in target else []), target]
    with serving.peer():
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert serving.banned() == {scanner}, done.stdout
    ban = serving.ban_of(scanner)
    assert ban is not None and ban.ports == 5 and ban.kind in kinds and ban.dropped > 10
