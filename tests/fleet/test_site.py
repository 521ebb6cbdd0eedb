# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation site in a real browser: Debian's Chromium, in a network namespace that reaches nothing else.

The gate `site` has built it, and has checked its links. To see the screenshots, set PW_SCREENSHOTS to a folder.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet.browser import Browser, Tab, browser
from kernel.hosting import Namespace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT.parents[2]
SITE = BUILD / "site/html"
SERVER = ("127.0.0.1", 8000)
PAGES = {
    "index": "Packetwatch",
    "README": "Packetwatch",
    "modules/index": "Modules and roles",
    "modules/access_lists_module": "packetwatch.xdp.access_lists module",
    "modules/packetwatch_role": "packetwatch.xdp.packetwatch role",
    "docs/guides/ten-hosts": "Protect ten hosts in ten minutes",
    "docs/fleet": "One fleet, one memory",
}
DESKTOP, PHONE = 1280, 360
# What is wider than the text, and is in no box that can be scrolled.
OUTSIDE = """
(() => {
  const scrolls = element => {
    for (let one = element; one.tagName !== "ARTICLE"; one = one.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(one).overflowX)) return true;
    return false;
  };
  const edge = document.querySelector(".content").getBoundingClientRect().right + 1;
  return [...document.querySelectorAll("article *")]
    .filter(one => one.getBoundingClientRect().right > edge && !scrolls(one))
    .map(one => one.outerHTML.slice(0, 200));
})()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser, beside a server of the site."""
    if not SITE.is_dir():
        build = f"{BUILD}/docs-venv/bin/python", f"{ROOT}/docsite/build.py", f"{BUILD}"
        subprocess.run(build, check=True)
    space = Namespace()
    log = tmp_path_factory.mktemp("browser") / "log"
    with space.entered():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        address, port = SERVER
        command = [sys.executable, "-m", "http.server", "--bind", address, "--directory", str(SITE)]
        with subprocess.Popen([*command, str(port)], stderr=subprocess.DEVNULL) as server:
            try:
                wait_for_server()
                with browser(log) as found:
                    yield found
            finally:
                server.kill()
    space.close()


def wait_for_server() -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as one:
            if not one.connect_ex(SERVER):
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def opened(chromium: Browser, page: str, width: int) -> Tab:
    tab = Tab(chromium, width)
    tab.open(f"http://{SERVER[0]}:{SERVER[1]}/{page}")
    return tab


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole(chromium: Browser, page: str, width: int) -> None:
    tab = opened(chromium, f"{page}.html", width)
    title = tab.evaluate("document.querySelector('article h1').firstChild.textContent")
    assert title.startswith(PAGES[page])
    # Nothing is missing: styles, scripts, fonts and pictures are the site's own.
    assert tab.complaints() == []
    assert all(one.startswith(("http://127.0.0.1:8000/", "data:")) for one in tab.requests())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(OUTSIDE) == []
    # The tree of pages is beside the text, and on a phone behind a button.
    left = tab.evaluate("document.querySelector('.sidebar-tree').getBoundingClientRect().right")
    text = tab.evaluate("document.querySelector('article').getBoundingClientRect().left")
    assert (0 < left <= text) if width == DESKTOP else left <= 0
    folder = os.environ.get("PW_SCREENSHOTS")
    if folder:
        tab.screenshot(Path(folder) / f"{page.replace('/', '-')}-{width}.png")


def test_the_site_can_be_searched(chromium: Browser) -> None:
    tab = opened(chromium, "search.html?q=packetwatch_shared_prefixes", DESKTOP)
    found = "[...document.querySelectorAll('#search-results li a')].map(one => one.textContent)"
    deadline = time.monotonic() + 60
    while "Operations" not in tab.evaluate(found):
        assert time.monotonic() < deadline, tab.evaluate(found)
        time.sleep(0.2)
    assert tab.complaints() == []
