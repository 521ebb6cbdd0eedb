# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the documentation site and check its links, without a network: build.py BUILD.

The pages are those of the copy in the build folder. Only the pages of modules and roles are made here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).resolve().parent
COLLECTION = "packetwatch.xdp"
PAGES = (
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "MAINTAINERS.md",
    "README.md",
    "SECURITY.md",
    "docs",
    "examples",
    "roles/fleet_node/README.md",
    "roles/packetwatch/README.md",
)
# Names of attributes that lead to another page or file.
LINKS = frozenset({"href", "src"})


def lay_out(collection: Path, source: Path) -> None:
    """Copy the pages into the folder of sources, in the places that the repository has for them."""
    shutil.rmtree(source, ignore_errors=True)
    for name in PAGES:
        page = source / name
        page.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (collection / name).is_dir() else shutil.copy
        copy(collection / name, page)
    shutil.copy(HERE / "index.md", source)
    shutil.copytree(HERE / "static", source / "static")


def describe_plugins(tools: Path, folder: Path) -> None:
    """Write the pages of the modules and the role. Private modules have none."""
    folder.mkdir()
    options = ("--use-current", "--squash-hierarchy", "--fail-on-error")
    subprocess.run(
        [tools / "antsibull-docs", "collection", *options, "--dest-dir", folder, COLLECTION],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def render(source: Path, site: Path) -> None:
    """Let Sphinx make the site. Each of its warnings is an error."""
    shutil.rmtree(site, ignore_errors=True)
    options = ("-q", "-W", "--keep-going", "-E", "-d", str(site.with_name("doctrees")))
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-c", HERE, *options, source, site]
    subprocess.run(command, check=True)


class Page(HTMLParser):
    """A page's links and anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the links and the anchor of an element."""
        for name, value in attrs:
            if name in LINKS and value:
                self.links.append(value)
            elif name == "id" and value:
                self.anchors.add(value)


def broken_links(site: Path) -> Iterator[str]:
    """Name each link within the site that leads to nothing. Links to other sites are not followed."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (
                Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            )
            if not target.is_file():
                yield f"{path.relative_to(site)}: {link} leads to nothing"
                continue
            anchor = unquote(parts.fragment)
            if anchor and target in pages and anchor not in pages[target].anchors:
                yield f"{path.relative_to(site)}: {link} leads to no anchor"


def main() -> int:
    """Build and check the site; return the exit status."""
    build = Path(sys.argv[1]).absolute()
    source, site = build / "site/source", build / "site/html"
    lay_out(build / "ansible_collections/packetwatch/xdp", source)
    describe_plugins(build / "venv/bin", source / "modules")
    render(source, site)
    found = list(broken_links(site))
    for line in found:
        print(line)
    if not found:
        print(f"the site is in {site}/index.html; all of its own links lead somewhere")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
