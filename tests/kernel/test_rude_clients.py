# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The log comes before any client: the worst client of each kind, beside a burst of connections and a scan."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel import rude
from kernel.controlling import OUTSIDER, PYTHON, READER, Controlled, User, controlled, rights_of
from kernel.hosting import OWN
from kernel.packets import syn4

from packetwatch_core._kernel import abi
from packetwatch_core._kernel.libbpf import Map

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs"),
    pytest.mark.slow,
]

PORT = 9477
BANS = 12_000
# As many as the ring takes at once, so that none is lost however late the agent is.
BURST = 9_120
# Seconds until the line of a scan is written, and until the whole burst is.
AT_ONCE, SOON = 2.0, 8.0


@pytest.fixture(scope="module")
def host(bytecode_cache: Path) -> Iterator[Controlled]:
    """A host with long tables of bans: reading and saving them is the agent's longest work."""
    with controlled(bytecode_cache) as found, found.site.wire.host.entered():
        found.site.policy(scan_ports="5", ban_time="1h")
        found.stop()
        for table, first in (("bans", 18), ("scan_bans", 19)):
            fill(found, table, first)
        found.start(PW_METRICS_LISTEN=f"127.0.0.1:{PORT}")
        yield found


def fill(host: Controlled, table: str, first: int) -> None:
    now = time.monotonic_ns()
    keys = b"".join(
        abi.SOURCE.struct.pack(128, bytes(10) + b"\xff\xff" + bytes((198, first, n >> 8, n & 255)))
        for n in range(BANS)
    )
    ban = abi.BAN.pack(since=now, expires=now + 3600 * 10**9, origin=abi.ORIGIN_SCAN, dropped=1)
    with Map.open(host.pins.map(table)) as found:
        for at in range(0, len(keys), 1000 * abi.SOURCE.size):
            some = keys[at : at + 1000 * abi.SOURCE.size]
            found.update_many(some, ban * (len(some) // abi.SOURCE.size))


@contextlib.contextmanager
def client(host: Controlled, kind: str, user: User) -> Iterator[None]:
    process = subprocess.Popen(
        [PYTHON, rude.__file__, kind, str(host.control), str(PORT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        **rights_of(user),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield
    finally:
        process.kill()
        process.communicate()


def run(host: Controlled, frames: Iterator[bytes]) -> None:
    index = socket.if_nametoindex("pw0")
    with host.site.program() as program:
        for frame in frames:
            program.test_run(frame, index)


def connections(number: int) -> Iterator[bytes]:
    """A SYN from each of `BURST` sources."""
    head, tail = syn4("0.0.0.0", 443, OWN)[:26], syn4("0.0.0.0", 443, OWN)[30:]
    return (head + bytes((20 + number, 0, n >> 8, n & 255)) + tail for n in range(BURST))


def counters(host: Controlled) -> dict[str, int]:
    found: dict[str, int] = host.site.host.info({"counters"})["counters"]
    return found


def written(host: Controlled, began: int, text: bytes) -> int:
    with host.log.open("rb") as log:
        log.seek(began)
        return log.read().count(text)


def until(host: Controlled, began: int, text: bytes, count: int) -> float:
    """Wait until so many lines have the text; return the seconds."""
    started = time.monotonic()
    host.wait(lambda: written(host, began, text) >= count, 60)
    return time.monotonic() - started


@pytest.mark.parametrize(("number", "kind"), list(enumerate(rude.KINDS)), ids=list(rude.KINDS))
def test_the_log_is_whole_and_prompt(host: Controlled, number: int, kind: str) -> None:
    began = host.log.stat().st_size
    before = counters(host)
    scanner = f"203.0.113.{number + 20}"
    with client(host, kind, OUTSIDER if kind == "knock" else READER):
        time.sleep(0.5)
        run(host, (syn4(scanner, port, OWN) for port in range(4001, 4006)))
        scan = until(host, began, b'"ban","event.kind":"alert"', 1)
        run(host, connections(number))
        # The program itself limits events; what it has written to the ring must be in the log.
        events = counters(host)["events"] - before["events"]
        assert events >= BURST // 2
        burst = until(host, began, b'"event.sequence":', events)
        print(f"{kind}: scan {scan:.2f} s, burst {burst:.2f} s")
    assert counters(host)["events_lost"] == before["events_lost"]
    assert scan <= AT_ONCE
    assert burst <= SOON
