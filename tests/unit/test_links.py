# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Links between the pages of the repository. The gate `site` checks those of the documentation site."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.test_readme import PAGES, ROOT, anchors, links

FOLDERS = ("docs", "docsite", "examples")
LINKED = sorted(
    {*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))}
)
# docsite/index.md is shown at the top of the site. Its pages of modules are made with the site.
TOP = {ROOT / "docsite/index.md": ROOT}
MADE = "modules/"


def broken(page: Path) -> Iterator[str]:
    """Name the relative links of a page that lead to no file, or to no heading."""
    folder = TOP.get(page, page.parent)
    for link in links(page.read_text()):
        path, _hash, anchor = link.partition("#")
        if "://" in link or path.startswith(("mailto:", MADE)):
            continue
        target = folder / path if path else page
        if not target.exists():
            yield f"{link} leads to nothing"
        elif anchor and anchor not in anchors(target.read_text()):
            yield f"{link} leads to no heading"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


def test_all_pages_are_read() -> None:
    assert len(LINKED) > 100
    assert PAGES[0] in LINKED
    assert sum(len(links(page.read_text())) for page in LINKED) > 300


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](there.md) [b](#here) [c](#there) [d](page.md#here) [e](https://x.example)\n"
    )
    assert list(broken(page)) == ["there.md leads to nothing", "#there leads to no heading"]
