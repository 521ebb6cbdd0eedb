# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host library's rooms use only lower ones; no import runs in a circle, there or in the agent."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "plugins" / "module_utils"
AGENT = ROOT / "roles/packetwatch/files/agent/packetwatch_agent"
# From top to bottom.
ROOMS = (
    "_preflight",
    "_setup",
    "_host",
    "_health",
    "_change",
    "_active",
    "_feeds",
    "_bans",
    "_declared",
    "_network",
    "_tables",
    "_kernel",
    "_base",
)
MAX_FILES = 12


def sources(package: Path) -> list[Path]:
    """Return all Python files of a package that hold code."""
    return sorted(path for path in package.rglob("*.py") if path.name != "__init__.py")


def imports(path: Path) -> Iterator[Path]:
    """Return the files of the same package that a file imports, including lazy and type imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        if base.with_suffix(".py").is_file():
            yield base.with_suffix(".py")
            continue
        named = [(base / alias.name).with_suffix(".py") for alias in node.names]
        yield from (file for file in named if file.is_file())


def room(path: Path) -> str:
    """Return the room of one of the library's files; what all modules share has none."""
    return path.relative_to(LIBRARY).parts[0]


def test_each_file_is_in_a_room() -> None:
    assert {room(path) for path in sources(LIBRARY)} == {*ROOMS, "_front.py", "_module.py"}


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_can_be_seen_at_once(name: str) -> None:
    assert 1 <= len(sources(LIBRARY / name)) <= MAX_FILES
    assert (LIBRARY / name / "__init__.py").read_bytes() == b""


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_uses_only_lower_ones(name: str) -> None:
    own = ROOMS.index(name)
    climbing = [
        f"{path.relative_to(LIBRARY)} imports {used.relative_to(LIBRARY)}"
        for path in sources(LIBRARY / name)
        for used in imports(path)
        if room(used) not in ROOMS[own:]
    ]
    assert climbing == []


@pytest.mark.parametrize("package", [LIBRARY, AGENT], ids=["library", "agent"])
def test_no_import_runs_in_a_circle(package: Path) -> None:
    graph = {path: set(imports(path)) for path in sources(package)}
    assert sum(map(len, graph.values())) > len(graph)
    graphlib.TopologicalSorter(graph).prepare()
