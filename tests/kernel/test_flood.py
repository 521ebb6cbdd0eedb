# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Floods of forged SYNs: what they cost, and what they must not push out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.agent_process import AgentProcess
from kernel.datapath import DROP, PASS, Datapath, difference
from kernel.packets import syn4

MILLION = 1_000_000
FORGED = 200_000
THRESHOLD = 5
MANUAL, EARLIER, SCANNER = "198.51.100.1", "198.51.100.2", "198.51.100.3"
LIMIT_KIB = 25 * 1024
# The program's limits for all sources together: events per second, and in a burst.
RATE, BURST = 10_000, 20_000


@pytest.fixture
def agent(closed: Datapath, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that logs what the filter does."""
    found = AgentProcess(tmp_path / "agent", closed.paths.bpffs, 0)
    try:
        found.start(PW_PROTECT_AUTO="0")
        # The agent knows the host's own addresses.
        found.wait(closed.maps["local"].items)
        yield found
    finally:
        found.close()


def forge(datapath: Datapath, count: int, ports: range) -> None:
    """Send one SYN to each of the ports from each of `count` sources."""
    frames = [syn4("10.0.0.0", port) for port in ports]
    parts = [(frame[:26], frame[30:]) for frame in frames]
    run: Callable[[bytes], int] = datapath.run
    for number in range(0x0B000000, 0x0B000000 + count):
        source = number.to_bytes(4, "big")
        for head, tail in parts:
            run(head + source + tail)


def scan(datapath: Datapath, source: str) -> list[int]:
    return [datapath.run(syn4(source, port)) for port in range(4001, 4001 + THRESHOLD + 1)]


def make_bans(datapath: Datapath) -> None:
    datapath.bans.add(MANUAL, None)
    assert scan(datapath, EARLIER)[-1] == DROP


def check_bans(datapath: Datapath) -> None:
    """Earlier bans still drop packets, and a real scanner is banned at its fifth port."""
    assert datapath.run(syn4(MANUAL, 1)) == DROP
    assert datapath.run(syn4(EARLIER, 1)) == DROP
    assert scan(datapath, SCANNER) == [PASS] * (THRESHOLD - 1) + [DROP, DROP]


@pytest.mark.slow
def test_a_million_sources(closed: Datapath, agent: AgentProcess) -> None:
    make_bans(closed)
    before, began = closed.cells(), time.monotonic()
    connections = closed.counters()["connections"][1]
    forge(closed, MILLION, range(4001, 4002))
    lasted = time.monotonic() - began
    assert difference(closed.cells(), before) == {"pass unlisted ipv4": MILLION}
    assert closed.counters()["connections"][1] - connections == MILLION
    check_bans(closed)

    counters = closed.counters()
    counted = counters["events"] + counters["events_suppressed"] + counters["events_lost"]
    assert counted >= MILLION
    agent.wait(lambda: agent.metrics()["packetwatch_ring_backlog_bytes"] == 0)
    bans = [line for line in agent.lines() if line.get("event.action") == "ban"]
    assert SCANNER in {ban["source.ip"] for ban in bans}
    lines = agent.log.read_bytes().count(b"\n")
    assert lines <= BURST + RATE * (lasted + 5)
    assert int(agent.status("VmHWM")) <= LIMIT_KIB


@pytest.mark.slow
def test_a_scan_from_each_of_many_sources_without_the_agent(closed: Datapath) -> None:
    # There is no agent here that would have written it.
    closed.maps["local"].update(bytes(10) + b"\xff\xff" + bytes((10, 77, 0, 1)), b"\1\0\0\0")
    make_bans(closed)
    before, former = closed.cells(), closed.counters()
    forge(closed, FORGED, range(4001, 4001 + THRESHOLD))
    grown = difference(closed.cells(), before)
    assert grown == {
        "pass unlisted ipv4": FORGED * (THRESHOLD - 1),
        "drop scan ipv4": FORGED,
    }
    counters = closed.counters()
    made = {name: counters[name] - former[name] for name in ("bans", "bans_overflow")}
    assert sum(made.values()) == FORGED
    assert counters["bans_failed"] == former["bans_failed"]
    check_bans(closed)
