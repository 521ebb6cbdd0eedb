# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parts, alone and as the whole agent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from unit.catalogue import CATALOGUE
from unit.fake_maps import FakeMap, run_maps
from unit.fake_ring import Memory

from packetwatch_agent import settings
from packetwatch_agent.assembly import assemble
from packetwatch_agent.control.commands import TABLE
from packetwatch_agent.control.requests import Command
from packetwatch_agent.control.rights import READ
from packetwatch_agent.drift import Drift
from packetwatch_agent.following import MAPS
from packetwatch_agent.loop import Loop
from packetwatch_agent.metrics import COUNTER, Rows, Values
from packetwatch_agent.output import Output
from packetwatch_agent.part import Part, Parts
from packetwatch_core._health.problems import Facts
from packetwatch_core._kernel import abi


class One(Part):
    METRICS: ClassVar[Rows] = {"made_total": (COUNTER, "Made.")}

    def __init__(self, log: list[str], name: str = "one") -> None:
        self._log, self._name = log, name

    def start(self, loop: Loop) -> None:
        self._log.append(f"start {self._name}")

    def reload(self) -> None:
        self._log.append(f"reload {self._name}")

    def stop(self) -> None:
        self._log.append(f"stop {self._name}")

    def values(self) -> Values:
        return {"made_total": [({"by": self._name}, 1)]}

    def facts(self, known: Facts) -> Facts:
        return known._replace(unpinned=[*known.unpinned, self._name])

    def commands(self) -> dict[str, Command]:
        return {self._name: Command(READ, lambda request: {})}


def test_the_last_part_stops_first() -> None:
    log: list[str] = []
    parts = Parts(One(log), Part(), One(log, "two"))
    loop = Loop()
    parts.start(loop)
    parts.reload()
    parts.stop()
    loop.close()
    assert log == ["start one", "start two", "reload one", "reload two", "stop two", "stop one"]


def test_two_parts_may_have_samples_of_one_metric() -> None:
    parts = Parts(One([]), Part(), One([], "two"))
    samples = ['made_total{by="one"} 1', 'made_total{by="two"} 1']
    for dummy in range(2):
        assert parts.page().splitlines()[2:] == samples
    assert parts.problems() == [
        f"the map {name} is in use and not pinned any more" for name in ("one", "two")
    ]
    assert set(parts.commands()) == {"one", "two"}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """The parts of an agent on maps in memory."""
    maps: dict[str, Any] = {name: FakeMap(name) for name in MAPS} | run_maps()
    maps["counters4"].entries[bytes(4)] = abi.COUNTERS.pack() * 2
    maps["events"] = memory = Memory()
    found = settings.read({"PW_CONFIG_DIR": str(tmp_path), "PW_STATE_DIR": str(tmp_path)})
    output = Output(os.open("/dev/null", os.O_WRONLY), "host")
    pins: Any = SimpleNamespace(holds=lambda name, bpf_map: True)
    service = assemble(pins, maps, found, output, Drift(found, output))
    yield service._parts
    service._loop.close()
    memory.close()


def test_every_sample_of_the_agent_belongs_to_a_declared_metric(parts: Parts) -> None:
    names = {name for part in parts._parts for name in part.values()}
    assert names <= set(CATALOGUE)
    assert len(names) > 40


def test_all_commands_are_answered_on_one_socket(parts: Parts) -> None:
    assert set(parts.commands()) == {*TABLE, "watch"}
