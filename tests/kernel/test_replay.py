# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``packetwatchctl replay`` finds in a recording is what the real program and agent decide.

One hour of packets, compressed into seconds, runs through the program three times: once under monitor, with
a recording, and under two policies that enforce. To keep the recording for tests/unit/test_replay.py, set
PW_KEEP_RECORDING to the folder tests/unit/recorded.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kernel.agent_process import AgentProcess
from kernel.datapath import Datapath, listening
from kernel.hosting import ip
from kernel.hour import (
    ALLOWED,
    BAN,
    LATE,
    OPEN,
    OTHER4,
    PROTECTED,
    THRESHOLDS,
    WINDOW,
    Hour,
    Packet,
    options,
)
from unit.replaying import Decision, decisions_of, recorded_bans, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="loads programs"),
]

POLICY = {
    "scan_counts": "closed",
    "scan_window": WINDOW,
    "scan_grace": 30,
    "ban_time": BAN,
    "ban_time_max": 4 * BAN,
}
ATTEMPTS = 4


class Run(NamedTuple):
    """What the agent wrote while the hour ran."""

    journal: Path
    decisions: list[Decision]


@pytest.fixture
def filtered(closed: Datapath) -> Iterator[Datapath]:
    """The filter with an open port, two own addresses, an allowed and a protected source."""
    ip(f"address replace {OTHER4}/32 dev v0")
    closed.protect(PROTECTED)
    closed.lists(allow=[ALLOWED])
    with listening(socket.AF_INET6, "::", OPEN):
        yield closed
    ip(f"address delete {OTHER4}/32 dev v0")


def play(datapath: Datapath, folder: Path, **policy: Any) -> Run:
    """Run the hour under a policy; again, if the machine was too busy to send in time."""
    late = 0.0
    for attempt in range(ATTEMPTS):
        datapath.policy(**POLICY | policy)
        datapath.forget_hits()
        for name in ("bans", "scan_bans", "overflow", "rates"):
            for key, dummy in datapath.maps[name].items():
                datapath.maps[name].delete(key)
        agent = AgentProcess(folder.with_name(f"{folder.name}-{attempt}"), datapath.paths.bpffs, 0)
        try:
            late = record(datapath, agent)
        finally:
            agent.close()
        if late < LATE:
            return Run(agent.log, decisions_of(recorded_bans(agent.log)))
    pytest.skip(f"this machine is too busy: a packet was {late:.2f} s late")


def record(datapath: Datapath, agent: AgentProcess) -> float:
    """Run the hour while the agent logs; return by how much a packet was late at most."""
    agent.start(
        PW_PROTECT_AUTO="0",
        PW_PROTECT=PROTECTED,
        PW_CONFIG_DIR=datapath.paths.state,
        PW_STATUS_FILE=datapath.paths.status,
        PW_CONTROL_SOCKET=str(agent.folder / "control.sock"),
        PW_LOG_PROBES="1",
    )
    agent.wait(lambda: 'packetwatch_bans_active{origin="scan"}' in agent.metrics())
    late = send(datapath, Hour().packets)
    agent.wait(lambda: agent.metrics()["packetwatch_ring_backlog_bytes"] == 0)
    assert agent.stop() == 0
    return late


def send(datapath: Datapath, packets: Sequence[Packet]) -> float:
    """Send each packet in its time; return by how much the last one was late at most."""
    begin, late = time.monotonic(), 0.0
    for packet in packets:
        wait = begin + packet.at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        late = max(late, -wait)
        datapath.run(packet.frame)
    return late


def test_a_replay_decides_as_the_live_run(filtered: Datapath, tmp_path: Path) -> None:
    recorded = play(filtered, tmp_path / "monitor", action="monitor", scan_ports=5)
    assert recorded.decisions == []
    expected: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        live = play(filtered, tmp_path / str(threshold), scan_ports=threshold)
        assert len(live.decisions) > 10
        assert {one.kind for one in live.decisions} >= {"syn", "stealth"} or threshold > 6
        assert max(one.seconds for one in live.decisions) == 4 * BAN

        # The same run: each decision at the same moment.
        own = run(*options(threshold), str(live.journal))
        assert own.decisions == live.decisions
        moments = [ban.time / 1e9 for ban in recorded_bans(live.journal)]
        assert own.times == pytest.approx(moments, abs=0.001)
        assert own.result["recording"]["bans"] == len(live.decisions)

        # Another run, which only monitored: the same decisions, a little earlier or later.
        found = run(*options(threshold), str(recorded.journal))
        assert sorted(found.decisions) == sorted(live.decisions)
        assert found.result["spared"] == {PROTECTED: "protected while it was recorded"}
        expected[str(threshold)] = found.decisions
    keep(recorded.journal, expected)


def keep(journal: Path, expected: dict[str, Any]) -> None:
    folder = os.environ.get("PW_KEEP_RECORDING")
    if folder:
        lines = (json.loads(line) | {"host.name": "web1"} for line in journal.open())
        events = [json.dumps(line) for line in lines if "event.action" in line]
        packed = gzip.compress("\n".join(events).encode() + b"\n", mtime=0)
        (Path(folder) / "hour.jsonl.gz").write_bytes(packed)
        (Path(folder) / "hour.json").write_text(json.dumps(expected, indent=1) + "\n")
