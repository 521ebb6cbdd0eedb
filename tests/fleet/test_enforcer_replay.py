# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``packetwatch-enforcer replay``: the same decisions as those of a real enforcer, and what recordings cannot tell.

Each host of the live run has a journal, and reports by the code of the fleet process to a store in a folder. The
enforcer is the real process.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fleet.enforcing import library
from fleet.host_process import until
from kernel.hosting import CLEAN

from packetwatch_agent.output import timestamp
from packetwatch_core._kernel.bytecode import PYTHON
from packetwatch_core._node.rules import format_rules, parse_rules
from packetwatch_enforcer.replaying.command import main
from packetwatch_fleet.reports import Reports, status
from packetwatch_fleet.sources import Sources
from packetwatch_fleet.store.folder import Folder

KEYS = "/packetwatch/v1/"
HOSTS = tuple(f"web{number}" for number in range(1, 7))
RULES = {
    "quorum": {"action": "enforce", "hosts": 2, "networks": 2},
    "sweep": {"action": "enforce", "hosts": 3, "window": 20},
    "slow": {"action": "monitor", "probes": 6, "hosts": 2},
    "crowd": {"action": "monitor", "sources": 4},
}
SEED, LENGTH = 7, 6.0


class Event(NamedTuple):
    """What happens on a host: a probe of a port, or a ban with these ports."""

    at: float
    host: str
    action: str
    source: str
    ports: tuple[int, ...]


def address_of(host: str) -> str:
    """Each host is in a network of its own."""
    return f"10.{HOSTS.index(host) + 1}.0.1"


def script() -> list[Event]:
    """Some seconds of a fleet, from a seed. Each source does something that some rule must or must not see."""
    choice = random.Random(SEED)
    found: list[Event] = []

    def probe(source: str, host: str, port: int) -> None:
        found.append(Event(choice.uniform(0, LENGTH), host, "probe", source, (port,)))

    for number in range(8):  # one port of 1 to 6 hosts: sweeps from 3 on
        for host in choice.sample(HOSTS, 1 + number % 6):
            probe(f"198.51.100.{number}", host, 2222)
    for number in range(3):  # three ports of two hosts
        for host in HOSTS[:2]:
            for port in (21, 22, 23):
                probe(f"192.0.2.{number}", host, port)
    for number in range(5):  # five sources of one network
        probe(f"203.0.113.{number}", choice.choice(HOSTS), 8080)
    for host in HOSTS[:4]:
        probe("2001:db8:7::1", host, 22)
    for host in HOSTS[:3]:  # an address of a host, and one that is never banned
        probe(address_of("web6"), host, 22)
        probe("198.18.0.1", host, 22)
    for number in range(4):  # banned by 1 to 4 hosts
        for host in HOSTS[: number + 1]:
            ban = (22, 23, 25)
            at = choice.uniform(1, LENGTH)
            found.append(Event(at, host, "ban", f"198.51.101.{number}", ban))
    return sorted(found)


def line_of(event: Event, begin: float) -> str:
    """What the host's agent logs."""
    moment = round((begin + event.at) * 1e9)
    prefix = f"{event.source}/32" if "." in event.source else "2001:db8:7::/64"
    fields: dict[str, Any] = {
        "@timestamp": timestamp(moment),
        "event.action": event.action,
        "host.name": event.host,
        "source.ip": event.source,
        "destination.ip": address_of(event.host),
        "destination.port": event.ports[0],
        "packetwatch.prefix": prefix,
        "packetwatch.kind": "syn",
    }
    if event.action == "ban":
        fields["packetwatch.origin"] = "scan"
        fields["packetwatch.ports"] = list(event.ports)
        fields["packetwatch.evidence"] = "syn"
        fields["packetwatch.expires"] = timestamp(moment + 600 * 10**9)
    return json.dumps(fields)


class Host:
    """A host of the live run."""

    def __init__(self, name: str, store: Folder) -> None:
        self._name = name
        self._store = store
        self._reports = Reports(Sources())
        self._last: dict[str, float] = {}
        self._dirty: set[str] = set()
        value = status(time.time(), addresses=[address_of(name)])
        store.write(f"{KEYS}hosts/{name}/status", value)

    def take(self, event: Event) -> None:
        item: dict[str, Any] = {"probe": [event.source, event.ports[0]]}
        if event.action == "ban":
            item = {"ban": [event.source, list(event.ports), 600.0, "syn"]}
        self._dirty.add(self._reports.take(item, time.monotonic()))

    def write(self) -> None:
        """Report what is due."""
        now = time.monotonic()
        for kind, interval in (("seen", 1.0), ("bans", 0.5)):
            if kind in self._dirty and now >= self._last.get(kind, 0.0) + interval:
                make = self._reports.seen if kind == "seen" else self._reports.bans
                value = make(now, time.time() - now)
                self._store.write(f"{KEYS}hosts/{self._name}/{kind}", value)
                self._dirty.discard(kind)
                self._last[kind] = now

    @property
    def is_quiet(self) -> bool:
        return not self._dirty


@contextlib.contextmanager
def enforcer(folder: Path, store: Path, rules: Path) -> Iterator[Path]:
    """The real process over a store in a folder; its log."""
    code, log = library(folder), folder / "enforcer.log"
    never = folder / "never"
    never.write_text("198.18.0.0/15 protected\n")
    variables = {
        **CLEAN,
        "PYTHONPATH": str(code),
        "PYTHONPYCACHEPREFIX": str(code / "bytecode"),
        "PW_FLEET_STORE": "folder",
        "PW_FLEET_FOLDER": str(store),
        "PW_FLEET_NEVER": str(never),
        "PW_ENFORCER_NAME": "e1",
        "PW_ENFORCER_RULES": str(rules),
        "PW_ENFORCER_RULES_FOLDER": str(folder / "rules.d"),
        "PW_ENFORCER_METRICS_LISTEN": "",
        "PW_STATE_DIR": str(folder),
    }
    argv = [PYTHON, "-s", "-m", "packetwatch_enforcer"]
    with log.open("wb") as file:
        process = subprocess.Popen(argv, env=variables, stdout=file, stderr=file)
    try:
        yield log
    finally:
        process.kill()
        process.wait()


class Recorded(NamedTuple):
    """A live run: a journal for each host, the rules, and the decisions of the enforcer."""

    journals: list[Path]
    rules: Path
    decisions: list[dict[str, Any]]
    began: float


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("replay")
    rules, store = folder / "rules.json", folder / "store"
    rules.write_text(format_rules(parse_rules(RULES, "rules")))
    store.mkdir()
    files = Folder(str(store))
    with enforcer(folder, store, rules) as log:
        hosts = {name: Host(name, files) for name in HOSTS}
        until(lambda: "following the store" in log.read_text(), shown=log.read_text)
        began = time.time()
        events = script()
        waiting = list(events)
        while waiting or not all(host.is_quiet for host in hosts.values()):
            while waiting and began + waiting[0].at <= time.time():
                event = waiting.pop(0)
                hosts[event.host].take(event)
            for host in hosts.values():
                host.write()
            time.sleep(0.01)

        def decisions() -> list[dict[str, Any]]:
            value = files.read(f"{KEYS}rules/").items.get(f"{KEYS}rules/e1", (0, b"{}"))[1]
            found: list[dict[str, Any]] = json.loads(value).get("recent", [])
            return found

        # What the last reports lead to, and the tick after them.
        end = time.time() + 7
        until(lambda: time.time() > end and decisions(), 60, shown=log.read_text)
        found = decisions()
    journals = []
    for name in HOSTS:
        path = folder / f"{name}.jsonl.gz"
        lines = [line_of(event, began) for event in events if event.host == name]
        path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        journals.append(path)
    return Recorded(journals, rules, found, began)


def replay(*arguments: object) -> tuple[int, str]:
    """Exit status and output of the command."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main(["replay", *map(str, arguments)])
    return code, output.getvalue()


def decided(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What must be the same. Which hosts and ports are named depends on the order of reports within a second."""
    names = ("source", "rule", "action", "seconds", "evidence", "seen")
    return sorted(tuple(record[name] for name in names) for record in records)


@pytest.mark.slow
def test_a_replay_decides_as_the_live_enforcer(recorded: Recorded) -> None:
    code, text = replay(
        "--json", "--rules", recorded.rules, "--never", "198.18.0.0/15", *recorded.journals
    )
    assert code == 0
    found = json.loads(text)
    assert decided(found["decisions"]) == decided(recorded.decisions)
    assert {one["rule"] for one in found["decisions"]} == set(RULES)
    assert len(found["decisions"]) > 10
    live = {(one["source"], one["rule"]): one["t"] for one in recorded.decisions}
    for one in found["decisions"]:
        # The live hosts report once a second, and not at the same moments. A busy machine decides later.
        assert -2.5 < live[one["source"], one["rule"]] - one["t"] < 2.5 + 20
    assert found["refused"]["never"] >= 2
    assert found["recording"]["hosts"] == list(HOSTS)


def write_rules(folder: Path, **rules: Any) -> Path:
    path = folder / "rules.json"
    path.write_text(format_rules(parse_rules(rules, "rules")))
    return path


def write_journals(folder: Path, begin: float = 1_790_000_000.0) -> list[Path]:
    paths = []
    for name in HOSTS:
        path = folder / f"{name}.log"
        lines = [line_of(event, begin) for event in script() if event.host == name]
        path.write_text("\n".join(lines) + "\n")
        paths.append(path)
    return paths


def test_the_order_of_the_files_does_not_matter_and_nothing_is_of_chance(tmp_path: Path) -> None:
    rules, journals = write_rules(tmp_path, **RULES), write_journals(tmp_path)
    first = replay("--json", "--rules", rules, *journals)
    assert first == replay("--json", "--rules", rules, *reversed(journals))
    whole = tmp_path / "all.log"
    whole.write_bytes(b"".join(path.read_bytes() for path in journals))
    assert (
        json.loads(replay("--json", "--rules", rules, whole)[1])["decisions"]
        == (json.loads(first[1])["decisions"])
    )


def test_thresholds_are_tried(tmp_path: Path) -> None:
    journals = write_journals(tmp_path)
    sums = []
    for hosts in (2, 3, 5, 7):
        rules = write_rules(tmp_path, sweep={"action": "enforce", "hosts": hosts})
        code, text = replay("--json", "--rules", rules, *journals)
        assert code == 0
        sums.append(json.loads(text)["rules"]["sweep"]["decided"])
    assert sums == sorted(sums, reverse=True)
    assert sums[0] > sums[1] > sums[2] > sums[3] == 0


def test_the_name_of_a_file_names_the_host(tmp_path: Path) -> None:
    rules = write_rules(tmp_path, sweep={"hosts": 3})
    journals = write_journals(tmp_path)
    for path in journals:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            del line["host.name"]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = json.loads(replay("--json", "--rules", rules, *journals)[1])
    assert found["recording"]["hosts"] == list(HOSTS)
    assert found["rules"]["sweep"]["decided"] > 2


def test_a_rule_of_ones_own_is_replayed_and_a_bad_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "rules.d"
    folder.mkdir()
    (folder / "bad.py").write_text("def make_rule(thresholds, hosts):\n    return 1 / 0\n")
    rules = write_rules(tmp_path, bad={"action": "monitor"}, sweep={"hosts": 3})
    code, text = replay("--rules", rules, "--rules-folder", folder, *write_journals(tmp_path))
    assert code == 1
    assert "PROBLEM: the rule bad was switched off: ZeroDivisionError" in text
    assert "rule sweep: monitor, hosts 3" in text


def test_what_the_recording_cannot_tell_is_said(tmp_path: Path) -> None:
    rules = write_rules(tmp_path, sweep={}, quorum={})
    journal = tmp_path / "web1.log"
    fields = {"@timestamp": "2026-11-29T10:00:00Z", "host.name": "web1"}
    lines = [
        fields | {"event.action": "scan", "packetwatch.reason": "monitor"},
        fields | {"packetwatch.probes_lost": 17},
        fields | {"event.action": "ban", "packetwatch.origin": "scan"},
    ]
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    code, text = replay("--rules", rules, journal)
    assert code == 1
    for said in (
        "PROBLEM: the recording has no probe lines, which sweep need",
        "unknown: 17 probes that were above",
        "unknown: 1 scans under monitor",
        "unknown: 1 lines without",
    ):
        assert said in text, text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rules", "/nonexistent", "x"], "/nonexistent"),
        (["--never", "203.0.113.300", "x"], "203.0.113.300"),
        (["--shared", "203.0.113.0/24", "x"], "--shared"),
        (["--batch", "0", "x"], "--batch is '0'"),
    ],
)
def test_errors_name_the_value(tmp_path: Path, arguments: list[str], said: str) -> None:
    rules = write_rules(tmp_path, sweep={})
    code, text = replay("--rules", rules, *arguments)
    assert code == 2
    assert said in text
