# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Program and agent together: scans that are slower than the program's window."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.agent_process import AgentProcess
from kernel.datapath import Datapath
from kernel.packets import HOST4, syn4, syn6

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

SOURCE4, SOURCE6, ALLOWED, PROTECTED = (
    "198.51.100.7",
    "2001:db8:7::7",
    "198.51.100.8",
    "198.51.100.9",
)
PORTS = range(7001, 7021)
POLICY = {"scan_counts": "closed", "scan_ports": 64, "log_connections": "none", "ban_time": 100}
RSS = 25_000
NMAP = ["nmap", "-n", "-Pn", "-sS", "-T1", "--scan-delay", "100ms", "--max-retries", "0"]


@pytest.fixture
def agent(closed: Datapath, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent, and a policy whose own window no test completes."""
    closed.policy(**POLICY)
    found = AgentProcess(tmp_path / "agent", closed.paths.bpffs, 0)
    try:
        start(found, closed)
        yield found
    finally:
        found.close()


def start(agent: AgentProcess, datapath: Datapath, **settings: Any) -> None:
    agent.start(
        PW_PROTECT_AUTO="0",
        PW_CONFIG_DIR=datapath.paths.state,
        PW_STATUS_FILE=datapath.paths.status,
        PW_CONTROL_SOCKET=str(agent.folder / "control.sock"),
        **settings,
    )
    # The first round over all bans, which says how much room there is.
    agent.wait(lambda: 'packetwatch_bans_active{origin="scan"}' in agent.metrics())
    time.sleep(0.2)


def change(datapath: Datapath, agent: AgentProcess, **options: Any) -> None:
    """Change the policy, and let the agent read it."""
    datapath.policy(**POLICY | options)
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)


def probe(datapath: Datapath, agent: AgentProcess, source: str, *ports: int) -> None:
    """Probe the ports, and wait until the agent has read it."""
    make = syn6 if ":" in source else syn4
    for port in ports:
        datapath.run(make(source, port))
    reported = datapath.counters()["probes"]
    agent.wait(lambda: agent.metrics()["packetwatch_probes_total"] == reported)
    agent.wait(lambda: agent.metrics()["packetwatch_ring_backlog_bytes"] == 0)


def lines(agent: AgentProcess, action: str) -> list[dict[str, Any]]:
    return [line for line in agent.lines() if line.get("event.action") == action]


def test_the_twentieth_port_of_a_day_is_a_slow_scan(closed: Datapath, agent: AgentProcess) -> None:
    probe(closed, agent, SOURCE4, *PORTS[:19])
    probe(closed, agent, SOURCE6, *PORTS[:19])
    assert closed.banned() == set()
    for source, prefix in ((SOURCE4, f"{SOURCE4}/32"), (SOURCE6, "2001:db8:7::/64")):
        probe(closed, agent, source, PORTS[19])
        ban = closed.ban_of(source)
        assert ban is not None
        assert (ban.table, ban.origin_name, ban.kind, ban.ports) == ("bans", "scan", "slow", 20)
        assert 95e9 < ban.expires - time.monotonic_ns() <= 100e9
        line = lines(agent, "ban")[-1]
        assert (line["packetwatch.kind"], line["packetwatch.prefix"]) == ("slow", prefix)
        assert line["packetwatch.ports"] == list(PORTS)
        assert line["packetwatch.ports_count"] == 20
        assert "event.sequence" not in line
    assert closed.fate(syn4(SOURCE4, 1)) == "drop ban ipv4"
    assert agent.metrics()['packetwatch_scans_total{kind="slow"}'] == 2
    assert int(agent.status("VmRSS")) < RSS


def test_who_is_never_banned(closed: Datapath, agent: AgentProcess) -> None:
    """Monitor mode, protected sources, allowed sources, and zero ports."""
    agent.stop()
    closed.protect(PROTECTED)
    start(agent, closed, PW_PROTECT=PROTECTED)
    closed.lists(allow=[ALLOWED])
    probe(closed, agent, PROTECTED, *PORTS)
    probe(closed, agent, ALLOWED, *PORTS)
    change(closed, agent, action="monitor")
    probe(closed, agent, SOURCE4, *PORTS)
    scans = {
        line["source.ip"]: (line["packetwatch.kind"], line["packetwatch.reason"])
        for line in lines(agent, "scan")
    }
    assert scans == {PROTECTED: ("slow", "protected"), SOURCE4: ("slow", "monitor")}
    change(closed, agent, slow_scan_ports=0)
    probe(closed, agent, "198.51.100.10", *PORTS, *range(8001, 8031))
    assert closed.banned() == set()
    assert lines(agent, "ban") == []


def test_a_manual_ban_is_not_replaced_and_a_pardon_forgets(
    closed: Datapath, agent: AgentProcess
) -> None:
    probe(closed, agent, SOURCE4, *PORTS[:19])
    closed.bans.add(SOURCE4, None)
    agent.wait(lambda: lines(agent, "ban"))
    closed.bans.lift(SOURCE4)
    probe(closed, agent, SOURCE4, PORTS[19])
    assert closed.banned() == set()
    probe(closed, agent, SOURCE4, *range(8001, 8020))
    assert closed.banned() == {SOURCE4}


def test_unban_forgets_without_a_ban_too(closed: Datapath, agent: AgentProcess) -> None:
    probe(closed, agent, SOURCE4, *PORTS[:19])
    probe(closed, agent, SOURCE6, *PORTS[:19])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(agent.folder / "control.sock"))
        for address in (SOURCE4, SOURCE6):
            client.sendall(json.dumps({"command": "unban", "address": address}).encode() + b"\n")
            assert json.loads(client.makefile().readline())["ok"]
    probe(closed, agent, SOURCE4, PORTS[19])
    probe(closed, agent, SOURCE6, PORTS[19])
    assert closed.banned() == set()


def test_repeated_slow_scanners_are_banned_for_longer(
    closed: Datapath, agent: AgentProcess
) -> None:
    change(closed, agent, ban_time_max=300)
    for seconds in (100, 200, 300):
        probe(closed, agent, SOURCE4, *PORTS)
        ban = closed.ban_of(SOURCE4)
        assert ban is not None and ban.kind == "slow"
        assert seconds - 5 < (ban.expires - time.monotonic_ns()) / 1e9 <= seconds
        closed.bans.lift(SOURCE4)
        closed.forget_hits()


@pytest.mark.slow
@pytest.mark.usefixtures("plugged_in")
def test_a_slow_nmap_is_banned(closed: Datapath, agent: AgentProcess) -> None:
    """As with -T1, but 150 times as fast: a port in 0.1 s, and five within 0.3 s would be a scan."""
    if not shutil.which("nmap"):
        pytest.skip("nmap is not installed")
    change(closed, agent, scan_ports=5, scan_window=0.3, slow_scan_window=60)
    with closed.peer():
        subprocess.run(
            [*NMAP, "-p", "6001-6040", HOST4],
            check=True,
            capture_output=True,
            timeout=90,
        )
    agent.wait(lambda: lines(agent, "ban"))
    (line,) = lines(agent, "ban")
    assert line["packetwatch.kind"] == "slow"
    assert 20 <= line["packetwatch.ports_count"] <= 21
    assert closed.banned() == {"10.77.0.2"}
