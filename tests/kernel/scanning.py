# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real scanners: each scans the filtered host from a namespace and an address of its own.

They spend their time waiting, so many of them scan at the same time.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kernel.datapath import Datapath, wait_for
from kernel.hosting import Namespace, ip
from kernel.packets import HOST4, HOST6

SCANNERS = 32
NETWORK4, NETWORK6 = "10.79.0.0/16", "fd79::/16"
NMAP = ("nmap", "-n", "-Pn", "--disable-arp-ping", "--max-retries", "0")
DOOR = 9099
"""A port with a service, so that it is no probe."""
SO_TIMESTAMPNS = 35
ETH_P = {4: 0x0800, 6: 0x86DD}
# By protocol number: the types of errors, which quote the packet that they are about.
ICMP = {1: (3,), 58: (1, 4)}


class Job(NamedTuple):
    """One run of nmap: its arguments, without the option of the family."""

    family: int
    arguments: tuple[str, ...]


class Report(NamedTuple):
    """The scanner's address, and when its probes were answered (Unix time)."""

    source: str
    answers: tuple[float, ...]

    @property
    def answered(self) -> int:
        return len(self.answers)


Run = Callable[[Sequence[Job]], list[Report]]


def source_of(number: int, family: int) -> str:
    """The address of a scanner. No two of them have the same one, nor the same /64."""
    number += 1
    return f"10.79.{number >> 8}.{number & 255}" if family == 4 else f"fd79:0:0:{number:x}::2"


@contextlib.contextmanager
def scanners(datapath: Datapath) -> Iterator[Run]:
    """Return what runs jobs from the other end of the cable, some at the same time."""
    ip(f"route replace {NETWORK4} dev v0")
    ip(f"-6 route replace {NETWORK6} dev v0")
    # Former scanners had other link addresses.
    ip("neighbour flush dev v0")
    spaces = [Namespace() for dummy in range(SCANNERS)]
    for number, space in enumerate(spaces):
        with datapath.peer():
            ip(f"link add m{number} link v1 type macvlan mode bridge")
            ip(f"link set m{number} netns {space.path}")
        with space.entered():
            ip("link set lo up")
            ip(f"link set m{number} name m0 up")
    free: queue.SimpleQueue[Namespace] = queue.SimpleQueue()
    for space in spaces:
        free.put(space)

    def scan(number: int, job: Job) -> Report:
        space = free.get()
        try:
            with space.entered():
                return _scan(source_of(number, job.family), job)
        finally:
            free.put(space)

    def run(jobs: Sequence[Job]) -> list[Report]:
        with concurrent.futures.ThreadPoolExecutor(SCANNERS) as pool:
            return list(pool.map(scan, range(len(jobs)), jobs))

    try:
        # Nobody accepts, so the queue has room for all.
        with socket.create_server(
            ("::", DOOR), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096
        ):
            yield run
    finally:
        for space in spaces:
            space.close()
        ip(f"route delete {NETWORK4} dev v0")
        ip(f"-6 route delete {NETWORK6} dev v0")


def _scan(source: str, job: Job) -> Report:
    # Without its last address the device loses its routes too.
    ip("address flush dev m0 scope global")
    if job.family == 4:
        ip(f"address add {source}/32 dev m0")
        ip("route replace 10.77.0.0/16 dev m0 scope link")
    else:
        ip(f"address add {source}/128 dev m0 nodad")
        ip("-6 route replace fd77::/16 dev m0")
    # Both ends find each other now, so that no answer comes late.
    wait_for(lambda: _enters(HOST4 if job.family == 4 else HOST6))
    family = () if job.family == 4 else ("-6",)
    command = [*NMAP, *family, "-S", source, "-e", "m0", *job.arguments]
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as ear:
        ear.bind(("m0", ETH_P[job.family]))
        ear.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return Report(source, answers(ear))


def _enters(target: str) -> bool:
    try:
        socket.create_connection((target, DOOR), 1).close()
    except OSError:
        return False
    return True


def answers(ear: socket.socket) -> tuple[float, ...]:
    """When each probe was answered first, of what the socket has received."""
    ear.setblocking(False)
    moments: dict[tuple[bytes, ...], float] = {}
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, ancillary, dummy, sender = ear.recvmsg(256, 64)
            key = answer_of(packet) if sender[2] == socket.PACKET_HOST else None
            if key:
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
                moments.setdefault(key, seconds + nanoseconds / 1e9)
    return tuple(sorted(moments.values()))


def answer_of(packet: bytes) -> tuple[bytes, ...] | None:
    """What tells the probe that a packet answers from others; None if it is none."""
    source, protocol, body = _layers(packet)
    if protocol not in ICMP:
        if body[:2] == DOOR.to_bytes(2, "big"):
            return None
        return source, bytes((protocol,)), body[:2]
    if body[0] not in ICMP[protocol]:
        return None if protocol == 58 else (source, bytes((protocol,)))
    dummy, quoted, probe = _layers(body[8:])
    return source, bytes((quoted,)), probe[2:4]


def _layers(packet: bytes) -> tuple[bytes, int, bytes]:
    """The source, the protocol and the rest after the IP header."""
    if packet[0] >> 4 == 4:
        return packet[12:16], packet[9], packet[(packet[0] & 15) * 4 :]
    return packet[8:24], packet[6], packet[40:]
