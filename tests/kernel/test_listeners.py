# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`scan_grace` begins when a service ends: the agent reads real listeners, and the program decides."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6

import pytest
from kernel.datapath import DROP, PASS, Datapath, listening
from kernel.packets import HOST4, syn4, syn6

from packetwatch_agent.listeners import Listeners
from packetwatch_agent.loop import Loop
from packetwatch_agent.output import Output
from packetwatch_core._kernel import abi
from packetwatch_core._network.listeners import clock, read_ports

CLIENT4, CLIENT6 = "203.0.113.21", "2001:db8:21::1"
PORTS = range(8601, 8607)
GRACE = 2
SECOND = 1_000_000_000


class Agent:
    """The part of the agent that reads listeners; a test says when it works."""

    def __init__(self, datapath: Datapath, log: Path) -> None:
        self._datapath = datapath
        self.log = log
        self._file = log.open("wb")
        self.part = Listeners(datapath.maps, Output(self._file.fileno(), "host"), lambda: True)

    def restart(self) -> None:
        loop = Loop()
        self.part.start(loop)
        loop.close()

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def agent(closed: Datapath, tmp_path: Path) -> Iterator[Agent]:
    closed.policy(scan_counts="closed", scan_ports=5, scan_grace=GRACE)
    found = Agent(closed, tmp_path / "log")
    yield found
    assert found.log.read_bytes() == b""
    found.close()


@contextlib.contextmanager
def services(family: int = AF_INET, address: str = "0.0.0.0") -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for port in PORTS:
            stack.enter_context(listening(family, address, port))
        yield


def ask(datapath: Datapath, client: str = CLIENT4) -> list[int]:
    make = syn6 if ":" in client else syn4
    return [datapath.run(make(client, port)) for port in PORTS]


def move_back(datapath: Datapath, seconds: float, *, also_the_reading: bool = True) -> None:
    """Let time pass: make what was written older."""
    keys = b"".join(port.to_bytes(4, sys.byteorder) for port in PORTS)
    stamps = [
        int.from_bytes(datapath.maps["open_ports"].lookup(keys[at : at + 4]) or b"", sys.byteorder)
        for at in range(0, len(keys), 4)
    ]
    back = round(seconds * SECOND)
    older = b"".join(max(stamp - back, 0).to_bytes(8, sys.byteorder) for stamp in stamps)
    datapath.maps["open_ports"].update_many(keys, older)
    if also_the_reading:
        datapath.maps["shared"].write_word(abi.LISTENERS_READ, max(clock() - back, 1))


ALL_PASS = [PASS] * len(PORTS)
BANNED_AT_THE_FIFTH = [PASS] * 4 + [DROP] * 2


def test_without_the_agent_services_that_nobody_asked_are_closed_at_once(closed: Datapath) -> None:
    with services():
        pass
    assert ask(closed) == BANNED_AT_THE_FIFTH


@pytest.mark.parametrize(
    ("family", "address", "client"),
    [
        (AF_INET, "0.0.0.0", CLIENT4),
        (AF_INET, HOST4, CLIENT4),
        (AF_INET6, "::", CLIENT4),
        (AF_INET6, "::", CLIENT6),
    ],
)
def test_services_that_nobody_asked_for_long_end_together(
    closed: Datapath, agent: Agent, family: int, address: str, client: str
) -> None:
    with services(family, address):
        agent.part.tick()
        move_back(closed, 10 * GRACE)
        agent.part.tick()
    agent.part.tick()
    assert ask(closed, client) == ALL_PASS
    assert closed.hits() == 0


def test_services_whose_last_connection_is_longer_ago_than_the_grace(
    closed: Datapath, agent: Agent
) -> None:
    with services():
        assert ask(closed) == ALL_PASS
        move_back(closed, 10 * GRACE)
        agent.part.tick()
    agent.part.tick()
    assert ask(closed) == ALL_PASS and closed.hits() == 0


@pytest.mark.slow
def test_after_the_grace_they_are_closed(closed: Datapath, agent: Agent) -> None:
    with services():
        agent.part.tick()
    ended = time.monotonic()
    time.sleep(0.01)
    agent.part.tick()
    assert ask(closed) == ALL_PASS
    time.sleep(max(ended + GRACE - 0.2 - time.monotonic(), 0))
    assert ask(closed) == ALL_PASS
    time.sleep(0.25)
    agent.part.tick()
    assert ask(closed) == BANNED_AT_THE_FIFTH


def test_the_end_of_a_service_is_unknown_while_the_agent_is_dead(
    closed: Datapath, agent: Agent
) -> None:
    with services():
        agent.part.tick()
        move_back(closed, 100 * GRACE)
        move_reading = clock() - 101 * GRACE * SECOND
        closed.maps["shared"].write_word(abi.LISTENERS_READ, move_reading)
    assert ask(closed) == ALL_PASS
    # The agent comes back: the services may have ended a moment ago.
    agent.restart()
    time.sleep(0.01)
    agent.part.tick()
    assert ask(closed) == ALL_PASS and closed.hits() == 0
    move_back(closed, GRACE, also_the_reading=False)
    assert ask(closed) == BANNED_AT_THE_FIFTH


def test_what_ended_before_the_agent_died_is_closed_after_the_grace(
    closed: Datapath, agent: Agent
) -> None:
    with services():
        agent.part.tick()
    time.sleep(0.01)
    agent.part.tick()
    move_back(closed, GRACE, also_the_reading=False)
    agent.restart()
    assert ask(closed) == BANNED_AT_THE_FIFTH


def test_without_grace_the_end_counts_at_once(closed: Datapath, agent: Agent) -> None:
    closed.policy(scan_counts="closed", scan_ports=5, scan_grace=0)
    with services():
        agent.part.tick()
        assert ask(closed) == ALL_PASS
    assert ask(closed) == BANNED_AT_THE_FIFTH


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (AF_INET, "127.0.0.1"),
        (AF_INET, "127.9.9.9"),
        (AF_INET6, "::1"),
        (AF_INET6, "::ffff:127.0.0.1"),
    ],
)
def test_what_only_this_host_reaches_is_closed(
    closed: Datapath, agent: Agent, family: int, address: str
) -> None:
    with services(family, address):
        assert not read_ports() & set(PORTS)
        agent.part.tick()
        assert ask(closed) == BANNED_AT_THE_FIFTH


def test_readings_of_many_listeners_are_paced(closed: Datapath, agent: Agent) -> None:
    with contextlib.ExitStack() as stack:
        for port in range(20000, 20300):
            stack.enter_context(listening(AF_INET, "0.0.0.0", port))
        agent.part.tick()
        assert len(read_ports()) >= 300
        started = time.thread_time()
        pauses = [agent.part.tick() for dummy in range(20)]
        spent = time.thread_time() - started
    assert all(1 <= pause <= 10 for pause in pauses)
    # A machine on which a reading takes more than 5 ms pauses as long as it may.
    assert spent / sum(pauses) < 0.001 or max(pauses) == 10
