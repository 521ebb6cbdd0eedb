# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archive that the role installs: the same bytes from any checkout, without stray files."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._archive import collect

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("plugins/module_utils", "roles/packetwatch/files")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the parts of the collection that belong in the archive."""
    for part in PARTS:
        shutil.copytree(ROOT / part, tmp_path / part)
    return tmp_path


def test_same_files_give_same_bytes(checkout: Path) -> None:
    here = collect(ROOT)
    for path in checkout.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    there = collect(checkout)
    assert there.name == here.name
    assert there.pack() == here.pack()


def test_members_are_roots_sorted_and_plain() -> None:
    with tarfile.open(fileobj=io.BytesIO(collect(ROOT).pack())) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {
        (0, 0, 0, 0o644)
    }
    assert all(member.isreg() for member in members)


def test_stray_files_are_left_out(checkout: Path) -> None:
    before = collect(checkout).name
    agent = checkout / "roles/packetwatch/files/agent/packetwatch_agent"
    (agent / "__pycache__").mkdir(exist_ok=True)
    for path in (
        agent / "__pycache__/run.cpython-313.pyc",
        agent / "run.py~",
        checkout / "plugins/module_utils/.#_module.py",
        checkout / "plugins/module_utils/_declared/.#store.py",
        agent / ".#run.py",
        checkout / "roles/packetwatch/files/bpf/packetwatch.bpf.o",
        checkout / "roles/packetwatch/files/units/packetwatch.service.orig",
    ):
        path.write_text("junk\n")
    assert collect(checkout).name == before


def test_any_change_gives_another_name(checkout: Path) -> None:
    before = collect(checkout).name
    unit = checkout / "roles/packetwatch/files/units/packetwatch.service"
    unit.write_text(unit.read_text() + "\n")
    after = collect(checkout).name
    assert after != before
    assert after.partition("-")[0] == before.partition("-")[0]


def test_missing_part_is_named(checkout: Path) -> None:
    shutil.rmtree(checkout / "roles/packetwatch/files/bpf")
    with pytest.raises(ValueError, match="roles/packetwatch/files/bpf"):
        collect(checkout)


def test_version_is_the_collections() -> None:
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    assert collect(ROOT).version == galaxy["version"]


def test_only_the_command_has_a_shebang() -> None:
    software = collect(ROOT)
    assert {path.partition("/")[0] for path in software.files} == {
        "bin",
        "bpf",
        "completion",
        "man",
        "packetwatch_agent",
        "packetwatch_core",
        "packetwatch_fleet",
        "sysusers",
        "units",
    }
    found = [path for path, data in software.files.items() if data.startswith(b"#!")]
    assert found == ["bin/packetwatchctl"]


def test_agent_sees_the_pins_of_this_abi() -> None:
    abi = re.search(r"#define PW_ABI (\d+)", (ROOT / PARTS[1] / "bpf/abi.h").read_text())
    assert abi
    unit = (ROOT / PARTS[1] / "units/packetwatch.service").read_text()
    assert f"-/sys/fs/bpf/packetwatch/v{abi[1]}/run:/run/packetwatch/pins/v{abi[1]}/run\n" in unit
    assert "Environment=PW_PINS=/run/packetwatch/pins\n" in unit
