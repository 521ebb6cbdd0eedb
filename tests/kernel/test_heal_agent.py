# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The unprivileged agent sees real drift, asks for a repair, and logs the result."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.controlling import AGENT, Controlled, controlled
from kernel.hosting import DENIED, UNLISTED, XDP_DROP, dummy_program, wait

from packetwatch_core._active.attach import create_link
from packetwatch_core._declared.edits import set_lists
from packetwatch_core._host.heal import heal
from packetwatch_core._kernel.libbpf import call
from packetwatch_core._kernel.programs import Link

pytest_plugins = ("kernel.site_fixtures",)
# Each test waits for the agent's checks.
pytestmark = [
    pytest.mark.slow(10),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs"),
]

OTHERS = "the tables in the kernel are not those of confirmed state"
# Two checks, five seconds apart.
SECONDS = 30


class Watched:
    """A filtered host with an agent whose log is read."""

    def __init__(self, host: Controlled) -> None:
        self.host = host.site.host
        self.site = host.site
        self.controlled = host
        self.request = host.folder / "run/heal-request"
        host.site.lists(deny=DENIED)
        host.start(
            PW_HEAL_REQUEST=str(self.request),
            PW_STATUS_FILE=host.site.paths.status,
        )

    def lines(self, action: str) -> list[dict[str, Any]]:
        text = self.controlled.log.read_text().rpartition("\n")[0]
        lines = [json.loads(line) for line in text.splitlines()]
        return [line for line in lines if line.get("event.action") == action]

    def wait_logged(self, action: str, count: int) -> dict[str, Any]:
        """Wait for `count` lines; return the last one."""
        wait(lambda: len(self.lines(action)) == count, SECONDS)
        return self.lines(action)[-1]

    def asked(self) -> None:
        """Wait for the request and remove it, like the one-shot."""
        wait(self.request.exists, SECONDS)
        self.request.unlink()

    def detach(self) -> None:
        with Link.open(self.host.pins.link("pw0")) as link:
            call("bpf_link_detach", link.fd, what="detach")


@pytest.fixture(scope="module")
def shared(bytecode_cache: Path) -> Iterator[Watched]:
    with controlled(bytecode_cache) as found, found.site.wire.host.entered():
        if found.process is not None:
            found.stop()
        yield Watched(found)


@pytest.fixture
def watched(shared: Watched) -> Iterator[Watched]:
    with shared.site.wire.host.entered():
        shared.request.unlink(missing_ok=True)
        yield shared


def test_a_detached_program(watched: Watched) -> None:
    watched.detach()
    assert watched.wait_logged("drift", 1)["packetwatch.problems"] == ["pw0 is not filtered"]
    watched.asked()
    assert heal(watched.host).left == []
    repair = watched.wait_logged("repair", 1)
    assert repair["event.outcome"] == "success"
    assert repair["packetwatch.problems"] == ["pw0 is not filtered"]
    assert watched.site.verdict(DENIED) == XDP_DROP


def test_a_foreign_program(watched: Watched) -> None:
    before = len(watched.lines("drift"))
    watched.detach()
    with dummy_program() as foreign:
        held = create_link(foreign, "pw0", socket.if_nametoindex("pw0"), "auto")
        watched.wait_logged("drift", before + 1)
        assert heal(watched.host).left
        repair = watched.wait_logged("repair", len(watched.lines("repair")) + 1)
        assert repair["event.outcome"] == "failure"
        assert "another XDP program: 'dummy'" in repair["message"]
        held.link.close()
    assert heal(watched.host).left == []


def test_a_pin_that_is_gone(watched: Watched) -> None:
    before = len(watched.lines("drift"))
    os.unlink(watched.host.pins.map("bans"))
    event = watched.wait_logged("drift", before + 1)
    assert event["packetwatch.problems"] == ["the map bans is in use and not pinned any more"]
    assert heal(watched.host).left == []
    os.chown(watched.host.pins.map("bans"), AGENT.uid, AGENT.gid)


def test_a_broken_link_to_what_is_confirmed(watched: Watched) -> None:
    before = len(watched.lines("drift"))
    number = watched.host.store.number()
    (watched.site.state / "current").unlink()
    event = watched.wait_logged("drift", before + 1)
    assert event["packetwatch.problems"] == [f"state {number} is active, and 0 is confirmed"]
    assert heal(watched.host).left == []
    assert watched.host.store.number() == number


def test_tables_that_root_has_found_to_differ(watched: Watched) -> None:
    before = len(watched.lines("drift"))
    with watched.site.slot() as slot:
        slot.delete(bytes(4))
    assert watched.host.verify()
    event = watched.wait_logged("drift", before + 1)
    assert event["packetwatch.problems"] == [OTHERS]
    assert heal(watched.host).left == []


def test_a_change_by_its_own_ways_is_no_drift(watched: Watched) -> None:
    before = len(watched.lines("drift"))
    for number in range(12):
        watched.host.apply(set_lists("ansible", {"deny": f"10.0.0.{number}\n"}, True))
        watched.host.detach("pw0")
        watched.host.attach("pw0")
        for name in os.listdir(watched.host.pins.run):
            os.chown(watched.host.pins.map(name), AGENT.uid, AGENT.gid)
    assert watched.site.verdict(UNLISTED) != XDP_DROP
    assert len(watched.lines("drift")) == before
    assert not watched.request.exists()
