# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When the agent logs drift, and when it asks root to repair it."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from packetwatch_agent import settings
from packetwatch_agent.drift import PERIOD, Drift
from packetwatch_agent.output import Output
from packetwatch_core._base.errors import Unreadable

GONE = "eth0 is not filtered"


class Lab:
    """Drift that a test sets, on a clock that the test moves; it also replaces the outlook."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.request = folder / "heal-request"
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._output = Output(writer, "web1")
        self.seen: list[str] = []
        self.noted: dict[str, Any] = {}
        self.missing: dict[str, str] = {}
        self.begin()

    def begin(self, **variables: str) -> None:
        values = settings.read({"PW_HEAL_REQUEST": str(self.request)} | variables)
        self.drift = Drift(values, self._output)
        stand_in: Any = self
        self.drift.watch(stand_in, stand_in, self.look)

    def after(self, seconds: float, call: Any) -> None:
        assert seconds == PERIOD

    def look(self) -> list[str]:
        return list(self.seen)

    def repair(self) -> dict[str, Any]:
        return self.noted

    def nexts(self) -> dict[str, str]:
        return self.missing

    def tick(self, times: int = 1) -> list[dict[str, Any]]:
        """Return the lines that so many checks write."""
        for dummy in range(times):
            assert self.drift.tick() == PERIOD
            self.now += PERIOD
        try:
            return [json.loads(line) for line in os.read(self._reader, 1 << 16).splitlines()]
        except BlockingIOError:
            return []

    def asked(self) -> bool:
        """Return whether there is a request; remove it."""
        was = self.request.exists()
        self.request.unlink(missing_ok=True)
        return was


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def test_all_is_well(lab: Lab) -> None:
    assert lab.tick(3) == []
    assert not lab.asked()
    assert lab.drift.values() == {"packetwatch_drift": [({}, 0)]}


def test_what_is_seen_twice_in_a_row_is_logged_once_and_asked_for(lab: Lab) -> None:
    lab.seen = [GONE]
    assert lab.tick() == []
    assert not lab.asked()
    (line,) = lab.tick()
    assert lab.asked()
    assert (line["event.action"], line["event.kind"]) == ("drift", "alert")
    assert line["packetwatch.problems"] == [GONE]
    assert line["message"] == f"not as confirmed: {GONE}; root is asked to repair it"
    assert lab.drift.values() == {"packetwatch_drift": [({}, 1)]}
    assert lab.tick() == []


def test_a_change_that_is_just_being_made_is_no_drift(lab: Lab) -> None:
    for seen in ([GONE], [], [GONE], ["pw1 is not filtered"], []):
        lab.seen = seen
        assert lab.tick() == []
    assert not lab.asked()


def test_it_asks_again_with_longer_and_longer_pauses(lab: Lab) -> None:
    lab.seen = [GONE]
    times = []
    for dummy in range(1000):
        lab.tick()
        if lab.asked():
            times.append(lab.now)
    pauses = [later - former for former, later in itertools.pairwise(times)]
    assert pauses[:6] == [30, 60, 120, 240, 480, 600]
    assert set(pauses[6:]) == {600}


def test_after_a_repair_the_next_drift_is_asked_for_at_once(lab: Lab) -> None:
    for dummy in range(3):
        lab.seen = [GONE]
        assert len(lab.tick(2)) == 1
        assert lab.asked()
        lab.seen = []
        assert lab.tick() == []


def test_another_drift_is_asked_for_soon(lab: Lab) -> None:
    lab.seen = [GONE]
    lab.tick(60)
    lab.asked()
    for dummy in range(4):
        lab.seen = [f"eth{dummy} is not filtered", "and more"]
        began = lab.now
        while not lab.asked():
            lab.tick()
        assert lab.now - began <= 45


def test_switched_off_it_only_logs(lab: Lab) -> None:
    lab.begin(PW_SELF_HEAL="0")
    lab.seen = [GONE]
    (line,) = lab.tick(4)
    assert line["message"].endswith("; self-healing is off")
    assert not lab.asked()


def test_what_root_has_done_is_logged_when_it_is_noted(lab: Lab) -> None:
    lab.noted = {"time": time.time(), "found": [GONE], "left": []}
    (line,) = lab.tick(3)
    assert (line["event.action"], line["event.outcome"]) == ("repair", "success")
    assert (line["packetwatch.problems"], line["message"]) == ([GONE], f"repaired: {GONE}")


def test_a_repair_of_long_ago_is_not_logged_by_an_agent_that_starts(lab: Lab) -> None:
    lab.noted = {"time": time.time() - 3600, "found": [GONE], "left": []}
    assert lab.tick() == []
    lab.noted = {}
    assert lab.tick() == []


def test_a_failure_that_comes_again_is_logged_once(lab: Lab) -> None:
    moment = time.time()
    logged = []
    for number, left in enumerate([["a"], ["a"], ["b"], [], ["b"]]):
        lab.noted = {"time": moment + number, "found": [GONE], "left": left}
        logged += [(line["event.outcome"], line["packetwatch.problems"]) for line in lab.tick()]
    assert logged == [
        ("failure", ["a"]),
        ("failure", ["b"]),
        ("success", [GONE]),
        ("failure", ["b"]),
    ]


@pytest.mark.parametrize("noted", [{"time": "x"}, {"time": None}, {"time": 1e12, "left": None}])
def test_a_damaged_note_does_no_harm(lab: Lab, noted: dict[str, Any]) -> None:
    lab.noted = noted
    lab.tick(2)


def test_what_cannot_be_seen_or_asked_for_is_logged_once(lab: Lab) -> None:
    lab.request.mkdir()
    lab.seen = [GONE]
    lines = lab.tick(100)
    assert len(lines) == 2
    assert lines[1]["log.level"] == "warn" and str(lab.request) in lines[1]["message"]

    def fail() -> list[str]:
        raise Unreadable("no such luck")

    stand_in: Any = lab
    lab.drift.watch(stand_in, stand_in, fail)
    (line,) = lab.tick(3)
    assert line["message"] == "cannot check for drift: no such luck"


def test_a_next_program_that_is_missing_is_logged_once_and_so_is_its_return(lab: Lab) -> None:
    lab.missing = {"eth0": "", "eth1": "nothing is pinned at /sys/fs/bpf/x"}
    (line,) = lab.tick(3)
    assert (line["event.action"], line["event.outcome"]) == ("next_program", "failure")
    assert line["observer.ingress.interface.name"] == "eth1"
    assert line["message"] == (
        "the next program of eth1 is not as declared: nothing is pinned at /sys/fs/bpf/x"
    )
    assert not lab.asked()
    lab.missing = {"eth0": "", "eth1": ""}
    (line,) = lab.tick(3)
    assert line["event.outcome"] == "success"
    assert line["message"] == "the next program of eth1 is as declared again"
