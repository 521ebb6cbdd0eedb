# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab says before and while it works; the lab itself is tested by the scenarios that use it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from lab import accelerator, guides, memory, play, process, state
from lab.errors import LabError
from lab.fleet import Fleet, take_down_below
from lab.image import Image
from lab.topology import Topology

ROOT = Path(__file__).resolve().parents[2]
# In a user namespace without a mapping, a process is nobody and can still read its own files.
NOBODY = ("unshare", "--user", "--")


def test_progress_breaks_the_silence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_SILENCE", 0.05)
    with process.Progress("image: ") as progress:
        progress.step("downloading")
        time.sleep(0.3)
        progress.step("installing")
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == "image: downloading" and lines[-1] == "image: installing"
    assert lines[1:-1] and set(lines[1:-1]) == {"image: still downloading (0 s)"}


def test_lines_are_followed_while_the_command_runs() -> None:
    began = time.monotonic()
    seen: list[tuple[str, float]] = []
    argv = ["sh", "-c", "echo one; sleep 0.5; echo two >&2"]
    process.follow(argv, lambda line: seen.append((line, time.monotonic() - began)), timeout=10)
    assert [line for line, _moment in seen] == ["one", "two"]
    assert seen[1][1] - seen[0][1] > 0.3


@pytest.mark.parametrize(
    ("script", "words"), [("echo why; exit 3", "status 3"), ("echo why; exec sleep 9", "no end")]
)
def test_a_followed_command_fails_with_its_output(script: str, words: str) -> None:
    with pytest.raises(LabError, match=rf"(?s){words}.*\nwhy"):
        process.follow(["sh", "-c", script], lambda line: None, timeout=0.5)


def test_why_kvm_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PACKETWATCH_LAB_ACCEL", raising=False)
    image = Image("trixie", tmp_path)
    for device, words in (
        (tmp_path / "kvm", f"there is no {tmp_path}/kvm"),
        (tmp_path, f"{tmp_path} cannot be opened: Is a directory"),
    ):
        monkeypatch.setattr(accelerator, "_DEVICE", str(device))
        # Two machines, one line.
        names = [accelerator.choose(image).name for _machine in range(2)]
        (line,) = capsys.readouterr().err.splitlines()
        assert names == ["tcg", "tcg"] and words in line
    for wish in ("kvm", "tcg"):
        monkeypatch.setenv("PACKETWATCH_LAB_ACCEL", wish)
        assert accelerator.choose(image).name == wish
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "lab.demo"],
        [sys.executable, "-m", "lab", "up"],
        [str(ROOT / "tests/tools/bootstrap"), "test"],
    ],
    ids=["demo", "up", "bootstrap"],
)
def test_only_root_may(command: list[str]) -> None:
    done = subprocess.run(
        [*NOBODY, *command],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "root" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="takes down labs")
def test_labs_below_a_folder_are_taken_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "REGISTRY", tmp_path / "registry")
    plan = Topology.parse({"machines": {"one": {"suite": "trixie", "address": 11}}})
    runs = {"in use": tmp_path / "build/a", "kept": tmp_path / "build/b", "other": tmp_path / "c"}
    for name, run_dir in runs.items():
        run_dir.mkdir(parents=True)
        lab = state.State.new(plan)
        (lab if name == "in use" else lab.kept()).write(run_dir)
        state.register(lab.lab_id, run_dir)
    take_down_below(tmp_path / "build")
    assert [run_dir for _lab_id, run_dir in state.labs()] == [runs["other"]]
    assert [run_dir for run_dir in runs.values() if (run_dir / "lab.json").exists()] == [
        runs["other"]
    ]


def test_bans_of_a_kernel_are_compared_with_those_of_the_store() -> None:
    store = {"203.0.113.1": (10.0, 600.0), "203.0.113.2": (11.5, 600.0)}
    kernel = {"203.0.113.1": (10.2, 601.0), "203.0.113.2": (12.0, 599.0)}
    state = memory.State(kernel, store)
    assert (state.text(), state.latest()) == ("2 of 2", (11.5, 12.0))
    # With another end, without one of them, with one too many.
    assert memory.State(kernel | {"203.0.113.2": (12.0, 60.0)}, store).text() == "1 of 2"
    assert memory.State({"203.0.113.1": (10.2, 601.0)}, store).text() == "1 of 2"
    assert memory.State(kernel | {"203.0.113.3": (1.0, 1.0)}, store).text() == "2 of 2, 1 too many"
    assert memory.State({}, {}).latest() == (0.0, math.inf)


def test_the_page_has_all_that_lets_a_host_into_a_fleet() -> None:
    defaults = yaml.safe_load((ROOT / "roles/packetwatch/defaults/main.yml").read_text())
    shown = yaml.safe_load(play.fleet_variables())
    assert shown.pop("fleet_node_secrets") and shown["packetwatch_fleet"] == "etcd"
    assert all(name in defaults and defaults[name] != value for name, value in shown.items())


def test_a_play_without_results_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "ansible-playbook"
    command.write_text("#!/bin/sh\necho 'TASK [hang] *'\nexec sleep 60\n")
    command.chmod(0o755)
    monkeypatch.setattr(play, "tool", lambda _name: str(command))
    monkeypatch.setattr(play, "_SILENCE", 0.2)
    fleet = Fleet(
        Topology.parse({"machines": {"one": {"suite": "trixie", "address": 11}}}), tmp_path
    )
    with pytest.raises(LabError, match=r"(?s)no result for 0\.2 s.*hang"):
        play.play(fleet, "packetwatch.xdp.site", tmp_path)


def test_the_guide_has_the_variables_of_the_page() -> None:
    place = "inventory/group_vars/packetwatch/fleet.yml"
    (block,) = (block for block in guides.blocks("share-bans") if block.place == place)
    assert block.text == play.fleet_variables()
