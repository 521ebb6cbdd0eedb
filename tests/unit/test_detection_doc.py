# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of scans in docs/detection.md is the one that tests/kernel/test_nmap.py tries."""

from __future__ import annotations

from pathlib import Path

from kernel.scans import SCANS, table

from packetwatch_core._kernel import abi

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_table_is_the_tested_one() -> None:
    assert "\n".join(table()) in (ROOT / "docs/detection.md").read_text()


def test_each_kind_of_the_program_has_a_scan() -> None:
    assert {scan.kind for scan in SCANS} == {*abi.KINDS} - {"slow"}
