# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The timer for the next entry that expires: when it is set, moved and stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from packetwatch_core._base.errors import LoadFailed
from packetwatch_core._change.alarm import Alarm


class Systemd:
    """A folder like systemd's runtime folder, and the commands that were run."""

    def __init__(self, root: Path) -> None:
        self.runtime, self.units = root / "run", root / "units"
        self.asked: list[Sequence[str]] = []
        self.status = 0

    def boot(self) -> None:
        (self.runtime / "system").mkdir(parents=True)
        (self.runtime / "transient").mkdir()
        self.units.mkdir()
        (self.units / "packetwatch-apply.service").touch()

    def run(self, argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        self.asked.append(argv)
        timer = self.runtime / "transient/packetwatch-apply.timer"
        if argv[0] == "systemctl":
            timer.unlink()
        else:
            (words,) = (word for word in argv if word.startswith("--description="))
            timer.write_text(f"[Unit]\nDescription={words.removeprefix('--description=')}\n")
        return self.status, "", "no such luck\n"

    def names(self) -> list[str]:
        found = [argv[0] for argv in self.asked]
        self.asked.clear()
        return found

    @property
    def alarm(self) -> Alarm:
        return Alarm(self.run, str(self.runtime), str(self.units))


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    return Systemd(tmp_path)


def test_set_move_keep_stop(systemd: Systemd) -> None:
    systemd.boot()
    systemd.alarm.set(0)
    assert systemd.names() == []
    systemd.alarm.set(1_800_000_000)
    assert "--on-calendar=@1800000000" in systemd.asked[0]
    assert systemd.names() == ["systemd-run"]
    systemd.alarm.set(1_800_000_000)
    assert systemd.names() == []
    systemd.alarm.set(1_900_000_000)
    assert systemd.names() == ["systemctl", "systemd-run"]
    systemd.alarm.set(0)
    assert systemd.names() == ["systemctl"]


@pytest.mark.parametrize("late", [-1, 0, 60])
def test_a_moment_that_passes_during_the_apply_is_not_lost(
    systemd: Systemd, late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd starts nothing if the timer elapses while its service, such as this process, runs."""
    systemd.boot()
    moment = int(time.time()) + 100
    systemd.alarm.set(moment)
    systemd.names()
    monkeypatch.setattr(time, "time", lambda: float(moment + late))
    systemd.alarm.set(moment)
    assert f"--on-calendar=@{moment + late + 3}" in systemd.asked[1]
    assert systemd.names() == ["systemctl", "systemd-run"]


def test_without_systemd_or_our_units_nothing_is_started(systemd: Systemd) -> None:
    systemd.alarm.set(1_800_000_000)
    systemd.boot()
    (systemd.units / "packetwatch-apply.service").unlink()
    systemd.alarm.set(1_800_000_000)
    assert systemd.names() == []


def test_what_systemd_refuses_is_reported(systemd: Systemd) -> None:
    systemd.boot()
    systemd.status = 1
    with pytest.raises(LoadFailed, match="no such luck"):
        systemd.alarm.set(1_800_000_000)
