# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real nmap against the real filter: each scan of `scans.SCANS`, at three speeds."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET6, SOCK_DGRAM, socket
from typing import NamedTuple

import pytest
from kernel.datapath import GRACE, Datapath, listening
from kernel.hosting import ip
from kernel.packets import HOST4, HOST6
from kernel.scanning import Job, Report, Run, scanners
from kernel.scans import ADDRESSES, DECOYS, PROTOCOLS, SCANS, THRESHOLD, UNSEEN, Scan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plugged_in")]

PROBES = THRESHOLD + 3
POLICY = {
    "scan_counts": "closed",
    "scan_ports": THRESHOLD,
    "scan_grace": GRACE,
    "scan_kinds": ["syn", "stealth", "ack", "udp", "sctp", "proto"],
}
CLOSED, OPEN = 9000, 9100
# A fiftieth of the delays of -T1, with a fiftieth of the window. Five probes of -T1 take just as long as
# the window; less than that decides nothing here, so the window is a little shorter.
SLOWER = 50
_DELAY = f"{15_000 // SLOWER}ms"
SPEEDS = {
    "-T4": ("-T4",),
    "-T2": ("-T2", "--max-rtt-timeout", "500ms"),
    "-T1": (
        *("-T1", "--scan-delay", _DELAY, "--max-scan-delay", _DELAY),
        *(
            "--min-rtt-timeout",
            _DELAY,
            "--initial-rtt-timeout",
            _DELAY,
            "--max-rtt-timeout",
            _DELAY,
        ),
    ),
}


class Case(NamedTuple):
    scan: Scan
    family: int
    is_open: bool

    def __str__(self) -> str:
        return f"{self.scan.name}, IPv{self.family}, {'open' if self.is_open else 'closed'}"


CASES = [
    Case(scan, family, is_open)
    for scan in SCANS
    for family in scan.families
    for is_open in (False, True)
]


def address(family: int, number: int) -> str:
    return f"10.77.5.{number}" if family == 4 else f"fd77:5::{number:x}"


def job(case: Case, speed: str) -> Job:
    first = OPEN if case.is_open else CLOSED
    targets, ports = [HOST4 if case.family == 4 else HOST6], f"{first}-{first + PROBES - 1}"
    if case.scan.name == ADDRESSES:
        targets, ports = [address(case.family, number) for number in range(PROBES)], str(first)
    elif case.scan.name == PROTOCOLS:
        ports = "1,6,17" if case.is_open else f"146-{146 + PROBES - 1}"
    option = case.scan.option.replace("DECOYS", DECOYS[case.family])
    return Job(case.family, (*option.split(), *SPEEDS[speed], "-p", ports, *targets))


@pytest.fixture
def target(closed: Datapath) -> Iterator[Datapath]:
    """A host with eight ports that are open and eight addresses, which answers all it can."""
    if not shutil.which("nmap"):
        pytest.skip("nmap is not installed")
    for name in ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"):
        Path("/proc/sys/net", name).write_text("0")
    with contextlib.ExitStack() as stack:
        for number in range(PROBES):
            stack.enter_context(listening(AF_INET6, "::", OPEN + number))
            datagrams = stack.enter_context(socket(AF_INET6, SOCK_DGRAM))
            datagrams.bind(("::", OPEN + number))
            for family, length in ((4, 32), (6, 128)):
                one = f"{address(family, number)}/{length} dev v0"
                ip(f"address add {one}" + (" nodad" if family == 6 else ""))
                stack.callback(ip, f"address delete {one}")
        closed.policy(**POLICY)
        yield closed


@pytest.fixture
def scan(target: Datapath) -> Iterator[Run]:
    with scanners(target) as run:
        yield run


def expected(case: Case, speed: str) -> int | None:
    """How many of the probes are answered before the ban."""
    if speed == "-T1":
        return UNSEEN if case.is_open else case.scan.slower
    return case.scan.opened if case.is_open else case.scan.closed


def complaint(target: Datapath, case: Case, report: Report, answered: int | None) -> str:
    """Return what is wrong; empty if the case ends as expected."""
    ban = target.ban_of(report.source)
    found = (ban.kind, ban.ports) if ban else None
    wanted = None if answered is UNSEEN else (case.scan.kind, THRESHOLD)
    # Another CPU may have had one more packet in flight.
    if found != wanted or (answered is not UNSEEN and not 0 <= report.answered - answered <= 1):
        return f"{case}: {found} instead of {wanted}, {report.answered} answered"
    return ""


@pytest.mark.parametrize("speed", SPEEDS)
def test_scans_are_banned_as_documented(target: Datapath, scan: Run, speed: str) -> None:
    if speed == "-T1":
        target.policy(**POLICY | {"scan_grace": 1, "scan_window": 55 / SLOWER})
    reports = scan([job(case, speed) for case in CASES])
    complaints = [
        complaint(target, case, report, expected(case, speed))
        for case, report in zip(CASES, reports)
    ]
    assert not any(complaints), "\n".join(filter(None, complaints))
