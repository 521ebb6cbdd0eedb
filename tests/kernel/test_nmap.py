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
from kernel.agent_process import AgentProcess
from kernel.datapath import GRACE, Datapath, listening
from kernel.hosting import ip
from kernel.packets import HOST4, HOST6
from kernel.scanning import Job, Report, Run, scanners
from kernel.scans import ADDRESSES, DECOYS, PROTOCOLS, SCANS, SLOW, THRESHOLD, UNSEEN, Scan

pytestmark = [pytest.mark.slow(14), pytest.mark.usefixtures("plugged_in")]

PROBES, SLOW_PROBES = THRESHOLD + 3, SLOW + 4
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
    probes = SLOW_PROBES if speed == "-T1" else PROBES
    first = OPEN if case.is_open else CLOSED
    targets, ports = [HOST4 if case.family == 4 else HOST6], f"{first}-{first + probes - 1}"
    if case.scan.name == ADDRESSES:
        targets, ports = [address(case.family, number) for number in range(PROBES)], str(first)
    elif case.scan.name == PROTOCOLS:
        ports = "1,6,17" if case.is_open else f"146-{146 + probes - 1}"
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
        for number in range(SLOW_PROBES):
            stack.enter_context(listening(AF_INET6, "::", OPEN + number))
            datagrams = stack.enter_context(socket(AF_INET6, SOCK_DGRAM))
            datagrams.bind(("::", OPEN + number))
        for number in range(PROBES):
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


def complaint(
    target: Datapath, case: Case, report: Report, wanted: tuple[str, int, int] | None
) -> str:
    """Return what is wrong; empty if the case ends as expected: with kind, probes and answers."""
    ban = target.ban_of(report.source)
    found = (ban.kind, ban.ports, report.answered) if ban else None
    # Another CPU may have had one more packet in flight, and a busy machine may lose answers.
    if found == wanted or (
        found and wanted and found[:2] == wanted[:2] and found[2] <= wanted[2] + 1
    ):
        return ""
    return f"{case}: {found} instead of {wanted}"


def complaints(target: Datapath, scan: Run, speed: str) -> list[str]:
    reports = scan([job(case, speed) for case in CASES])
    wanted = slow if speed == "-T1" else quick
    found = [complaint(target, case, report, wanted(case)) for case, report in zip(CASES, reports)]
    return list(filter(None, found))


def quick(case: Case) -> tuple[str, int, int] | None:
    answered = case.scan.opened if case.is_open else case.scan.closed
    return None if answered is UNSEEN else (case.scan.kind, THRESHOLD, answered)


def slow(case: Case) -> tuple[str, int, int] | None:
    answered, kind = case.scan.slower, case.scan.slower_kind
    if case.is_open and case.scan.opened != case.scan.closed:
        # The stack does not answer what counts on open ports, too.
        answered = 0 if case.scan.opened == 0 else UNSEEN
    if answered is UNSEEN:
        return None
    return kind, SLOW if kind == "slow" else THRESHOLD, answered


@pytest.mark.parametrize("speed", ["-T4", "-T2"])
def test_scans_are_banned_as_documented(target: Datapath, scan: Run, speed: str) -> None:
    found = complaints(target, scan, speed)
    assert not found, "\n".join(found)


def test_slow_scans_are_banned_by_the_agent(target: Datapath, scan: Run, tmp_path: Path) -> None:
    pace = {"scan_grace": 1, "scan_window": 55 / SLOWER, "slow_scan_ports": SLOW}
    target.policy(**POLICY | pace)
    agent = AgentProcess(tmp_path / "agent", target.paths.bpffs, 0)
    try:
        agent.start(PW_PROTECT_AUTO="0", PW_CONFIG_DIR=target.paths.state)
        agent.wait(lambda: 'packetwatch_bans_active{origin="scan"}' in agent.metrics())
        found = complaints(target, scan, "-T1")
    finally:
        agent.close()
    assert not found, "\n".join(found)
