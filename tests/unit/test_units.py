# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the units may do: no more than they need, and the same for each."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from packetwatch_agent import settings

UNITS = Path(__file__).resolve().parents[2] / "roles/packetwatch/files/units"
DAEMONS = ("packetwatch.service", "packetwatch-fleet.service", "packetwatch-fleet-bus.service")
ONE_SHOTS = sorted(path.name for path in UNITS.glob("*.service") if path.name not in DAEMONS)
EARLY = "packetwatch-xdp@.service"
# The values of docs/operations.md; each systemd release weighs some settings differently.
PULL = "../pull/pull-packetwatch.service"
EXPOSURE = {EARLY: 3.4, **dict.fromkeys(DAEMONS, 1.5), PULL: 7.6}


def sandbox(name: str) -> list[str]:
    """Return the lines that confine a one-shot."""
    text = (UNITS / name).read_text()
    found = re.search(r"^CapabilityBoundingSet=.*\nUMask=.*?$", text, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[0].splitlines()


@pytest.mark.parametrize("name", ONE_SHOTS)
def test_all_that_root_starts_is_confined_in_the_same_way(name: str) -> None:
    # Both settings need a folder in /tmp, which Debian 12 empties while the early unit runs.
    early = {"PrivateDevices=yes", "PrivateTmp=yes"} if name == EARLY else set()
    assert set(sandbox("packetwatch-apply.service")) - set(sandbox(name)) == early
    assert set(sandbox(name)) <= set(sandbox("packetwatch-apply.service"))


def test_the_unit_that_attaches_is_killed_last_and_tries_again() -> None:
    text = (UNITS / EARLY).read_text()
    for line in ("OOMScoreAdjust=-900", "Restart=on-failure", "RestartSec=10"):
        assert f"\n{line}\n" in text


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd is installed")
@pytest.mark.parametrize("name", [*ONE_SHOTS, *DAEMONS, PULL])
def test_exposure(name: str) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found = re.search(r"Overall exposure level .*: ([0-9.]+) ", done.stdout)
    assert found and float(found[1]) <= EXPOSURE.get(name, 3.1), done.stdout


def test_lists_of_the_fleet_are_taken_only_beside_its_process() -> None:
    process = (UNITS / "packetwatch-fleet.service").read_text()
    path = (UNITS / "packetwatch-fleet-lists.path").read_text()
    assert re.search(r"^Wants=.*\bpacketwatch-fleet-lists\.path\b", process, re.MULTILINE)
    assert "\nPartOf=packetwatch-fleet.service\n" in path
    # No other unit starts it, so a host without a fleet has none of them.
    others = [one for one in UNITS.iterdir() if "fleet" not in one.name]
    assert not any("fleet" in one.read_text() for one in others)
    folder = re.search(r"^StateDirectory=(\S+)$", process, re.MULTILINE)
    assert folder and f"PathChanged=/var/lib/{folder[1]}/lists.json\n" in path
    assert settings.read({}).fleet_file == f"/var/lib/{folder[1]}/lists.json"
