# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmark works: each of its parts runs once, with any figures."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench.__main__ import GROUPS
from bench.rows import ROWS

NEEDED = ("clang", "ipset", "nft", "xdp-filter")


@pytest.mark.slow(75)
@pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")
def test_every_row_has_a_figure(tmp_path: Path) -> None:
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed (make bench installs what it needs)")
    parts = [word for name in GROUPS for word in ("--only", name)]
    argv = [sys.executable, "-m", "bench", *parts, "--rounds", "1", str(tmp_path)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False, timeout=600)
    assert done.returncode in (0, 1), done.stdout
    found = json.loads((tmp_path / "bench.json").read_text())
    # Not every kernel has dispatchers. What cannot be measured says why.
    lacking = found["about"]["not_measured"]
    assert all(name.startswith("dispatcher, ") and why for name, why in lacking.items())
    assert {row["name"] for row in found["rows"]} == {row.name for row in ROWS} - lacking.keys()
    # Measured figures are above zero. The difference of two figures of one round, on a busy
    # machine, need not be.
    assert not [name for name, figures in found["raw"].items() if min(figures) <= 0]
    assert not [row["name"] for row in found["rows"] if not math.isfinite(row["ratio"])]
