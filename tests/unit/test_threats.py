# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each line of the threat model names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
HEAD = "| who | what | can / cannot | test |\n|---|---|---|---|\n"
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    table = TEXT.partition(HEAD)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def names(path: Path) -> set[str]:
    """The tests of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}: {row[1]}"[:60])
def test_a_line_names_who_what_and_a_test(row: list[str]) -> None:
    assert len(row) == 4 and all(row), row
    assert row[2].startswith(("can", "cannot")), row[2]
    found = TEST.findall(row[3])
    assert found and TEST.sub("", row[3]).strip(" ,") == "", row[3]
    for file, name in found:
        assert name in names(ROOT / file), f"{file} has no {name}"


def test_no_line_is_there_twice() -> None:
    lines = [tuple(row[:2]) for row in rows()]
    assert len(set(lines)) == len(lines) > 20


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_readers_find_it(page: str) -> None:
    assert "SECURITY.md)" in (ROOT / page).read_text(encoding="utf-8")
