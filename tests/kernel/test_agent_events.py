# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent as a process: what it logs about scans, its limits, its heartbeat."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kernel.test_agent as agents
import pytest
from kernel.feeder import Feeder, connection

from packetwatch_core._kernel import abi

host = agents.host
SECONDS = 20
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes maps")


def scan(sequence: int, source: int, flags: int = abi.EVENT_MONITOR) -> bytes:
    """Write the record of a scan of 64 ports, which is the longest record."""
    return abi.EVENT.pack(
        time=time.monotonic_ns(),
        sequence=sequence,
        ifindex=1,
        type=abi.EVENT_BAN,
        family=4,
        flags=flags,
        plen=32,
        saddr=bytes(10) + b"\xff\xff" + (0x0A000000 + source).to_bytes(4, "big"),
        daddr=bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 1)),
        dport=22,
        count=64,
        listed=64,
        ports=range(sequence % 60000, sequence % 60000 + 64),
    )


def test_a_scanner_that_goes_on_is_logged_twice(host: agents.Host) -> None:
    host.start()
    agents.feed(host, [scan(number, source=1) for number in range(1, 2001)])
    host.wait(lambda: host.metrics()['packetwatch_agent_records_total{type="scan"}'] == 2000)
    assert host.actions()["scan"] == 1
    assert host.stop() == 0
    assert host.actions() == {"scan": 1, "scan_end": 1}
    (end,) = (line for line in host.lines() if line.get("event.action") == "scan_end")
    assert end["packetwatch.events"] == 2000
    assert len(end["packetwatch.ports"]) == 64


def test_scanners_by_the_thousand_in_25_mib(host: agents.Host) -> None:
    host.start()
    agents.feed(host, [scan(number, source=number % 5000) for number in range(1, 20_001)])
    host.wait(lambda: host.metrics()['packetwatch_agent_records_total{type="scan"}'] == 20_000)
    assert int(host.status("VmHWM")) <= agents.LIMIT_KIB


@pytest.mark.slow
def test_killed_during_scans_it_repeats_and_loses_none(host: agents.Host) -> None:
    """Episodes lose their counts, but begin again with an alert."""
    records = [
        scan(number, number, flags=0) if number % 3 == 0 else connection(number)
        for number in range(1, 4001)
    ]
    feeders = {size: Feeder(host.maps["events"], size) for size in {len(item) for item in records}}
    for record in records:
        feeders[len(record)].feed([record])
    for feeder in feeders.values():
        feeder.close()
    host.start(wait=False)
    host.wait(lambda: len(agents.sequences(host)) > 500)
    host.stop(signal.SIGKILL)
    with host.log.open("r+b") as log:
        text = log.read()
        log.truncate(text.rfind(b"\n") + 1)
    host.start()
    host.wait(lambda: agents.sequences(host)[-1:] == [4000], 30)
    found = agents.sequences(host)
    assert set(found) == set(range(1, 4001))
    assert len(found) - 4000 <= agents.BATCH


def test_what_is_not_to_be_logged_is_only_counted(host: agents.Host) -> None:
    state = host.folder / "config/1"
    (state / "policy.d").mkdir(parents=True)
    (state / "interfaces").write_text("lo auto\n")
    (state / "policy.d/lo.conf").write_text("PW_LOG_CONNECTIONS=none\n")
    (host.folder / "config/current").symlink_to("1")
    host.start()
    agents.feed(host, [connection(number) for number in range(1, 1001)])
    host.wait(lambda: host.metrics()['packetwatch_agent_records_total{type="connection"}'] == 1000)
    assert agents.sequences(host) == []


@pytest.mark.slow
def test_idle_it_takes_half_a_percent_of_a_core_at_most(host: agents.Host) -> None:
    host.start()
    time.sleep(2)
    before = host.metrics()["packetwatch_agent_cpu_seconds_total"]
    time.sleep(SECONDS)
    spent = host.metrics()["packetwatch_agent_cpu_seconds_total"] - before
    assert spent / SECONDS <= 0.005
    assert int(host.status("VmRSS")) <= agents.LIMIT_KIB


@pytest.fixture
def beats() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A port that receives heartbeats, and their content."""
    found: list[dict[str, Any]] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client = server.accept()[0]
            except OSError:
                return
            with client:
                data = b""
                while not data.endswith(b"}"):
                    data += client.recv(4096)
                found.append(json.loads(data.partition(b"\r\n\r\n")[2]))
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1], found
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.slow
def test_its_heart_says_down_while_nothing_is_loaded(
    host: agents.Host, beats: tuple[int, list[dict[str, Any]]]
) -> None:
    port, found = beats
    host.close_maps()
    host.pins.remove()
    url = f"http://127.0.0.1:{port}/"
    host.start(wait=False, PW_HEARTBEAT_URL=url, PW_HEARTBEAT_INTERVAL="10")
    host.wait(lambda: found)
    assert (found[0]["status"], found[0]["problems"]) == ("down", ["no filter is loaded"])
    host.make_maps()
    host.wait(lambda: found[-1]["status"] == "up", 30)
    assert host.metrics()["packetwatch_heartbeat_last_success_timestamp_seconds"] > 0
    assert host.metrics()["packetwatch_heartbeat_failures_total"] == 0


def test_its_heart_names_an_interface_that_is_not_filtered(
    host: agents.Host, beats: tuple[int, list[dict[str, Any]]], tmp_path: Path
) -> None:
    port, found = beats
    state = host.folder / "config/1"
    state.mkdir(parents=True)
    (state / "interfaces").write_text("pw9 auto\n")
    (host.folder / "config/current").symlink_to("1")
    host.start(PW_HEARTBEAT_URL=f"http://127.0.0.1:{port}/")
    host.wait(lambda: found)
    assert (found[0]["status"], found[0]["problems"]) == ("down", ["pw9 is not filtered"])
