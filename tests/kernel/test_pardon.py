# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The end of a ban leaves nothing that was counted before, however the ban ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel.datapath import PASS, Datapath
from kernel.hosting import run
from kernel.packets import syn4, syn6

from packetwatch_agent import settings
from packetwatch_agent.guard import Guard
from packetwatch_agent.output import Output
from packetwatch_core._bans.bans import Ban
from packetwatch_core._bans.by_hand import unban
from packetwatch_core._kernel import abi

SOURCES = ("203.0.113.20", "2001:db8:20::1", "2001:db8:21::/64")


def host_of(source: str) -> str:
    """Return an address of the source."""
    return source.replace("/64", "9")


def probe(datapath: Datapath, source: str, *ports: int) -> list[int]:
    """Return the verdicts for SYNs from the source to closed ports."""
    address = host_of(source)
    make = syn6 if ":" in address else syn4
    return [datapath.run(make(address, port)) for port in ports]


def lift_by_hand(datapath: Datapath, source: str) -> None:
    assert datapath.bans.lift(source)


def lift_by_module(datapath: Datapath, source: str) -> None:
    assert unban(run, datapath.pins, source, check=False).changed


def let_expire(datapath: Datapath, source: str) -> None:
    """Let the ban end at its time, without the agent."""
    datapath.bans.add(source, 0.05)
    time.sleep(0.1)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("end", [lift_by_hand, lift_by_module, let_expire])
def test_a_ban_by_hand_leaves_no_count(
    closed: Datapath, source: str, end: Callable[[Datapath, str], None]
) -> None:
    assert probe(closed, source, 1, 2, 3, 4) == [PASS] * 4
    closed.bans.add(source, 600)
    end(closed, source)
    assert closed.hits() == 0
    assert probe(closed, source, 5, 6, 7, 8) == [PASS] * 4
    assert not closed.banned()
    probe(closed, source, 9)
    assert closed.banned() == {closed.bans.source_of(source).text}


@pytest.mark.parametrize("source", SOURCES)
def test_a_single_port_is_forgotten_too(closed: Datapath, source: str) -> None:
    """One port has no track; it is in the table of first ports."""
    probe(closed, source, 1)
    closed.bans.add(source, 600)
    closed.bans.lift(source)
    assert closed.hits() == 0


def test_unban_of_an_address_forgets_what_its_slash_64_has_done(closed: Datapath) -> None:
    probe(closed, "2001:db8:20::1", 1, 2, 3, 4)
    closed.bans.add("2001:db8:20::7/128", 600)
    closed.bans.lift("2001:db8:20::7")
    assert probe(closed, "2001:db8:20::1", 5) == [PASS] and not closed.banned()


def test_the_counts_of_all_other_sources_stay(closed: Datapath) -> None:
    for source in SOURCES:
        probe(closed, source, 1, 2, 3, 4)
    closed.bans.add(SOURCES[0], 600)
    closed.bans.lift(SOURCES[0])
    for source in SOURCES:
        probe(closed, source, 5)
    assert closed.banned() == {"2001:db8:20::/64", "2001:db8:21::/64"}


@pytest.mark.parametrize("protected", ["203.0.113.20", "203.0.113.0/24"])
def test_a_lift_by_protection_leaves_no_count(
    closed: Datapath, tmp_path: Path, protected: str
) -> None:
    """The ban is one of an earlier version, which left the count."""
    probe(closed, "203.0.113.20", 1, 2, 3, 4)
    assert closed.hits() == 4
    now = time.monotonic_ns()
    source = closed.bans.source_of("203.0.113.20")
    closed.bans.put(Ban("bans", source, now, 0, 0, 0, 0, 0, abi.ORIGIN_MANUAL, 0))
    lifted: list[Ban] = []
    with open(tmp_path / "log", "wb") as log:
        guard = Guard(
            closed.maps,
            settings.read({"PW_PROTECT_AUTO": "0", "PW_PROTECT": protected}),
            Output(log.fileno(), "host"),
            lifted.append,
            lambda network: None,
        )
        guard.refresh()
    assert [ban.source for ban in lifted] == [source]
    assert closed.hits() == 0 and not closed.banned()
