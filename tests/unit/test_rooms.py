# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host library's rooms use only lower ones; no import runs in a circle, there or in the agent.

The pages about the code name all rooms and files.
"""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "plugins" / "module_utils"
AGENT = ROOT / "roles/packetwatch/files/agent/packetwatch_agent"
FLEET = ROOT / "roles/packetwatch/files/fleet/packetwatch_fleet"
ENFORCER = ROOT / "roles/fleet_node/files/enforcer/packetwatch_enforcer"
API = ROOT / "roles/fleet_node/files/api/packetwatch_api"
# From top to bottom.
ROOMS = (
    "_node",
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
    "_dispatcher",
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
    assert {room(path) for path in sources(LIBRARY)} == {
        *ROOMS,
        "_front.py",
        "_module.py",
        "_store.py",
    }


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


@pytest.mark.parametrize("package", [LIBRARY, AGENT, FLEET], ids=["library", "agent", "fleet"])
def test_no_import_runs_in_a_circle(package: Path) -> None:
    graph = {path: set(imports(path)) for path in sources(package)}
    assert sum(map(len, graph.values())) > len(graph)
    graphlib.TopologicalSorter(graph).prepare()


def rows(text: str) -> list[str]:
    """Return the names in the first column of all tables of a text."""
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def documented(page: str) -> dict[str, list[str]]:
    """Return the files in the tables of docs/library.md by the heading above them."""
    titles_and_texts = re.split(r"^### (.*)\n", page, flags=re.MULTILINE)[1:]
    return {
        title.strip("`"): rows(text.partition("\n## ")[0])
        for title, text in zip(titles_and_texts[::2], titles_and_texts[1::2], strict=True)
    }


def files() -> dict[str, list[str]]:
    """Return the names of all files, by their heading in docs/library.md."""
    found: dict[str, list[str]] = {"Fronts": []}
    for path in sources(LIBRARY):
        title = room(path) if room(path) in ROOMS else "Fronts"
        found.setdefault(title, []).append(path.stem)
    for package in (AGENT, FLEET, ENFORCER, API):
        for path in sources(package):
            folder = path.parent.relative_to(package).as_posix()
            found.setdefault(package.name if folder == "." else folder, []).append(path.stem)
    return found


def lacks(page: str) -> list[str]:
    """Return what docs/library.md lacks, has too much, or has twice."""
    described, present = documented(page), files()
    left = [
        f"{title}: {name} has no row"
        for title in present
        for name in present[title]
        if name not in described.get(title, ())
    ]
    surplus = [
        f"{title}: the row of {name} is of no file, or is there twice"
        for title, names in described.items()
        for at, name in enumerate(names)
        if name not in present.get(title, ()) or name in names[:at]
    ]
    return left + surplus


def test_library_md_has_a_row_for_each_file() -> None:
    found = lacks((ROOT / "docs/library.md").read_text())
    assert not found, "\n".join(found)


def test_what_library_md_lacks_is_named() -> None:
    page = (ROOT / "docs/library.md").read_text()
    assert lacks(page.replace("| `clock` |", "| `cloak` |")) == [
        "_base: clock has no row",
        "_base: the row of cloak is of no file, or is there twice",
    ]


def test_architecture_md_has_all_rooms_in_their_order() -> None:
    text = (ROOT / "docs/architecture.md").read_text().partition("## Rooms of the host library")[2]
    assert rows(text.partition("\n## ")[0]) == ["_front.py", "_module.py", *ROOMS]


def test_contributing_md_has_the_rooms_in_their_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Rooms")[2]
    assert re.findall(r"`(_[a-z]+)`", text.partition("\n- ")[0]) == list(ROOMS)


def test_library_md_has_the_rooms_in_their_order() -> None:
    titles = list(documented((ROOT / "docs/library.md").read_text()))
    assert [title for title in titles if title in ROOMS] == list(ROOMS)
