# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Galaxy and Automation Hub read: the sections of pages, links that work there, and what the controller needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    ROOT / "README.md",
    *(ROOT / f"roles/{name}/README.md" for name in ("packetwatch", "fleet_node")),
)
REPOSITORY = yaml.safe_load((ROOT / "galaxy.yml").read_text())["repository"]
# As Automation Hub wants them.
SECTIONS = [
    "Description",
    "Requirements",
    "Installation",
    "Use Cases",
    "Testing",
    "Support",
    "Release Notes and Roadmap",
    "Related Information",
    "License Information",
]


def links(page: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", page)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as the repository's site makes them."""
    headings = re.findall(r"^#+ (.+)$", page, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(link: str) -> Iterator[str]:
    """Say why a link does not work on another site, or leads to no file."""
    if not link.startswith("https://"):
        yield f"{link} is relative"
    found = re.fullmatch(rf"{re.escape(REPOSITORY)}/(blob|tree)/main/([^#]*)(?:#(.*))?", link)
    if not found:
        return
    path = ROOT / found[2]
    if not (path.is_dir() if found[1] == "tree" else path.is_file()):
        yield f"{link} leads to nothing"
    elif found[3] and found[3] not in anchors(path.read_text()):
        yield f"{link} leads to no heading"


def test_readme_has_the_sections_of_automation_hub() -> None:
    assert re.findall(r"^## (.+)$", PAGES[0].read_text(), re.M) == SECTIONS


@pytest.mark.parametrize("page", PAGES, ids=["collection", "role", "role of nodes"])
def test_links_work_on_other_sites(page: Path) -> None:
    found = links(page.read_text())
    assert found
    assert [problem for link in found for problem in broken(link)] == []


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("docs/feeds.md", "is relative"),
        (f"{REPOSITORY}/blob/main/docs/feed.md", "leads to nothing"),
        (f"{REPOSITORY}/tree/main/README.md", "leads to nothing"),
        (f"{REPOSITORY}/blob/main/docs/feeds.md#forms", "leads to no heading"),
    ],
)
def test_a_broken_link_is_named(link: str, problem: str) -> None:
    assert list(broken(link)) == [f"{link} {problem}"]


def test_an_execution_environment_gets_openssl() -> None:
    """As ansible-builder reads it: a path below the collection's folder, and lines of bindep."""
    needs = yaml.safe_load((ROOT / "meta/execution-environment.yml").read_text())
    lines = (ROOT / needs["dependencies"]["system"]).read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["openssl"]
