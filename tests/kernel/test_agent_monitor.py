# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Program and agent together: the log lines of monitor mode, and the metrics of the tables."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.agent_process import AgentProcess
from kernel.datapath import Datapath
from kernel.hosting import DENIED, Site, dummy_program, wait
from kernel.packets import ethernet, ipv4, syn4

from packetwatch_agent.quota import BURST
from packetwatch_core._active.attach import create_link
from packetwatch_core._kernel.programs import attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

HOST = "10.77.0.1"
SCANNER, LISTED, BANNED = "198.51.100.1", "198.51.100.2", "198.51.100.3"
UDP = 17
FORGED = 20_000


@pytest.fixture
def agent(datapath: Datapath, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that logs what the filter does, and reads root's status note."""
    found = AgentProcess(tmp_path / "agent", datapath.paths.bpffs, 0)
    try:
        found.start(
            PW_PROTECT_AUTO="0",
            PW_CONFIG_DIR=datapath.paths.state,
            PW_STATUS_FILE=datapath.paths.status,
        )
        yield found
    finally:
        found.close()


def test_monitoring_logs_what_would_have_happened(datapath: Datapath, agent: AgentProcess) -> None:
    datapath.policy(action="monitor", log_connections="none")
    datapath.lists(deny=[LISTED])
    datapath.bans.add(BANNED, 600)
    for port in range(1, 31):
        assert datapath.run(syn4(SCANNER, port)) == 2
        datapath.run(ethernet(0x0800, ipv4(LISTED, HOST, bytes(8), protocol=UDP)))
        datapath.run(syn4(BANNED, port))
    agent.wait(lambda: agent.actions()["would_drop"] == 2)
    agent.wait(lambda: agent.metrics()['packetwatch_agent_records_total{type="scan"}'] == 10)
    passed = {
        reason: agent.metrics()[
            f'packetwatch_packets_total{{verdict="pass",reason="{reason}",family="ipv4"}}'
        ]
        for reason in ("monitor_deny", "monitor_ban", "monitor_scan")
    }
    assert passed["monitor_deny"] >= 30 and passed["monitor_ban"] >= 30
    assert passed["monitor_scan"] >= 10
    assert agent.stop() == 0

    lines = [line for line in agent.lines() if "event.action" in line]
    logged = {
        (line["event.action"], line["packetwatch.reason"], line["source.ip"]) for line in lines
    }
    assert logged >= {
        ("scan", "monitor", SCANNER),
        ("scan_end", "monitor", SCANNER),
        ("would_drop", "deny", LISTED),
        ("would_drop", "ban", BANNED),
    }
    (end,) = (line for line in lines if line["event.action"] == "scan_end")
    assert end["packetwatch.events"] == 10
    assert end["packetwatch.ports"] == list(range(1, 31))
    assert sum(line["event.kind"] == "alert" for line in lines) == 1


def test_forged_scans_are_logged_within_bounds_and_counted(
    datapath: Datapath, agent: AgentProcess
) -> None:
    datapath.policy(action="monitor", log_connections="none")
    frames = [syn4("10.0.0.0", port) for port in (1, 2, 3)]
    before, began = datapath.counters(), time.monotonic()
    for number in range(FORGED):
        source = (0x0B000000 + number).to_bytes(4, "big")
        for frame in frames:
            datapath.run(frame[:26] + source + frame[30:])
    after = datapath.counters()
    assert sum(after["scans"]) - sum(before["scans"]) == FORGED
    agent.wait(lambda: agent.metrics()["packetwatch_ring_backlog_bytes"] == 0)
    lasted = time.monotonic() - began
    metrics = agent.metrics()
    logged = metrics['packetwatch_episodes_total{kind="scan"}']
    held_back = metrics['packetwatch_agent_suppressed_total{kind="scan"}']
    held_back += sum(after[name] - before[name] for name in ("events_suppressed", "events_lost"))
    assert logged + held_back == FORGED
    assert BURST < logged <= BURST + lasted * 100 + 1
    assert agent.actions()["scan"] == logged
    assert agent.stop() == 0
    (losses,) = (line for line in agent.lines() if "held back" in line.get("message", ""))
    assert losses["packetwatch.suppressed"] + losses["packetwatch.lost"] == held_back


def test_probes_above_their_limit_are_logged(closed: Datapath, agent: AgentProcess) -> None:
    """So that a recording says what it lacks."""
    before = closed.counters()["probes_lost"]
    frame = syn4("10.0.0.0", 7001)
    for number in range(4000):
        closed.run(frame[:26] + (0x0C000000 + number).to_bytes(4, "big") + frame[30:])
    lost = closed.counters()["probes_lost"] - before
    assert lost
    assert agent.stop() == 0
    (line,) = (line for line in agent.lines() if "held back" in line.get("message", ""))
    assert line["packetwatch.probes_lost"] == lost


def test_metrics_distinguish_our_program_from_another(filtered: Site, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "agent", filtered.paths.bpffs, 0)
    try:
        agent.start(
            PW_CONFIG_DIR=filtered.paths.state,
            PW_STATUS_FILE=filtered.paths.status,
            PW_PROTECT_AUTO="0",
        )
        metrics = agent.metrics()
        assert metrics['packetwatch_attached{interface="pw0",mode="native"}'] == 1
        assert metrics["packetwatch_lists_in_kernel"] == 1
        assert metrics["packetwatch_apply_success"] == 1
        assert metrics['packetwatch_entries_declared{list="deny"}'] == 1
        assert metrics['packetwatch_map_capacity_entries{map="bans"}'] == 16384

        (filtered.state / "current/deny.d/ansible.list").write_text(f"{DENIED}\n203.0.113.0/24\n")
        assert filtered.host.verify()
        assert agent.metrics()["packetwatch_lists_in_kernel"] == 0
        filtered.host.apply()
        assert agent.metrics()["packetwatch_lists_in_kernel"] == 1
        assert agent.metrics()['packetwatch_entries_declared{list="deny"}'] == 2

        os.unlink(filtered.host.pins.link("pw0"))
        wait(lambda: attached(socket.if_nametoindex("pw0")).mode == "none")
        with dummy_program() as foreign:
            held = create_link(foreign, "pw0", socket.if_nametoindex("pw0"), "native")
            assert agent.metrics()['packetwatch_attached{interface="pw0",mode="native"}'] == 0
            held.link.close()
        wait(lambda: attached(socket.if_nametoindex("pw0")).mode == "none")
        metrics = agent.metrics()
        assert metrics['packetwatch_attached{interface="pw0",mode="none"}'] == 0
        assert metrics["packetwatch_panic"] == 0
        filtered.host.panic("a test")
        assert agent.metrics()["packetwatch_panic"] == 1
    finally:
        agent.close()
