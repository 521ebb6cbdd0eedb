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
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kernel.datapath import Datapath
from kernel.hosting import Namespace, ip

SCANNERS = 32
NETWORK4, NETWORK6 = "10.79.0.0/16", "fd79::/16"
NMAP = ("nmap", "-n", "-Pn", "--disable-arp-ping", "--max-retries", "0", "-oX", "-")


class Job(NamedTuple):
    """One run of nmap: its arguments, without the option of the family."""

    family: int
    arguments: tuple[str, ...]


class Report(NamedTuple):
    """The scanner's address, and how many of its probes were answered, as it says itself."""

    source: str
    answered: int


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
    spaces = [Namespace() for dummy in range(SCANNERS)]
    for number, space in enumerate(spaces):
        with datapath.peer():
            ip(f"link add m{number} link v1 type macvlan mode bridge")
            ip(f"link set m{number} netns {space.path}")
        with space.entered():
            ip("link set lo up")
            ip(f"link set m{number} name m0 up")
            ip("route add 10.77.0.0/16 dev m0 scope link")
            ip("-6 route add fd77::/16 dev m0")
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
        yield run
    finally:
        for space in spaces:
            space.close()
        ip(f"route delete {NETWORK4} dev v0")
        ip(f"-6 route delete {NETWORK6} dev v0")


def _scan(source: str, job: Job) -> Report:
    ip("address flush dev m0 scope global")
    ip(f"address add {source}/{'32' if job.family == 4 else '128 nodad'} dev m0")
    family = () if job.family == 4 else ("-6",)
    command = [*NMAP, *family, "-S", source, "-e", "m0", *job.arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return Report(source, answers(done.stdout))


def answers(report: str) -> int:
    """How many probes were answered, in a report of nmap."""
    document = ElementTree.fromstring(report)
    reasons = [(state.get("reason"), 1) for state in document.iter("state")]
    reasons += [
        (reason.get("reason"), int(reason.get("count", "0")))
        for reason in document.iter("extrareasons")
    ]
    return sum(count for reason, count in reasons if reason != "no-response")
