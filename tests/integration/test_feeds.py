# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Feeds from a real server, by the first play of the site playbook, to two hosts one after the other."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.packetwatch.xdp.plugins.modules import feed

from tests.integration.conftest import COLLECTIONS, ROOT, ModuleHost, make_host

LISTED = "45.9.9.9"
SERIAL_PLAY = """
- name: Give feeds to hosts
  hosts: packetwatch
  serial: 1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: packetwatch.xdp.packetwatch
        tasks_from: feeds.yml
    - packetwatch.xdp._feeds:
        names: "{{ packetwatch_feeds | map(attribute='name') }}"
        copies: "{{ (_packetwatch_fetched if _packetwatch_fetched is defined else _packetwatch_read).feeds }}"
        force: "{{ packetwatch_feeds_force | default(false) }}"
        confirm_timeout: 0
      register: feeds_report
    - ansible.builtin.debug:
        msg: "REPORT {{ {inventory_hostname: feeds_report} | to_json }}"
"""
ENTER = """#!/bin/sh
exec nsenter --target={pid} --mount --net -- /usr/bin/python3 "$@"
"""


class Publisher(ThreadingHTTPServer):
    """Serves `pages`; a page with a token only to requests that send the token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.pages: dict[str, list[bytes] | bytes] = {}
        self.headers: dict[str, str] = {}
        self.token = ""
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Answer(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{server.server_port}/list")
            self.end_headers()
            return
        page = server.pages.get(self.path)
        if server.token and self.headers.get("Authorization") != server.token:
            self.send_error(401)
            return
        if isinstance(page, list):
            page = page.pop(0) if page else None
        if page is None:
            self.send_error(404)
            return
        self.send_response(200)
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(page)

    def log_message(self, *dummy: object) -> None:
        pass


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


# The module


@pytest.fixture
def fetch(publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the module for a page of the publisher; returns its result."""

    def run(**options: Any) -> dict[str, Any]:
        arguments = {"name": "x", "dest": str(tmp_path / "copies")} | options
        if "path" not in arguments:
            arguments.setdefault("url", publisher.url("/list"))
        with patch_module_args(arguments), pytest.raises(SystemExit):
            feed.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_a_page_becomes_a_list(fetch: Any, publisher: Publisher) -> None:
    publisher.pages["/list"] = b"# theirs\n45.9.9.9\n10.0.0.1\n45.1.2.0/24\n45.9.9.9\n"
    done = fetch()
    assert Path(done["path"]).read_text() == "45.1.2.0/24\n45.9.9.9\n"
    assert done["digest"] == hashlib.sha256(Path(done["path"]).read_bytes()).hexdigest()
    assert Path(done["path"]).name == f"{done['digest']}.list"
    assert (done["changed"], done["entries"], done["list"]) == (True, 2, "deny")
    assert done["left_out"] == {"total": 1, "examples": ["10.0.0.1"]}
    assert fetch()["changed"] is False


def test_the_headers_are_sent_to_the_feeds_server_only(fetch: Any, publisher: Publisher) -> None:
    publisher.pages["/list"] = b"45.9.9.9\n"
    publisher.token = "Bearer s3cret-word"
    headers = {"Authorization": publisher.token}
    done = fetch(headers=headers)
    assert done["entries"] == 1
    assert "s3cret" not in json.dumps(done)
    refused = fetch()
    assert refused["failed"] is True and refused["unavailable"] is True
    assert "HTTP Error 401" in refused["msg"]
    # This is another host, judged by its name.
    moved = fetch(headers=headers, url=publisher.url("/moved"))
    assert publisher.asked[-2:] == ["/moved", "/list"]
    assert "HTTP Error 401" in moved["msg"]


def http_date(age: float) -> str:
    return email.utils.formatdate(time.time() - age, usegmt=True)


@pytest.mark.parametrize(
    ("options", "headers", "words"),
    [
        ({"max_bytes": 9}, {}, "it has more than 9 bytes: check it, or raise max_bytes"),
        ({"checksum": f"sha256:{'0' * 64}"}, {}, "but checksum is sha256:0000"),
        ({"max_age": 3600}, {"Last-Modified": http_date(7200)}, "s old, but max_age is 3600"),
        (
            {"max_age": 3600},
            {},
            "the server sends no valid Last-Modified, so its age is unknown: leave out max_age",
        ),
        (
            {"max_age": 3600},
            {"Last-Modified": "yesterday"},
            "no valid Last-Modified, so its age is unknown",
        ),
        ({"format": "csv", "column": "ip"}, {}, "feed x has no column 'ip'"),
    ],
)
def test_an_error_names_what_is_wrong_with_a_page(
    fetch: Any, publisher: Publisher, options: Any, headers: Any, words: str
) -> None:
    publisher.pages["/list"] = b"45.9.9.9\n45.9.9.10\n"
    publisher.headers = headers
    done = fetch(**options)
    assert done["failed"] is True and done["unavailable"] is True
    assert words in done["msg"]


def test_what_is_right_passes(fetch: Any, publisher: Publisher) -> None:
    publisher.pages["/list"] = page = b"45.9.9.9\n"
    publisher.headers = {"Last-Modified": http_date(60)}
    checksum = f"sha256:{hashlib.sha256(page).hexdigest().upper()}"
    assert fetch(max_age=3600, checksum=checksum, max_bytes=len(page))["entries"] == 1


def test_a_server_that_takes_its_time(fetch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        began = time.monotonic()
        done = fetch(url=url, timeout=0.5)
    assert time.monotonic() - began < 5
    assert done["unavailable"] is True
    assert "timed out" in done["msg"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "X"}, "'feed-X' is not a name for a list"),
        ({"url": "ftp://127.0.0.1/x"}, "write https://... or http://..., or use path"),
        ({"url": "file:///etc/passwd"}, "write https://... or http://..., or use path"),
        ({"checksum": "md5:1"}, "write sha256: and 64 hexadecimal digits"),
        ({"delimiter": ",,"}, "delimiter is ',,': write one character"),
        ({"column": "0"}, "columns count from 1"),
        ({"timeout": 0}, "timeout is 0: write a number above 0"),
        ({"format": "json"}, "value of format must be one of"),
        ({"path": "/x", "url": "http://x"}, "mutually exclusive"),
    ],
)
def test_wrong_options_are_no_fault_of_the_feed(fetch: Any, options: Any, words: str) -> None:
    done = fetch(**options)
    assert done["failed"] is True
    assert not done.get("unavailable")
    assert words in done["msg"]


# The play


class Fleet:
    """Two hosts, and a run of the playbook's first plays before the role's tasks."""

    def __init__(self, hosts: dict[str, ModuleHost], folder: Path) -> None:
        self.hosts = hosts
        self._folder = folder
        self.output = ""

    def run(self, feeds: list[dict[str, Any]], *arguments: str, first: bool = True) -> Any:
        """Run the play; return the results of the feeds by host."""
        site = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
        plays = [*site[:2] * first, *yaml.safe_load(SERIAL_PLAY)]
        (self._folder / "play.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
        inventory = {
            "packetwatch": {
                "hosts": {
                    name: {"ansible_python_interpreter": str(self._folder / f"python-{name}")}
                    for name in self.hosts
                },
                "vars": {
                    "ansible_connection": "local",
                    "ansible_become": False,
                    "packetwatch_feeds": feeds,
                    "packetwatch_confirm_timeout": 0,
                },
            }
        }
        (self._folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
        done = subprocess.run(
            ["ansible-playbook", "-i", "hosts.yml", "play.yml", *arguments],
            cwd=self._folder,
            env=os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.output = done.stdout
        assert done.returncode == 0, done.stdout
        found = {}
        for line in done.stdout.splitlines():
            dummy, begin, rest = line.partition("REPORT ")
            if begin:
                text = json.loads(f'"{rest.rstrip().removesuffix(chr(34))}"')
                found |= {host: item["feeds"] for host, item in json.loads(text).items()}
        return found

    def lists(self) -> list[dict[str, str]]:
        """The drop-ins of each host."""
        return [
            {
                path.removesuffix(".list"): text
                for path, text in host.files().items()
                if path.endswith(".list")
            }
            for host in self.hosts.values()
        ]


@pytest.fixture
def fleet(host: ModuleHost, tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "second"
    folder.mkdir()
    with make_host(folder) as second:
        hosts = {"web1": host, "web2": second}
        for name, item in hosts.items():
            script = tmp_path / f"python-{name}"
            script.write_text(ENTER.format(pid=item.pid))
            script.chmod(0o755)
        yield Fleet(hosts, tmp_path)


def test_all_hosts_get_what_the_first_got(fleet: Fleet, publisher: Publisher) -> None:
    publisher.pages["/list"] = [b"45.9.9.9\n", b"45.9.9.10\n", b"45.9.9.11\n"]
    feeds = [{"name": "x", "url": publisher.url("/list"), "max_change": 100}]
    report = fleet.run(feeds)
    assert publisher.asked == ["/list"]
    assert fleet.lists() == [{"deny.d/feed-x": "45.9.9.9\n"}] * 2
    assert {item["x"]["status"] for item in report.values()} == {"current"}
    assert len(report) == 2
    fleet.run(feeds)
    assert fleet.lists() == [{"deny.d/feed-x": "45.9.9.10\n"}] * 2
    fleet.run(feeds, "--check")
    assert fleet.lists() == [{"deny.d/feed-x": "45.9.9.10\n"}] * 2, "check mode changes nothing"


def test_unavailable_feeds_keep_their_last_good_copy(
    fleet: Fleet, publisher: Publisher, tmp_path: Path
) -> None:
    good = "".join(f"45.9.9.{i}\n" for i in range(10))
    own = tmp_path / "own.netset"
    own.write_text("45.5.0.0/16\n")
    names = ("vanished", "broken", "unlikely", "late")
    for name in names:
        publisher.pages[f"/{name}"] = good.encode()
    feeds: list[dict[str, Any]] = [
        {"name": name, "url": publisher.url(f"/{name}")} for name in names[:3]
    ]
    feeds.append({"name": "own", "path": str(own), "format": "ipset", "list": "allow"})
    fleet.run(feeds)
    assert "WARNING" not in fleet.output
    first = fleet.lists()[0]
    assert first == {f"deny.d/feed-{name}": good for name in names[:3]} | {
        "allow.d/feed-own": "45.5.0.0/16\n"
    }

    del publisher.pages["/vanished"]
    publisher.pages["/broken"] = b"<html>Service unavailable</html>\n"
    publisher.pages["/unlikely"] = good.replace("45.9", "45.8").encode()
    del publisher.pages["/late"]
    own.write_text("45.5.0.0/16\n45.6.0.0/16\n")
    feeds.append({"name": "late", "url": publisher.url("/late")})
    feeds[3]["max_change"] = 100
    report = fleet.run(feeds)
    assert fleet.lists() == [first | {"allow.d/feed-own": "45.5.0.0/16\n45.6.0.0/16\n"}] * 2
    for item in report.values():
        assert {name: feed["status"] for name, feed in item.items()} == {
            "vanished": "kept",
            "broken": "kept",
            "unlikely": "kept",
            "own": "current",
            "late": "missing",
        }
        assert "HTTP Error 404" in item["vanished"]["reason"]
        assert "line 1: '<html>Service unavailable</html>' is more than" in item["broken"]["reason"]
        assert "differs by 100 % from the last good one" in item["unlikely"]["reason"]
        assert item["vanished"]["entries"] == 10
    words = " ".join(fleet.output.split())
    assert "feed vanished is kept" in words
    assert "feed late is missing" in words

    fleet.run(feeds, "-e", "packetwatch_feeds_force=true")
    assert fleet.lists()[1]["deny.d/feed-unlikely"] == good.replace("45.9", "45.8")

    fleet.run(feeds[2:4])
    assert set(fleet.lists()[0]) == {"deny.d/feed-unlikely", "allow.d/feed-own"}
    fleet.run([])
    assert fleet.lists() == [{}, {}]


def test_without_the_first_play_only_files_are_read(
    fleet: Fleet, publisher: Publisher, tmp_path: Path
) -> None:
    (tmp_path / "own.list").write_text("45.9.9.9\n")
    feeds = [
        {"name": "own", "path": str(tmp_path / "own.list")},
        {"name": "x", "url": publisher.url("/list")},
    ]
    report = fleet.run(feeds, first=False)
    assert publisher.asked == []
    assert fleet.lists() == [{"deny.d/feed-own": "45.9.9.9\n"}] * 2
    assert report["web1"]["x"]["status"] == "missing"
    assert (
        "only the first play of packetwatch.xdp.site fetches a url" in report["web1"]["x"]["reason"]
    )


def test_a_secret_is_shown_to_nobody(fleet: Fleet, publisher: Publisher) -> None:
    publisher.pages["/list"] = b"45.9.9.9\n"
    publisher.token = "Bearer s3cret-word"
    headers = {"Authorization": "Bearer {{ ['s3cret', 'word'] | join('-') }}"}
    fleet.run([{"name": "x", "url": publisher.url("/list"), "headers": headers}], "-vvv")
    assert fleet.lists()[0] == {"deny.d/feed-x": "45.9.9.9\n"}
    assert "s3cret-word" not in fleet.output
