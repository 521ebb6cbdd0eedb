# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet's bench works: each of its measurements runs once, with few hosts and any figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.fleet_hosts import KERNELS
from bench.fleet_rows import (
    COMMITS,
    CPU,
    DECIDING,
    FLOOD,
    FRESH,
    LISTING,
    MEMORY,
    SCAN,
    SMALL,
    SWEEP,
    WATCHING,
    rows,
)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs")
def test_every_row_has_a_figure(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "bench.fleet", "--small", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads((tmp_path / "bench-fleet.json").read_text())["rows"]
    assert [row["name"] for row in found] == [row.name for row in rows(SMALL)]
    assert {row["case"]: row["n"] for row in found} == {
        # Each scan has a figure for each other host.
        SCAN: SMALL.scans * (KERNELS - 1),
        FRESH: KERNELS,
        LISTING: SMALL.listings,
        WATCHING: SMALL.watchers * SMALL.seconds * COMMITS,
        SWEEP: SMALL.sweeps,
        # A scan every two seconds, as long as there is time for its probes.
        DECIDING: 1,
        f"{DECIDING}: {CPU}": 1,
        f"{DECIDING}: {MEMORY}": 1,
        f"{FLOOD}: {MEMORY}": 1,
    }
    assert all(row["figure"] > 0 and 0 <= row["load"] <= 1 for row in found)
