# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real frames over a cable, as fast as they can be sent: when is the ban active?

A processor handles one packet at a time, so of the SYNs whose processing began before the ban was
written only those on the other processors can still pass: at most one each. All others
that pass came before the threshold. So threshold - 1 packets of each source pass, and at most one more
for each further processor that receives packets.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from kernel.datapath import Datapath, difference, on_cpus
from kernel.hosting import FULL
from kernel.packets import DESTINATION, HOST4, HOST6, VLAN, VLAN_S, syn4, syn6

pytestmark = pytest.mark.usefixtures("plugged_in")

ROUNDS = 3000 if FULL else 600
BURST = 64
THRESHOLD = 5
NMAP = ("nmap", "-sS", "-Pn", "-n", "--max-retries", "0", "--max-rtt-timeout", "100ms")


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    # struct msghdr
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    # struct mmsghdr
    _fields_ = [("header", _Header), ("sent", ctypes.c_uint)]


class Cannon:
    """Sends frames from the peer's end of the cable, a burst per system call."""

    def __init__(self, datapath: Datapath) -> None:
        with datapath.peer():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.bind(("v1", 0))
        self._call = ctypes.CDLL(None, use_errno=True).sendmmsg

    def close(self) -> None:
        self._socket.close()

    def fire(self, frames: Sequence[bytes]) -> None:
        """Send all frames; the cable holds 256 at a time."""
        vectors = (_Vector * len(frames))(*(_Vector(frame, len(frame)) for frame in frames))
        messages = (_Message * len(frames))()
        for message, vector in zip(messages, vectors, strict=True):
            message.header.vectors = ctypes.pointer(vector)
            message.header.count = 1
        sent = self._call(self._socket.fileno(), messages, len(frames), 0)
        assert sent == len(frames), os.strerror(ctypes.get_errno())


@pytest.fixture
def cannon(datapath: Datapath) -> Iterator[Cannon]:
    found = Cannon(datapath)
    yield found
    found.close()


@contextlib.contextmanager
def mode(datapath: Datapath, name: str) -> Iterator[None]:
    """The filter, attached in this mode."""
    datapath.host.attach("v0", name)
    try:
        yield
    finally:
        datapath.host.attach("v0", "native")


def cells(datapath: Datapath) -> dict[str, int]:
    """Return the packets by cell, without the cells of packets that systems send by themselves."""
    noise = ("pass not_ip other", "pass unlisted ipv6")
    return {name: count for name, count in datapath.cells().items() if name not in noise}


def ours(datapath: Datapath) -> int:
    """Return how many of the tests' packets have arrived."""
    return sum(cells(datapath).values())


def arrived(datapath: Datapath, expected: int, seconds: float = 20) -> None:
    """Wait for packets that are still on their way."""
    deadline = time.monotonic() + seconds
    while (count := ours(datapath)) < expected:
        assert time.monotonic() < deadline, f"{count} packets of {expected} have come"
    assert count == expected


def burst(number: int, ports: Sequence[int]) -> list[bytes]:
    source = (0x0A000000 + number).to_bytes(4, "big")
    frames = (syn4("10.0.0.0", port) for port in ports)
    return [frame[:26] + source + frame[30:] for frame in frames]


@pytest.mark.parametrize("attached", ["native", "generic"])
def test_on_one_processor_exactly_the_crossing_syn_is_dropped_first(
    datapath: Datapath, cannon: Cannon, attached: str
) -> None:
    datapath.policy(scan_ports=THRESHOLD, log_connections="none")

    def scan() -> None:
        start = ours(datapath)
        for number in range(1, ROUNDS + 1):
            cannon.fire(burst(number, range(1, BURST + 1)))
            arrived(datapath, start + number * BURST)

    with mode(datapath, attached):
        before = cells(datapath)
        on_cpus(scan)
    assert difference(cells(datapath), before) == {
        "pass unlisted ipv4": ROUNDS * (THRESHOLD - 1),
        "drop scan ipv4": ROUNDS,
        "drop ban ipv4": ROUNDS * (BURST - THRESHOLD),
    }


@pytest.mark.slow
def test_on_two_processors_one_bans_and_nothing_that_comes_after_it_passes(
    datapath: Datapath, cannon: Cannon
) -> None:
    datapath.policy(scan_ports=THRESHOLD, log_connections="none")
    before = datapath.counters()
    passed = _scan_on_two_processors(datapath, cannon)
    assert max(passed) <= THRESHOLD - 1 + 1
    assert min(passed) >= 0
    after = datapath.counters()
    assert sum(after["scans"]) - sum(before["scans"]) == ROUNDS
    assert after["bans"] - before["bans"] == ROUNDS
    assert len(datapath.maps["scan_bans"].items()) == ROUNDS


def _scan_on_two_processors(datapath: Datapath, cannon: Cannon) -> list[int]:
    """Return how many SYNs passed, by round; each processor sends every other port."""
    shots = [
        [burst(number, range(first, BURST + 1, 2)) for number in range(ROUNDS + 1)]
        for first in (1, 2)
    ]
    with mmap.mmap(-1, mmap.PAGESIZE * (2 + ROUNDS // 512)) as memory:
        words = memoryview(memory).cast("Q")
        start = ours(datapath)

        def send(me: int) -> None:
            for number in range(1, ROUNDS + 1):
                words[me] = number
                while min(words[0], words[1]) < number:
                    os.sched_yield()
                cannon.fire(shots[me][number])
                arrived_at_least(datapath, start + number * BURST)
                if me == 0:
                    words[8 + number] = cells(datapath)["pass unlisted ipv4"]

        words[8] = cells(datapath)["pass unlisted ipv4"]
        on_cpus(lambda: send(0), lambda: send(1))
        totals = list(words[8 : 9 + ROUNDS])
        words.release()
    return [after - former for former, after in itertools.pairwise(totals)]


def arrived_at_least(datapath: Datapath, expected: int) -> None:
    deadline = time.monotonic() + 20
    while ours(datapath) < expected:
        assert time.monotonic() < deadline


def syns_behind_headers(count: int) -> list[bytes]:
    return [syn6("2001:db8:7::7", port, kinds=[DESTINATION] * count) for port in range(BURST)]


def test_syns_after_twelve_extension_headers_are_banned(datapath: Datapath, cannon: Cannon) -> None:
    datapath.policy(scan_ports=THRESHOLD)
    before, start = cells(datapath), ours(datapath)
    on_cpus(lambda: cannon.fire(syns_behind_headers(12)))
    arrived(datapath, start + BURST)
    grown = difference(cells(datapath), before)
    assert {name: grown.get(name) for name in ("pass opaque ipv6", "drop scan ipv6")} == {
        "pass opaque ipv6": THRESHOLD - 1,
        "drop scan ipv6": 1,
    }
    assert grown["drop ban ipv6"] == BURST - THRESHOLD
    assert datapath.banned() == {"2001:db8:7::/64"}


@pytest.mark.parametrize("attached", ["native", "generic"])
@pytest.mark.parametrize("tags", [[VLAN] * 3, [VLAN_S, VLAN, VLAN]])
def test_every_packet_after_three_tags_is_dropped_without_a_ban(
    datapath: Datapath, cannon: Cannon, tags: list[int], attached: str
) -> None:
    frames = [syn4("198.51.100.7", port, tags=tags) for port in range(BURST // 2)]
    frames += [syn6("2001:db8:7::7", port, tags=tags) for port in range(BURST // 2)]
    with mode(datapath, attached):
        before, start = cells(datapath), ours(datapath)
        cannon.fire(frames)
        arrived(datapath, start + BURST)
        assert difference(cells(datapath), before)["drop vlan other"] == BURST
    assert not datapath.banned()


@pytest.mark.parametrize("attached", ["native", "generic"])
def test_a_denied_source_is_dropped_after_two_tags(
    datapath: Datapath, cannon: Cannon, attached: str
) -> None:
    datapath.lists(deny=["198.51.100.0/24"])
    with mode(datapath, attached):
        before, start = cells(datapath), ours(datapath)
        for tags in ([], [VLAN], [VLAN_S, VLAN]):
            cannon.fire([syn4("198.51.100.7", port, tags=tags) for port in range(BURST)])
        arrived(datapath, start + 3 * BURST)
        assert difference(cells(datapath), before)["drop deny ipv4"] == 3 * BURST


def nmap(datapath: Datapath, *arguments: str) -> str:
    if not shutil.which("nmap"):
        pytest.skip("nmap is not installed")
    with datapath.peer():
        done = subprocess.run(
            [*NMAP, *arguments], capture_output=True, text=True, timeout=90, check=True
        )
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "scanner"),
    [
        (("-p", "1-60", HOST4), "10.77.0.2"),
        (("-f", "-p", "1-60", HOST4), "10.77.0.2"),
        (("-f", "-f", "-p", "1-60", HOST4), "10.77.0.2"),
        (("-6", "-p", "1-60", HOST6), "fd77::2"),
    ],
    ids=["plain", "fragments of 8 bytes", "fragments of 16 bytes", "ipv6"],
)
def test_a_real_scanner_is_banned(
    datapath: Datapath, arguments: Sequence[str], scanner: str
) -> None:
    before = datapath.counters()
    report = nmap(datapath, *arguments)
    assert datapath.banned() == {scanner}
    after = datapath.counters()
    assert sum(after["scans"]) - sum(before["scans"]) == 1
    ban = datapath.ban_of(scanner)
    assert ban is not None and ban.dropped > 20
    assert "58 filtered" in report or "59 filtered" in report or "60 filtered" in report, report


def test_a_real_client_passes_and_gets_its_answer(datapath: Datapath) -> None:
    with socket.create_server((HOST4, 8500)) as server:
        for _dummy in range(20):
            with datapath.peer():
                client = socket.create_connection((HOST4, 8500), 10)
            answering, dummy = server.accept()
            with client, answering:
                answering.sendall(b"answer")
                assert client.recv(6) == b"answer"
    assert not datapath.banned()


def test_a_host_that_is_banned_still_gets_replies(datapath: Datapath) -> None:
    """A forged SYN cannot cut off connections that this host opens."""
    ban: Callable[..., object] = datapath.bans.add
    ban("10.77.0.2", 600)
    with datapath.peer():
        server = socket.create_server(("10.77.0.2", 8600))
    with server, socket.create_connection(("10.77.0.2", 8600), 10) as client:
        answering, dummy = server.accept()
        with answering:
            answering.sendall(b"answer")
        assert client.recv(6) == b"answer"
