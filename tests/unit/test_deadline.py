# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The timer of a pending change, and the file that records the change."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from packetwatch_core._base.errors import InvalidInput, LoadFailed, Unreadable, Unsupported
from packetwatch_core._change import deadline
from packetwatch_core._change.deadline import Deadline
from packetwatch_core._change.pending import AT_ONCE, Record, Terms, check_terms, new_change


class Systemd:
    """A folder like systemd's runtime folder, and the commands that were run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.timer = root / "run/transient/packetwatch-rollback.timer"
        self.asked: list[Sequence[str]] = []
        self.status = 0
        self.deadline = Deadline(self.run, str(root / "run"), str(root / "units"), str(root))

    def boot(self) -> None:
        (self.root / "run/system").mkdir(parents=True)
        self.timer.parent.mkdir()
        (self.root / "units").mkdir()

    def install(self) -> None:
        (self.root / "units/packetwatch-rollback.service").touch()

    def run(self, argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        self.asked.append(argv)
        return self.status, "", "no such luck\n"


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    return Systemd(tmp_path)


def test_arm_and_disarm(systemd: Systemd) -> None:
    systemd.boot()
    systemd.install()
    systemd.deadline.check()
    systemd.deadline.disarm()
    assert systemd.asked == []
    systemd.deadline.arm(12.5)
    assert systemd.asked[0][0] == "systemd-run"
    assert "--on-active=12.500s" in systemd.asked[0]
    systemd.timer.touch()
    systemd.deadline.disarm()
    assert systemd.asked[1:] == [("systemctl", "stop", "packetwatch-rollback.timer")]


def test_where_the_role_is_not_installed_the_library_is_left_for_the_timer(
    systemd: Systemd,
) -> None:
    systemd.boot()
    systemd.deadline.arm(1)
    (argv,) = systemd.asked
    assert "/usr/bin/python3" in argv
    compile(argv[-1], "rollback", "exec")
    assert f"--setenv=PYTHONPATH={systemd.root}" in argv
    copy = systemd.root / "packetwatch_core"
    own = Path(deadline.__file__).parents[1]
    copied = {path.relative_to(copy) for path in copy.rglob("*.py")}
    assert copied == {path.relative_to(own) for path in own.rglob("*.py")}
    assert all((copy / path).read_text() == (own / path).read_text() for path in copied)


def test_a_timer_that_is_left_makes_room(systemd: Systemd) -> None:
    systemd.boot()
    systemd.install()
    systemd.timer.touch()
    systemd.deadline.arm(1)
    assert [argv[0] for argv in systemd.asked] == ["systemctl", "systemd-run"]


def test_without_systemd(systemd: Systemd) -> None:
    with pytest.raises(Unsupported, match="set confirm_timeout to 0"):
        systemd.deadline.check()


def test_what_systemd_refuses_is_reported(systemd: Systemd) -> None:
    systemd.boot()
    systemd.install()
    systemd.status = 1
    with pytest.raises(LoadFailed, match="no such luck"):
        systemd.deadline.arm(1)


def test_record(tmp_path: Path) -> None:
    record = Record(str(tmp_path / "folder"))
    assert record.read() is None
    record.remove()
    change = new_change(Terms(60), 8, {"eth0": "native"}, True)
    record.write(change)
    assert record.read() == change
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "folder/change.json").stat().st_mode & 0o777 == 0o600
    assert 59 < change.left <= 60
    assert len(change.token) == 32
    assert "(user " in change.owner
    ended = change.end("confirmed")
    assert ended.ended == pytest.approx(time.time(), abs=5)
    record.remove()
    assert record.read() is None


def test_other_versions_read_a_record(tmp_path: Path) -> None:
    record = Record(str(tmp_path))
    change = new_change(Terms(60), 8, {"eth0": "native"}, True)
    record.write(change)
    written = json.loads((tmp_path / "change.json").read_text())
    assert written.keys() == change._asdict().keys() - {"ended", "lifts", "ended_by"}
    (tmp_path / "change.json").write_text(json.dumps(written | {"of_a_later_version": 1}))
    assert record.read() == change
    record.write(change.end("rolled_back", "somebody"))
    assert json.loads((tmp_path / "change.json").read_text())["ended_by"] == "somebody"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"status": "pending"}', "\xff"])
def test_a_damaged_record_is_not_taken_for_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "change.json").write_text(text, encoding="latin-1")
    with pytest.raises(
        Unreadable, match=r"change\.json: .*remove the file: Packetwatch then forgets"
    ):
        Record(str(tmp_path)).read()


def test_tokens_differ() -> None:
    assert len({new_change(AT_ONCE, 1, {}, False).token for dummy in range(100)}) == 100


@pytest.mark.parametrize("seconds", [-1, 86400.5, float("nan"), float("inf")])
def test_times_that_are_none(seconds: float) -> None:
    check_terms(Terms(86400))
    with pytest.raises(InvalidInput, match="allowed: 0"):
        check_terms(Terms(seconds))
