# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`scan_counts: closed` with real clients, a real scanner, and a port served by a container."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from socket import AF_INET, AF_INET6

import pytest
from kernel.container import ADDRESS, published
from kernel.datapath import GRACE, Datapath, listening
from kernel.hosting import Namespace
from kernel.packets import HOST4, HOST6

pytestmark = pytest.mark.usefixtures("plugged_in")


def test_a_real_scan_is_banned_at_the_fifth_closed_port(closed: Datapath) -> None:
    if not shutil.which("nmap"):
        pytest.skip("nmap is not installed")
    before = closed.counters()
    with listening(AF_INET, "0.0.0.0", 22), listening(AF_INET, "0.0.0.0", 80):
        scanner = ["nmap", "-sS", "-Pn", "-n", "-p", "1-100", "--max-retries", "0"]
        with closed.peer():
            subprocess.run([*scanner, HOST4], capture_output=True, timeout=60, check=True)
    ban = closed.ban_of("10.77.0.2")
    assert ban is not None and ban.ports == 5
    after = closed.counters()
    assert sum(after["scans"]) - sum(before["scans"]) == 1
    assert after["connections"][1] - before["connections"][1] <= 7


SERVED = [
    (AF_INET, "0.0.0.0", 8001, False),
    (AF_INET, "0.0.0.0", 8002, False),
    (AF_INET, HOST4, 8003, False),
    (AF_INET, HOST4, 8004, False),
    (AF_INET6, "::", 8005, False),
    (AF_INET6, "::", 8006, False),
    (AF_INET6, "::", 8007, True),
    (AF_INET6, "::", 8008, True),
    (AF_INET6, HOST6, 8009, True),
    (AF_INET6, HOST6, 8010, True),
]


def test_a_client_of_ten_served_ports_is_never_suspected(closed: Datapath) -> None:
    with contextlib.ExitStack() as stack:
        for family, address, port, v6only in SERVED:
            stack.enter_context(listening(family, address, port, v6only))
        before = closed.counters()
        for dummy, address, port, v6only in SERVED:
            targets = [HOST6] if ":" in address else [HOST4]
            if address == "::" and not v6only:
                targets.append(HOST4)
            for target in targets:
                with closed.peer(), socket.create_connection((target, port), 10):
                    pass
        after = closed.counters()
        connections = [b - a for a, b in zip(before["connections"], after["connections"])]
        assert connections == [0, 6, 6]
    assert not closed.hits()
    assert not closed.banned()


# A port that is served in another namespace


@pytest.fixture
def container(closed: Datapath) -> Iterator[Namespace]:
    with published(f"tcp dport 8080 dnat to {ADDRESS}:80") as found:
        yield found


def connect(datapath: Datapath, port: int) -> None:
    with datapath.peer(), socket.create_connection((HOST4, port), 10):
        pass


def test_a_published_port_of_a_container_is_served(closed: Datapath, container: Namespace) -> None:
    with contextlib.ExitStack() as stack:
        with container.entered():
            stack.enter_context(listening(AF_INET, "0.0.0.0", 80))
        connect(closed, 8080)
        assert closed.hits() == 1, "it looks closed"
        closed.forget_hits()

        closed.policy(
            scan_counts="closed", scan_ports=5, scan_grace=GRACE, published_ports="8080,9000-9063"
        )
        connect(closed, 8080)
        assert not closed.hits()


def test_a_client_of_ten_served_ports_with_a_published_one_is_not_banned(
    closed: Datapath, container: Namespace
) -> None:
    closed.policy(scan_counts="closed", scan_ports=1, scan_grace=GRACE, published_ports="8080")
    with contextlib.ExitStack() as stack:
        for port in range(8401, 8410):
            stack.enter_context(listening(AF_INET6, "::", port))
        with container.entered():
            stack.enter_context(listening(AF_INET, "0.0.0.0", 80))
        for port in (*range(8401, 8410), 8080):
            connect(closed, port)
    assert not closed.banned()
