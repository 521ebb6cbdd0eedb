# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a scanner has a connection with the host: asked from the kernel, and noted in its ban."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.agent_process import AgentProcess
from kernel.datapath import Datapath, join, wait_for
from kernel.hosting import ip
from kernel.packets import HOST4, syn4, syn6

from packetwatch_core._bans.facts import evidence_of
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._network.connected import is_connected

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="loads programs"),
    pytest.mark.usefixtures("networks"),
]

# Networks of these tests' own: the kernel knows connections of other tests for a minute.
HERE4, PEER4 = "10.76.0.1", "10.76.0.2"
HERE6, PEER6 = "fd76::1", "fd76::2"
FORGED = "198.51.100.7"
PORT = 8911
HALF_OPEN = "09004D0A"  # 10.77.0.9 in /proc/net/tcp


@pytest.fixture(scope="module")
def networks(loaded_datapath: Datapath, plugged_in: None) -> Iterator[None]:
    ends = (
        (loaded_datapath.host_namespace, "v0", HERE4, HERE6),
        (loaded_datapath.peer_namespace, "v1", PEER4, PEER6),
    )
    for namespace, device, *addresses in ends:
        with namespace.entered():
            join(device, *(f"{text}/{24 if '.' in text else 64}" for text in addresses))
    yield
    for namespace, device, ipv4, ipv6 in ends:
        with namespace.entered():
            ip(f"address del {ipv4}/24 dev {device}")
            ip(f"address del {ipv6}/64 dev {device}")


@contextlib.contextmanager
def connection(datapath: Datapath, server: str, client: str = "") -> Iterator[list[socket.socket]]:
    """A connection from the peer: its ends there and here, which may be closed before."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.create_server(
        ("", PORT), family=family, dualstack_ipv6=family == socket.AF_INET6
    ) as here:
        with datapath.peer():
            there = socket.create_connection((client or server, PORT), 10)
        accepted, dummy = here.accept()
        # The peer closes first, so that nothing is left here.
        with accepted, there:
            yield [there, accepted]


@pytest.fixture
def agent(closed: Datapath, tmp_path: Path) -> Iterator[AgentProcess]:
    closed.policy(
        scan_counts="closed", scan_ports=5, log_connections="none", ban_time=100, ban_time_max=300
    )
    found = AgentProcess(tmp_path / "agent", closed.paths.bpffs, 0)
    try:
        found.start(
            PW_PROTECT_AUTO="0",
            PW_CONFIG_DIR=closed.paths.state,
            PW_STATUS_FILE=closed.paths.status,
        )
        time.sleep(0.3)  # until it has counted the bans
        yield found
    finally:
        found.close()


@pytest.mark.parametrize(
    ("server", "client", "source", "others"),
    [
        ("::", HERE6, PEER6, [PEER4, "fd76::3", "fd75::/64"]),
        ("0.0.0.0", HERE4, PEER4, ["10.76.0.3", "fd75::2", "fd75::/64"]),
        ("::", HERE4, PEER4, ["10.76.0.3", "fd75::2", "fd75::/64"]),
    ],
    ids=["ipv6", "ipv4", "mapped"],
)
def test_connections_with_a_source(
    datapath: Datapath, server: str, client: str, source: str, others: list[str]
) -> None:
    sources = [source, *(["fd76::/64"] if source == PEER6 else [])]
    assert not is_connected(parse_prefix(source))
    with connection(datapath, server, client):
        assert [text for text in [*sources, *others] if is_connected(parse_prefix(text))] == sources


def test_a_connection_that_this_host_has_closed_first_counts_too(datapath: Datapath) -> None:
    with connection(datapath, "0.0.0.0", HERE4) as (there, here):
        here.close()
        assert there.recv(1) == b""
        # The peer's acknowledgment may be delayed by 40 ms.
        wait_for(lambda: is_connected(parse_prefix(PEER4)), 2)
        there.close()
        time.sleep(0.1)
        assert is_connected(parse_prefix(PEER4))


def test_handshakes_that_nobody_completes_are_no_connections(datapath: Datapath) -> None:
    """A SYN to an open port, from an address at which nobody answers."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("v0", 0))
        hardware: bytes = raw.getsockname()[4]
    with socket.create_server((HOST4, PORT)):
        with datapath.peer(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("v1", 0))
            raw.send(hardware + syn4("10.77.0.9", PORT)[6:])
        wait_for(lambda: f"{HALF_OPEN}:9C40 03 " in Path("/proc/thread-self/net/tcp").read_text())
        assert not is_connected(parse_prefix("10.77.0.9"))


@pytest.mark.parametrize("family", [4, 6])
def test_the_ban_of_a_connected_scanner_rests_on_answers(
    closed: Datapath, agent: AgentProcess, family: int
) -> None:
    make, source, server = (syn4, PEER4, HERE4) if family == 4 else (syn6, PEER6, HERE6)
    with connection(closed, "0.0.0.0" if family == 4 else "::", server):
        for scanner in (source, FORGED):
            shape = syn4 if scanner == FORGED else make
            for port in range(7001, 7006):
                closed.run(shape(scanner, port))
        agent.wait(lambda: agent.actions()["ban"] == 2)
    lines = {line["source.ip"]: line for line in agent.lines() if line.get("event.action") == "ban"}
    found = {text: line["packetwatch.evidence"] for text, line in lines.items()}
    assert found == {source: "answer", FORGED: "syn"}
    for scanner, evidence, seconds, table in (
        (source, "answer", 300, "bans"),
        (FORGED, "syn", 100, "scan_bans"),
    ):
        ban = closed.ban_of(scanner)
        assert ban is not None
        assert (evidence_of(ban), ban.table, ban.kind) == (evidence, table, "syn")
        assert seconds - 10 < (ban.expires - time.monotonic_ns()) / 1e9 <= seconds
