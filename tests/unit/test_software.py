# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role copies out of its folder: the plan names it, and only the plan is carried out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from packetwatch_core._base.paths import BPFFS
from packetwatch_core._setup import accounts, places
from packetwatch_core._setup.install import install_copies
from packetwatch_core._setup.removal import remove_empty
from packetwatch_core._setup.software import Plan, describe, make_plan

CONTENTS = {"bin/packetwatchctl": b"#!/bin/sh\n", "man/packetwatchctl.8": b".TH\n"}
NAME = "1.0-abc"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that has only the version's folder."""
    copies = {"bin": f"{tmp_path}/local/bin", "man": f"{tmp_path}/local/man8"}
    monkeypatch.setattr(places, "LIBRARY", f"{tmp_path}/lib")
    monkeypatch.setattr(places, "COPIES", copies)
    monkeypatch.setattr(places, "MODES", {copies["bin"]: 0o755})
    monkeypatch.setattr(accounts, "GROUPS", {})
    monkeypatch.setattr(accounts, "USERS", ("root",))
    for path, data in CONTENTS.items():
        target = tmp_path / "lib" / NAME / path
        target.parent.mkdir(parents=True)
        target.write_bytes(data)
    (tmp_path / "lib/current").symlink_to(NAME)
    return tmp_path


def plan(*left_out: str, **members: list[str]) -> Plan:
    manifest = {
        path: hashlib.sha256(data).hexdigest()
        for path, data in CONTENTS.items()
        if path not in left_out
    }
    return make_plan(NAME, manifest, members)


def install(found: Plan) -> list[list[str]]:
    """Return the commands that the call runs."""
    commands: list[list[str]] = []

    def run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        commands.append(list(argv))
        return 0, "", ""

    install_copies(run, found)
    return commands


def test_the_command_may_be_run_and_the_manual_not(root: Path) -> None:
    found = plan()
    assert sorted(found.write) == sorted(CONTENTS)
    assert "local/bin/packetwatchctl" in describe(found)["after"]
    install(found)
    command, manual = root / "local/bin/packetwatchctl", root / "local/man8/packetwatchctl.8"
    assert (command.stat().st_mode & 0o7777, manual.stat().st_mode & 0o7777) == (0o755, 0o644)
    assert not plan().changed


def test_a_mode_that_was_changed_is_reported_and_repaired(root: Path) -> None:
    install(plan())
    os.chmod(root / "local/bin/packetwatchctl", 0o644)
    found = plan()
    assert list(found.write) == ["bin/packetwatchctl"]
    texts = describe(found)
    assert "mode 0644" in texts["before"]
    assert " mode " not in texts["after"]
    install(found)
    assert not plan().changed


def test_what_a_version_no_longer_has_is_removed(root: Path) -> None:
    install(plan())
    found = plan("man/packetwatchctl.8")
    assert found.remove == [f"{root}/local/man8/packetwatchctl.8"]
    install(found)
    assert not (root / "local/man8/packetwatchctl.8").exists()


def test_a_group_has_the_members_that_are_declared(root: Path) -> None:
    """Uses the group root, which has no members on Debian."""
    install(plan())
    found = plan(root=["nobody", "daemon", "nobody"])
    assert found.changed
    texts = describe(found)
    assert "members of root: none\n" in texts["before"]
    assert "members of root: daemon nobody\n" in texts["after"]
    assert install(found) == [["gpasswd", "--members", "daemon,nobody", "root"]]
    assert not plan(root=[]).changed


def test_all_copies_are_removed_with_the_rest() -> None:
    files = Path(__file__).resolve().parents[2] / "roles/packetwatch/files"
    for folder, target in (("bin", "bin"), ("completion", "completion"), ("man", "man")):
        for path in (files / folder).iterdir():
            assert os.path.join(places.COPIES[target], path.name) in places.DATA


def test_units_are_removed_by_pattern() -> None:
    files = Path(__file__).resolve().parents[2] / "roles/packetwatch/files/units"
    for path in files.iterdir():
        assert any(path.match(pattern) for pattern in places.UNIT_PATTERNS), path.name


def test_empty_folders_go_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    remove_empty([f"{tmp_path}/{name}" for name in ("empty", "full", "missing")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_pins_are_where_the_library_makes_them() -> None:
    assert places.PINS == (f"{BPFFS}/links", BPFFS)
