# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Feeds from a real server, by the first play of the site playbook, to two hosts one after the other."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
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

from packetwatch_core._feeds.presets import PRESETS
from tests.integration.conftest import COLLECTIONS, ROOT, ModuleHost, make_host

pytestmark = pytest.mark.slow(2)

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
    - packetwatch.xdp.__private.feeds:
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

PLAIN = "# theirs\n45.9.9.0/24\n"
SPAMHAUS = '{{"cidr":"{}","sblid":"SBL1","rir":"x"}}\n{{"type":"metadata","timestamp":{},"size":9,"records":1}}\n'
# The shape in which each publisher publishes.
SAMPLES = {
    "aws": '{"syncToken":"1","createDate":"2026-11-29-00-00-00","prefixes":[{"ip_prefix":"45.9.9.0/24","region":"x",'
    '"service":"EC2"}],"ipv6_prefixes":[{"ipv6_prefix":"2a06:e480::/29","region":"x","service":"EC2"}]}',
    "azure": '{"changeNumber":1,"cloud":"Public","values":[{"name":"A","id":"A","properties":{"region":"",'
    '"addressPrefixes":["45.9.9.0/24","2a06:e480::/29"]}}]}',
    "blocklist-de": PLAIN,
    "cins-army": PLAIN,
    "cloudflare-ipv4": "45.9.9.0/24",
    "cloudflare-ipv6": "2a06:e480::/29",
    "dshield": "#\n#   DShield.org Recommended Block List\n#\nStart\tEnd\tNetmask\tAttacks\tName\tCountry\temail\n"
    "45.9.9.0\t45.9.9.255\t24\t2600\tX\tNL\tx@isp.example\n",
    "et-compromised": PLAIN,
    "fastly": '{"addresses":["45.9.9.0/24"],"ipv6_addresses":["2a06:e480::/29"]}',
    "feodo-tracker": '# Feodo\n#\n"first_seen_utc","dst_ip","dst_port"\n"2026-01-01 00:00:00","45.9.9.0/24","443"\n',
    "firehol-level1": "#\n# firehol_level1\n#\n10.0.0.0/8\n45.9.9.0/24\n",
    "github-hooks": '{"verifiable_password_authentication":false,"ssh_keys":["x"],"hooks":["45.9.9.0/24",'
    '"2a06:e480::/29"],"domains":{"website":["x"]}}',
    "google-cloud": '{"syncToken":"1","creationTime":"x","prefixes":[{"ipv4Prefix":"45.9.9.0/24","service":"x"},'
    '{"ipv6Prefix":"2a06:e480::/29","service":"x"}]}',
    "oracle-cloud": '{"last_updated_timestamp":"x","regions":[{"region":"x","cidrs":[{"cidr":"45.9.9.0/24",'
    '"tags":["OCI"]}]}]}',
    "spamhaus-drop": SPAMHAUS.format("45.9.9.0/24", int(time.time())),
    "spamhaus-drop-ipv6": SPAMHAUS.format("2a06:e480::/29", int(time.time())),
    "tor-exits": PLAIN,
}


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
        ({"format": "xml"}, "value of format must be one of"),
        ({"format": "json"}, "column is not set: for json, write the path of the addresses"),
        ({"format": "json", "column": "a["}, "column is 'a[': write the path of the addresses"),
        ({"header": "yes please"}, "value of header must be one of"),
        ({"max_bad": -1}, "max_bad is -1: write 0 or more"),
        ({"interval": -1}, "interval is '-1'; allowed: seconds from 0"),
        ({"widest": {"ipv4": 33}}, "widest.ipv4 is 33: write a prefix length from 0 to 32"),
        ({"widest_sum": {"ipv6": -1}}, "widest_sum.ipv6 is -1: write a prefix length from 0 to"),
        ({"preset": "spamhouse"}, "preset is 'spamhouse': write one of aws, azure, "),
        ({"path": "/x", "url": "http://x"}, "mutually exclusive"),
    ],
)
def test_wrong_options_are_no_fault_of_the_feed(fetch: Any, options: Any, words: str) -> None:
    done = fetch(**options)
    assert done["failed"] is True
    assert not done.get("unavailable")
    assert words in done["msg"]


DROP = (
    b'{"cidr":"45.9.9.0/24","sblid":"SBL1","rir":"example"}\n'
    b'{"type":"metadata","timestamp":%d,"records":%d}\n'
)


def test_a_preset_fills_in_what_the_task_does_not_say(fetch: Any, publisher: Publisher) -> None:
    publisher.pages["/list"] = DROP % (time.time() - 60, 1)
    publisher.headers = {"Last-Modified": http_date(9 * 86400)}
    done = fetch(preset="spamhaus-drop")
    assert (done["entries"], done["left_out"]["total"]) == (1, 0)
    # Its metadata record is newer than what the server says.
    assert time.time() - done["published"] < 70
    assert time.time() - done["fetched"] < 10
    old = fetch(preset="spamhaus-drop", max_age=30)
    assert "s old, but max_age is 30" in old["msg"]
    publisher.pages["/list"] = DROP % (time.time() - 8 * 86400, 1)
    assert "s old, but max_age is 604800" in fetch(preset="spamhaus-drop")["msg"]
    publisher.pages["/list"] = DROP % (time.time() + 2 * 86400, 1)
    assert "ahead of this clock" in fetch(preset="spamhaus-drop")["msg"]
    publisher.pages["/list"] = DROP % (time.time(), 2)
    assert "has 1 records, but its metadata record counts 2" in fetch(preset="spamhaus-drop")["msg"]


def test_a_preset_without_an_address_needs_one(fetch: Any, tmp_path: Path) -> None:
    done = fetch(url=None, preset="azure")
    assert "the preset azure has no address: add url or path" in done["msg"]
    assert not done.get("unavailable")
    (tmp_path / "tags.json").write_text(
        '{"values":[{"properties":{"addressPrefixes":["45.9.9.9/32"]}}]}'
    )
    done = fetch(preset="azure", path=str(tmp_path / "tags.json"))
    assert Path(done["path"]).read_text() == "45.9.9.9\n"


@pytest.mark.parametrize("header", [True, "true"])
def test_yaml_may_say_true(fetch: Any, publisher: Publisher, header: Any) -> None:
    publisher.pages["/list"] = b"Anschluss\n45.9.9.9\n"
    assert fetch(format="csv", header=header)["entries"] == 1
    assert "line 1: 'Anschluss'" in fetch(format="csv")["msg"]


def test_a_packed_feed_is_unpacked(fetch: Any, publisher: Publisher) -> None:
    publisher.pages["/list"] = packed = gzip.compress(b"45.9.9.9\n" * 1000)
    checksum = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert fetch(checksum=checksum)["entries"] == 1
    done = fetch(max_bytes=5000)
    assert "it is packed with gzip, and has more than 5000 bytes unpacked" in done["msg"]
    assert done["unavailable"] is True
    publisher.pages["/list"] = packed[:-4]
    assert "it is packed with gzip, and cannot be unpacked" in fetch()["msg"]


def test_half_an_answer_is_refused(fetch: Any, publisher: Publisher) -> None:
    publisher.pages["/list"] = b"45.9.9.9\n"
    publisher.headers = {"Content-Length": "18"}
    assert "the server announced 18 bytes and sent 9" in fetch()["msg"]
    publisher.headers = {"Transfer-Encoding": "chunked"}
    publisher.pages["/list"] = b"9\r\n45.9.9.9\n\r\n9\r\n45.9"
    done = fetch()
    assert done["unavailable"] is True
    assert "IncompleteRead" in done["msg"]


def test_a_publisher_is_asked_once_an_interval(
    fetch: Any, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.pages["/list"] = [b"45.9.9.9\n", b"45.9.9.10\n", b"45.9.9.11\n", b"45.9.9.12\n"]
    cache = tmp_path / "cache"
    options = {"interval": 60, "cache": str(cache)}
    first, second = fetch(**options), fetch(**options)
    assert (first["digest"], first["fetched"]) == (second["digest"], second["fetched"])
    assert publisher.asked == ["/list"]
    assert {path.stat().st_mode & 0o777 for path in (cache, *cache.iterdir())} == {0o700, 0o600}
    # Another token may get another list.
    assert fetch(**options, headers={"Authorization": "x"})["digest"] != first["digest"]
    assert publisher.asked == ["/list"] * 2
    (kept,) = [path for path in cache.iterdir() if path.read_bytes().endswith(b"45.9.9.9\n")]
    kept.write_bytes(b"damaged")
    assert fetch(**options)["digest"] not in (first["digest"], second["digest"])
    assert publisher.asked == ["/list"] * 3
    assert fetch(**options | {"interval": 0.001})["entries"] == 1
    assert publisher.asked == ["/list"] * 4


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_reads_a_list_of_its_format(name: str, fetch: Any, publisher: Publisher) -> None:
    sample = SAMPLES[name]
    publisher.pages["/list"] = sample.encode()
    publisher.headers = {"Last-Modified": http_date(60)}
    done = fetch(preset=name)
    assert not done.get("failed"), done
    assert Path(done["path"]).read_text().splitlines() == [
        *["45.9.9.0/24"] * ("45.9" in sample),
        *["2a06:e480::/29"] * ("2a06" in sample),
    ]


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
        fetching = [play for play in site if play["name"].startswith(("Sort out", "Fetch"))]
        plays = [*fetching * first, *yaml.safe_load(SERIAL_PLAY)]
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
            env=os.environ
            | {
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_HOME": str(self._folder / "home"),
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.output = done.stdout
        assert done.returncode == 0, done.stdout
        found: dict[str, Any] = {}
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


def test_an_empty_list_is_reported_and_ends_by_choice(
    fleet: Fleet, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.pages["/list"] = b"".join(b"45.9.9.%d\n" % number for number in range(5))
    feed: dict[str, Any] = {"name": "x", "url": publisher.url("/list")}
    fleet.run([feed])
    publisher.pages["/list"] = b"; retired, merged into another list\n; 2026/11/28\n;\n"
    report = fleet.run([feed])
    assert {item["x"]["status"] for item in report.values()} == {"empty"}
    assert {item["x"]["entries"] for item in report.values()} == {5}
    assert "the publisher's list is empty" in " ".join(fleet.output.split())
    report = fleet.run([feed | {"expire_after": 1e-3}])
    assert {item["x"]["status"] for item in report.values()} == {"expired"}
    assert fleet.lists() == [{}, {}]
    report = fleet.run([feed | {"allow_empty": True}])
    assert {item["x"]["status"] for item in report.values()} == {"empty"}
    assert "WARNING" not in fleet.output
    assert fleet.lists() == [{"deny.d/feed-x": ""}] * 2


def test_skipped_lines_and_a_wrong_preset_are_shown(fleet: Fleet, publisher: Publisher) -> None:
    publisher.pages["/list"] = b"45.9.9.9\n45.9.9.10\n45.9.9.300\n"
    feed: dict[str, Any] = {"name": "x", "url": publisher.url("/list"), "max_bad": 1}
    report = fleet.run([feed])
    assert {item["x"]["status"] for item in report.values()} == {"current"}
    assert "feed x: 1 wrong lines are skipped: line 3: '45.9.9.300'" in " ".join(
        fleet.output.split()
    )
    # Within the interval, the next run uses the same answer.
    asked = len(publisher.asked)
    for text in (b"45.9.9.9\n", b"45.9.9.10\n"):
        publisher.pages["/list"] = text
        fleet.run([feed | {"interval": 3600, "max_change": 100}])
        assert fleet.lists() == [{"deny.d/feed-x": "45.9.9.9\n"}] * 2
    assert len(publisher.asked) == asked + 1
    with pytest.raises(AssertionError, match="feed x: preset is 'spamhouse': write one of aws, "):
        fleet.run([feed | {"preset": "spamhouse"}])


def test_a_secret_is_shown_to_nobody(fleet: Fleet, publisher: Publisher) -> None:
    publisher.pages["/list"] = b"45.9.9.9\n"
    publisher.token = "Bearer s3cret-word"
    headers = {"Authorization": "Bearer {{ ['s3cret', 'word'] | join('-') }}"}
    fleet.run([{"name": "x", "url": publisher.url("/list"), "headers": headers}], "-vvv")
    assert fleet.lists()[0] == {"deny.d/feed-x": "45.9.9.9\n"}
    assert "s3cret-word" not in fleet.output
