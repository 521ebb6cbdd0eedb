# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes by TCP flags that no stack sends: they count on every port of this host, open or closed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from socket import AF_INET6

import pytest
from kernel.datapath import GRACE, Datapath, listening
from kernel.packets import (
    ACK,
    CWR,
    ECE,
    FIN,
    HOST4,
    HOST6,
    IPV4,
    MORE_FRAGMENTS,
    PUSH,
    RST,
    SYN,
    URGENT,
    ethernet,
    ipv4,
    syn4,
    syn6,
    tcp,
)

from packetwatch_core._kernel import abi

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
OPEN, PUBLISHED, CLOSED = 8701, 8702, 8703
STEALTH = {
    "NULL": 0,
    "FIN": FIN,
    "PSH": PUSH,
    "URG": URGENT,
    "XMAS": FIN | PUSH | URGENT,
    "SYN+FIN": SYN | FIN,
    "ECE": ECE,
}
FAMILIES: list[tuple[Callable[..., bytes], str]] = [(syn4, SOURCE4), (syn6, SOURCE6)]


@pytest.fixture
def serving(closed: Datapath) -> Iterator[Datapath]:
    """Five closed ports are a scan; one port has a service here, another one elsewhere."""
    ports = {"scan_counts": "closed", "scan_ports": 5, "scan_grace": GRACE}
    closed.policy(**ports, published_ports=str(PUBLISHED))
    with listening(AF_INET6, "::", OPEN):
        yield closed


def counts(datapath: Datapath, frame: bytes) -> bool:
    datapath.run(frame)
    found = datapath.hits()
    datapath.forget_hits()
    return bool(found)


@pytest.mark.parametrize("kind", STEALTH)
@pytest.mark.parametrize(("make", "source"), FAMILIES, ids=["ipv4", "ipv6"])
def test_stealth_probes_of_any_port_are_a_scan(
    serving: Datapath, make: Callable[..., bytes], source: str, kind: str
) -> None:
    ports = (OPEN, OPEN, PUBLISHED, CLOSED, CLOSED + 1, CLOSED + 2, CLOSED + 3)
    fates = [serving.fate(make(source, port, flags=STEALTH[kind])).split()[1] for port in ports]
    assert fates == ["unlisted"] * 5 + ["scan", "ban"]
    ban = serving.ban_of(source)
    assert ban is not None and ban.kind == "stealth"


def test_all_flags(serving: Datapath) -> None:
    """Compare all 256 combinations with the rule of RFC 9293: after the SYN, all have ACK or RST.

    One with ACK is a probe if nobody expects it (test_ack_kinds.py), but for a reset.
    """
    for flags in range(256):
        begins = flags & SYN and not flags & (ACK | FIN)
        stealth = not flags & ACK and not begins and (flags & SYN or not flags & RST)
        assert counts(serving, syn4(SOURCE4, OPEN, flags=flags)) == bool(stealth), flags
        late = flags & ACK and not flags & RST
        probe = bool(stealth or begins or late)
        assert counts(serving, syn4(SOURCE4, CLOSED, flags=flags)) == probe, flags


@pytest.mark.parametrize("flags", [SYN | ECE | CWR, SYN | PUSH, SYN | URGENT])
def test_a_syn_that_negotiates_or_has_data_is_a_plain_one(serving: Datapath, flags: int) -> None:
    frame = ethernet(IPV4, ipv4(SOURCE4, HOST4, tcp(40000, OPEN, flags) + b"data"))
    assert not counts(serving, frame)


def test_stealth_probes_make_no_connections(serving: Datapath) -> None:
    before = serving.counters()["connections"]
    serving.fates(*(syn4(SOURCE4, port, flags=FIN) for port in range(1, 5)))
    assert serving.counters()["connections"] == before
    assert {event["type"] for event in serving.events()} == {abi.EVENT_PROBE}


def test_stealth_probes_count_together_with_syns(serving: Datapath) -> None:
    frames = [syn4(SOURCE4, port, flags=flags) for port, flags in enumerate((SYN, 0, FIN, SYN), 1)]
    fates = serving.fates(*frames, syn4(SOURCE4, 3, flags=SYN), syn4(SOURCE4, OPEN, flags=PUSH))
    assert fates == ["pass unlisted ipv4"] * 5 + ["drop scan ipv4"]


def test_a_banned_source_gets_no_answer_to_stealth_probes(serving: Datapath) -> None:
    serving.bans.add(SOURCE4, 600)
    assert {serving.fate(syn4(SOURCE4, 1, flags=flags)) for flags in STEALTH.values()} == {
        "drop ban ipv4"
    }


def test_forwarded_stealth_probes_are_no_evidence(serving: Datapath) -> None:
    for flags in STEALTH.values():
        assert not counts(serving, syn4(SOURCE4, 1, "203.0.113.5", flags))
        assert not counts(serving, syn6(SOURCE6, 1, "2001:db8:1::5", flags))


def test_fragments_are_judged_by_their_flags(serving: Datapath) -> None:
    head = tcp(40000, OPEN, FIN)[:16]
    assert counts(serving, ethernet(IPV4, ipv4(SOURCE4, HOST4, head, fragment=MORE_FRAGMENTS)))


def test_nothing_else_is_needed_within_the_grace_after_boot(serving: Datapath) -> None:
    serving.policy(scan_counts="closed", scan_ports=5, scan_grace=86400)
    assert counts(serving, syn4(SOURCE4, CLOSED, flags=FIN))


@pytest.mark.slow
@pytest.mark.parametrize("scan", ["-sF", "-sN", "-sX"])
@pytest.mark.parametrize(("target", "scanner"), [(HOST4, "10.77.0.2"), (HOST6, "fd77::2")])
@pytest.mark.usefixtures("plugged_in")
def test_a_real_stealth_scan_is_banned(
    serving: Datapath, scan: str, target: str, scanner: str
) -> None:
    if not shutil.which("nmap"):
        pytest.skip("nmap is not installed")
    command = ["nmap", scan, "-Pn", "-n", "--max-retries", "0", "--max-rtt-timeout", "100ms"]
    command += ["-p", "8710-8739", *(["-6"] if ":" in target else []), target]
    before = serving.cells()
    with serving.peer():
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert serving.banned() == {scanner}, done.stdout
    ban = serving.ban_of(scanner)
    assert ban is not None and ban.ports == 5 and ban.dropped > 20
    family = "ipv6" if ":" in target else "ipv4"
    assert serving.cells()[f"drop scan {family}"] == before[f"drop scan {family}"] + 1
