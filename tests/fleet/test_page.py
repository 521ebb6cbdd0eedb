# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page at the API's root in a real browser: Debian's Chromium, behind the node's gate.

To see the screenshots, set PW_SCREENSHOTS to a folder.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fleet.api import Api, running_api
from fleet.browser import Browser, Tab, browser
from fleet.host_process import PATIENCE
from fleet.servers import FleetNodes, fleet_nodes
from lab.prometheus import complaints, parse

pytestmark = pytest.mark.slow

EVIL = "<script>alert(1)</script><img src=https://evil.example/x>"
TABLES = ("hosts", "bans", "rules", "decisions")
PHONE = 360
# The page is the same with the libraries of both releases, so one of them is enough for its looks.
one_release = pytest.mark.parametrize("api", ["trixie"], indirect=True)
# WCAG 2.2: 1.4.3 for text, 1.4.11 for the frame of what has the focus.
CONTRAST_OF_TEXT, CONTRAST_OF_FOCUS = 4.5, 3.0

# Each visible text with its contrast. Backgrounds of the page are opaque or absent.
CONTRASTS = """
(() => {
  const numbers = text => (text.match(/[0-9.]+/g) || []).map(Number);
  const light = text => {
    const [red, green, blue] = numbers(text).map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter(node => node.nodeType === 3)
      .map(node => node.textContent.trim()).join("");
    const styles = [getComputedStyle(element)];
    if (element.matches("td")) styles.push(getComputedStyle(element, "::before"));
    if (element.matches("input")) styles.push(getComputedStyle(element, "::placeholder"));
    if (text || styles.length > 1)
      for (const style of styles)
        found.push([element.tagName + " " + text.slice(0, 20), ratio(style.color, behind(element))]);
  }
  return found;
})()
"""
# What has the focus, its frame, and the contrast of that.
FOCUS = """
(() => {
  const style = getComputedStyle(document.activeElement);
  return [document.activeElement.tagName, document.activeElement.textContent.trim(),
          style.outlineStyle, parseFloat(style.outlineWidth), style.outlineColor,
          getComputedStyle(document.body).backgroundColor];
})()
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[FleetNodes]:
    with fleet_nodes("3.4", 1) as found:
        yield found


@pytest.fixture(autouse=True)
def _reports_are_new(nodes: FleetNodes) -> None:
    """A host that has reported nothing for a minute and a half is silent."""
    fill(nodes)


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def api(nodes: FleetNodes, request: pytest.FixtureRequest) -> Iterator[Api]:
    with running_api(nodes, request.param) as found:
        yield found


@pytest.fixture(scope="module")
def process(nodes: FleetNodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with nodes.lan.entered(), browser(tmp_path_factory.mktemp("browser") / "log") as found:
        yield found


@pytest.fixture
def chromium(process: Browser) -> Iterator[Browser]:
    yield process
    # A page that stays open goes on asking.
    process.close_pages()


def fill(nodes: FleetNodes) -> None:
    """A fleet of three hosts, two enforcers, some bans and a lot of untrusted text."""
    now = time.time()
    revision = nodes.put("lists/api", json.dumps({"v": 1, "allow": [], "deny": []}))
    statuses: dict[str, dict[str, Any]] = {
        "web1": {"bans": 2, "missing": 0},
        "web2": {"bans": 1, "missing": 1, "refused": {"quota": 3}},
        "web3": {"t": now - 3600, "bans": 2, "version": EVIL},
    }
    for name, status in statuses.items():
        usual = {"v": 1, "t": now, "version": "1.0.0", "applied": revision + 100, "addresses": []}
        nodes.put(f"hosts/{name}/status", json.dumps(usual | status))
    own = [["198.51.100.7", now + 500, now - 100, [22, 23, 25], "syn"]]
    nodes.put("hosts/web1/bans", json.dumps({"v": 1, "t": now, "bans": own}))
    rows = [
        ["203.0.113.9", now + 600, now, "sweep", "syn", 5],
        ["2001:db8:7::/64", now + 3600, now - 60, "quorum", "answer", 3],
    ]
    nodes.put("bans/e1/1-0", json.dumps({"v": 1, "bans": rows}))
    rule = {
        "action": "enforce",
        "thresholds": {"hosts": 3, "window": 600},
        "values": {"entries": 12, "lost": 0},
        "decided": 7,
        "fault": None,
    }
    decision = {
        "t": now,
        "source": "203.0.113.9",
        "rule": "sweep",
        "action": "enforce",
        "seconds": 600,
        "until": now + 600,
        "evidence": "syn",
        "seen": 5,
        "hosts": ["web1", "web2"],
        "ports": [22, 2222],
        "why": f"five hosts {EVIL}",
    }
    rules = {"sweep": rule, "quorum": rule | {"values": {"lost": 0, "unreachable": 1}}}
    first = {"v": 1, "t": now, "version": "1.0.0", "started": now, "rules": rules}
    nodes.put("rules/e1", json.dumps(first | {"recent": [decision]}))
    broken = rule | {"fault": "it has raised ZeroDivisionError", "action": "monitor"}
    second = first | {"rules": {"own": broken}, "blind": True, "lost": 1234}
    nodes.put("rules/e2", json.dumps(second))


def url(api: Api, query: str = "") -> str:
    """The page's address, with the token as a password as people give it to a browser."""
    return f"https://me:{api.secrets['read']}@{api.node.address}/{query}"


def keep(tab: Tab, name: str) -> None:
    folder = os.environ.get("PW_SCREENSHOTS")
    if folder:
        tab.screenshot(Path(folder) / f"{name}.png")


def texts(tab: Tab, table: str) -> list[list[str]]:
    """The rows of a table."""
    rows: list[list[str]] = tab.evaluate(
        f"[...document.querySelectorAll('[aria-labelledby={table}] tbody tr')]"
        ".map(row => [...row.children].map(cell => cell.textContent))"
    )
    return rows


def assert_clean(tab: Tab, api: Api) -> None:
    """No complaint in the console, and no request to another host."""
    assert tab.complaints() == []
    assert {urlsplit(one).hostname for one in tab.requests()} == {api.node.address}


def test_the_tables_say_how_the_fleet_is(api: Api, chromium: Browser) -> None:
    tab = Tab(chromium)
    tab.open(url(api))
    hosts = texts(tab, "hosts")
    assert [(row[0], row[1]) for row in hosts] == [
        ("web2", "bans are missing"),
        ("web3", "silent"),
        ("web1", "well"),
    ]
    assert hosts[1][-1] == EVIL
    bans = {row[0]: row[1:] for row in texts(tab, "bans")}
    assert list(bans) == ["203.0.113.9", "2001:db8:7::/64", "198.51.100.7"]
    assert bans["203.0.113.9"][0] == "all hosts"
    assert bans["203.0.113.9"][2].startswith("e1/sweep (syn), seen by 5 hosts")
    assert bans["198.51.100.7"][0] == "web1"
    assert bans["198.51.100.7"][2] == "web1: a scan (syn), ports 22, 23, 25"
    rules = {row[0]: row[1:] for row in texts(tab, "rules")}
    assert rules["e1/sweep"][:4] == ["well", "enforce: hosts 3, window 600", "entries 12", "7"]
    assert rules["e1/quorum"][0] == "too few hosts or networks for its thresholds"
    assert rules["e2/own"][0] == "switched off: it has raised ZeroDivisionError"
    decision = texts(tab, "decisions")[0]
    assert decision[:4] == ["203.0.113.9", "ban", "e1/sweep", "10m"]
    assert decision[4] == f"five hosts {EVIL}; hosts web1, web2; ports 22, 2222"
    assert_clean(tab, api)
    keep(tab, f"desktop-{api.release}")


def test_the_tables_are_there_without_javascript(api: Api, chromium: Browser) -> None:
    with_scripts = Tab(chromium)
    with_scripts.open(url(api))
    wanted = {name: len(texts(with_scripts, name)) for name in TABLES}
    tab = Tab(chromium, javascript=False)
    tab.open(url(api))
    assert {name: len(texts(tab, name)) for name in TABLES} == wanted
    assert tab.evaluate("document.getElementById('pause').hidden") is True
    assert_clean(tab, api)


@one_release
def test_an_address_is_explained(api: Api, chromium: Browser) -> None:
    tab = Tab(chromium, javascript=False)
    tab.open(url(api, "?address=198.51.100.7"))
    answer = {row[0]: row[1] for row in texts(tab, "answer")}
    assert answer["web1"] == "drop"
    assert answer["web2"] == answer["the fleet"] == "pass"
    tab.open(url(api, "?address=%3Cscript%3E"))
    assert "'<script>'" in tab.evaluate("document.querySelector('[role=alert]').textContent")


@one_release
def test_it_refreshes_itself_unless_it_is_paused(
    nodes: FleetNodes, api: Api, chromium: Browser
) -> None:
    tab = Tab(chromium)
    tab.open(url(api))
    page = {"v": 1, "bans": [["192.0.2.77", time.time() + 60, time.time(), "sweep", "syn", 3]]}
    # The script does so when it becomes visible, and every 15 seconds.
    refresh = "document.dispatchEvent(new Event('visibilitychange'))"
    try:
        tab.evaluate("document.getElementById('pause').click()")
        nodes.put("bans/e1/1-1", json.dumps(page))
        tab.evaluate(refresh)
        time.sleep(0.5)
        assert "192.0.2.77" not in [row[0] for row in texts(tab, "bans")]
        tab.evaluate("document.getElementById('pause').click()")
        deadline = time.monotonic() + PATIENCE
        state = "[document.hidden, document.getElementById('refreshed').textContent]"
        while "192.0.2.77" not in [row[0] for row in texts(tab, "bans")]:
            assert time.monotonic() < deadline, tab.evaluate(state)
            time.sleep(0.1)
        assert_clean(tab, api)
    finally:
        nodes.delete("bans/e1/1-1")


@one_release
def test_a_refresh_that_fails_is_said(api: Api, chromium: Browser) -> None:
    tab = Tab(chromium)
    tab.open(url(api))
    tab.call(
        "Network.emulateNetworkConditions",
        offline=True,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    deadline = time.monotonic() + PATIENCE
    while "Not refreshed" not in tab.evaluate("document.getElementById('refreshed').textContent"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(texts(tab, "hosts")) == 3


@one_release
@pytest.mark.parametrize("width", [320, PHONE, 800])
def test_small_screens_need_no_horizontal_scrolling(
    api: Api, chromium: Browser, width: int
) -> None:
    tab = Tab(chromium, width, 800)
    tab.open(url(api, "?address=203.0.113.9"))
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.documentElement.clientWidth") == width
    outside = tab.evaluate(
        "[...document.querySelectorAll('main *')]"
        f".filter(one => one.getBoundingClientRect().right > {width}).map(one => one.outerHTML)"
    )
    assert outside == []
    assert_clean(tab, api)
    keep(tab, f"phone-{width}-{api.release}")


@one_release
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, 1280])
def test_texts_have_contrast(api: Api, chromium: Browser, dark: bool, width: int) -> None:
    tab = Tab(chromium, width, dark=dark)
    tab.open(url(api, "?address=203.0.113.9"))
    found = tab.evaluate(CONTRASTS)
    assert len(found) > 80
    assert [one for one in found if one[1] < CONTRAST_OF_TEXT] == []
    keep(tab, f"{'dark' if dark else 'light'}-{width}-{api.release}")


@one_release
def test_the_keyboard_reaches_everything_and_shows_where_it_is(api: Api, chromium: Browser) -> None:
    tab = Tab(chromium)
    tab.open(url(api))
    seen = []
    for dummy in range(8):
        tab.press("Tab")
        tag, text, style, width, colour, page = tab.evaluate(FOCUS)
        seen.append(text or tag)
        assert (style, width) >= ("solid", 2), text
        assert contrast(colour, page) >= CONTRAST_OF_FOCUS
    assert seen == [
        *("Skip to the tables", "Hosts", "Bans", "Rules", "Last decisions"),
        *("INPUT", "Explain", "Pause"),
    ]


def contrast(*colours: str) -> float:
    """The contrast of two colours as WCAG 2 defines it."""

    def light(text: str) -> float:
        parts = [int(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3]]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(light, colours))
    return (high + 0.05) / (low + 0.05)


@one_release
def test_readers_that_speak_find_their_way(api: Api, chromium: Browser) -> None:
    tab = Tab(chromium)
    tab.open(url(api, "?address=203.0.113.9"))
    assert tab.evaluate("document.documentElement.lang") == "en"
    levels = tab.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(one => Number(one.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    headers = tab.evaluate("[...document.querySelectorAll('th')].map(one => one.scope)")
    assert headers and set(headers) == {"col", "row"}
    assert tab.evaluate(
        "[...document.querySelectorAll('table')].every(one => one.querySelectorAll('thead th[scope=col]').length)"
    )
    assert tab.evaluate("[...document.querySelectorAll('input')].every(one => one.labels.length)")
    assert tab.evaluate(
        "['header', 'nav', 'main'].every(name => document.querySelectorAll(name).length === 1)"
    )
    # Roles that a browser would drop when rows are shown as blocks.
    phone = Tab(chromium, PHONE, 800)
    phone.open(url(api))
    tree = phone.call("Accessibility.getFullAXTree")["nodes"]
    roles = [one["role"]["value"] for one in tree if not one["ignored"]]
    assert roles.count("table") == 4
    assert "rowheader" in roles and "cell" in roles


def test_a_rule_that_decides_nothing_is_shown(api: Api) -> None:
    page = api.call("GET", "/", role="read").text
    assert page.count("too few hosts or networks for its thresholds") == 1


def test_the_page_needs_a_token_and_its_assets_do_not(api: Api) -> None:
    refused = api.call("GET", "/", token="")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    assert api.call("GET", "/", token="pw_wrong").status == 401
    for role in api.secrets:
        assert api.call("GET", "/", role=role).status == 200
    for method in ("POST", "PUT", "DELETE"):
        assert api.call(method, "/").status == 405
    for name in ("style.css", "refresh.js", "icon.svg"):
        assert api.call("GET", f"/assets/{name}", token="").status == 200
    for path in ("/assets/", "/assets/web.py", "/assets/..%2fweb.py", "/assets/index.html"):
        assert api.call("GET", path).status == 404


def test_headers_let_nothing_in_from_outside(api: Api) -> None:
    for path in ("/", "/assets/refresh.js"):
        headers = api.call("GET", path).headers
        policy = dict(
            part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";")
        )
        assert policy.pop("default-src") == "'none'"
        assert set(policy.values()) == {"'none'", "'self'"}
        assert {"script-src", "style-src", "base-uri", "form-action", "frame-ancestors"} <= set(
            policy
        )
        assert headers.get_all("X-Content-Type-Options") == ["nosniff"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert api.call("GET", "/").headers["Cache-Control"] == "no-store"
    tag = api.call("GET", "/assets/style.css").headers["ETag"]
    again = api.call("GET", "/assets/style.css", headers={"If-None-Match": tag})
    assert (again.status, again.text) == (304, "")


def answers(api: Api, status: str) -> float:
    """How many answers of a class the metrics count."""
    page = parse(api.call("GET", "/metrics").text.encode())
    return page[f'packetwatch_api_requests_total{{status="{status}"}}']


@pytest.mark.skipif(not shutil.which("promtool"), reason="no Prometheus is installed")
def test_metrics_count_answers(api: Api) -> None:
    assert api.call("GET", "/metrics", token="").status == 401
    page = api.call("GET", "/metrics", role="read")
    assert complaints(page.text.encode()) == ""
    assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert parse(page.text.encode())["packetwatch_api_store_answers"] == 1
    before = answers(api, "4xx"), answers(api, "2xx")
    assert api.call("GET", "/nothing").status == 404
    assert api.call("GET", "/v1/bans").status == 200
    # The question counts too, when it is asked again.
    assert answers(api, "4xx") == before[0] + 1
    assert answers(api, "2xx") >= before[1] + 3


def test_the_page_says_that_the_store_is_away(nodes: FleetNodes, api: Api) -> None:
    nodes.kill(0, "etcd")
    try:
        before = answers(api, "5xx")
        answer = api.call("GET", "/")
        assert answer.status == 503
        assert 'role="alert"' in answer.text
        assert "packetwatch_api_store_answers 0" in api.call("GET", "/metrics").text
        # On a busy machine, a question may come twice.
        assert answers(api, "5xx") >= before + 1
    finally:
        nodes.start(0, "etcd")
        deadline = time.monotonic() + PATIENCE
        while api.call("GET", "/").status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
