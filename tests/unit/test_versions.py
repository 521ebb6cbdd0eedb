# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A library of versions: each is complete when it has its name, and a link names the current one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._archive import (
    NODE,
    Software,
    collect,
)

from packetwatch_core._base.errors import SetupFailed
from packetwatch_core._setup.versions import Versions

ROOT = Path(__file__).resolve().parents[2]


def run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, env={})
    return done.returncode, done.stdout, done.stderr


def install(library: Path, software: Software) -> Versions:
    archive = library.with_suffix(".tar.gz")
    archive.write_bytes(software.pack())
    versions = Versions(str(library))
    versions.unpack(run, software.name, software.manifest, str(archive))
    return versions


def test_a_version_is_unpacked_switched_to_and_pruned(tmp_path: Path) -> None:
    library = tmp_path / "lib"
    names = []
    for number in range(3):
        software = Software("1.0", {"part/__init__.py": b"", "part/a.py": b"n = %d\n" % number})
        versions = install(library, software)
        previous = versions.current
        assert not versions.is_damaged(software.name, software.manifest)
        versions.switch(software.name)
        versions.prune(software.name, previous)
        names.append(software.name)
    assert versions.current == names[2]
    assert sorted(os.listdir(library)) == sorted([*names[1:], "current"])
    assert list((library / "current/part/__pycache__").glob("a.*.pyc"))
    (library / "current/part/a.py").write_text("n = 7\n")
    assert versions.is_damaged(software.name, software.manifest)
    install(library, software)
    assert not versions.is_damaged(software.name, software.manifest)
    versions.prune()
    assert sorted(os.listdir(library)) == sorted([*names[1:], "current"])


def test_another_file_than_the_controllers_is_refused(tmp_path: Path) -> None:
    software = Software("1.0", {"a.py": b"1\n"})
    other = Software("1.0", {"a.py": b"2\n"})
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(software.pack())
    versions = Versions(str(tmp_path / "lib"))
    with pytest.raises(SetupFailed, match="differs from the file on the controller"):
        versions.unpack(run, other.name, other.manifest, str(archive))
    archive.write_bytes(b"none")
    with pytest.raises(SetupFailed, match="is damaged"):
        versions.unpack(run, software.name, software.manifest, str(archive))
    versions.prune()
    assert os.listdir(tmp_path / "lib") == []


def test_a_node_gets_the_packages_of_its_services_and_those_that_they_use() -> None:
    software = collect(ROOT, NODE)
    assert software.name != collect(ROOT).name
    assert {path.partition("/")[0] for path in software.files} >= {
        "packetwatch_agent",
        "packetwatch_core",
        "packetwatch_enforcer",
        "packetwatch_fleet",
    }
