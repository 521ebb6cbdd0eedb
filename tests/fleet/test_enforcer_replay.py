# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``packetwatch-enforcer replay``: the same decisions as those of a real enforcer, and what recordings cannot tell.

Each host of the live run has a journal, and reports by the code of the fleet process to a store in a folder. The
enforcer is the real process. Its clock goes on as soon as it waits, so an hour takes seconds, and each run is the same.
"""

from __future__ import annotations

import contextlib
import gzip
import heapq
import io
import json
import math
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fleet.enforcing import library
from kernel.hosting import CLEAN

from packetwatch_agent.output import timestamp
from packetwatch_core._kernel.bytecode import PYTHON
from packetwatch_core._node.rules import format_rules, parse_rules
from packetwatch_enforcer.replaying.command import main
from packetwatch_fleet.host.witness import BANS, GATHER
from packetwatch_fleet.reports import Reports, status
from packetwatch_fleet.sources import Sources
from packetwatch_fleet.store.folder import Folder

KEYS = "/packetwatch/v1/"
HOSTS = tuple(f"web{number}" for number in range(1, 7))
RULES = {
    "quorum": {"action": "enforce", "hosts": 2, "networks": 2},
    "sweep": {"action": "enforce", "hosts": 3},
    "slow": {"action": "monitor", "probes": 6, "hosts": 2, "window": "1h"},
    "crowd": {"action": "monitor", "sources": 4},
}
SEED, LENGTH = 7, 3600.0
# When the recorded hour begins, and how far a process's clock is behind it.
BEGIN = 1_790_000_000.0
OFFSET = BEGIN - 1000.0
_BAN = 600.0


class Event(NamedTuple):
    """What happens on a host: a probe of a port, a ban with these ports, or the expiry of a ban."""

    at: float
    host: str
    action: str
    source: str
    ports: tuple[int, ...] = ()


def address_of(host: str) -> str:
    """Each host is in a network of its own."""
    return f"10.{HOSTS.index(host) + 1}.0.1"


def script() -> list[Event]:
    """An hour of a fleet, from a seed. Each source does something that some rule must or must not see."""
    choice = random.Random(SEED)
    found: list[Event] = []

    def probe(source: str, host: str, port: int, begin: float, length: float) -> None:
        at = choice.uniform(begin, begin + length)
        found.append(Event(at, host, "probe", source, (port,)))

    for host in HOSTS:  # what each host sees all the time
        probe("198.51.103.1", host, 22, 0, 5)
        for _number in range(100):
            source = (
                f"100.{choice.randrange(64, 128)}.{choice.randrange(256)}.{choice.randrange(256)}"
            )
            probe(source, host, choice.choice((22, 23)), 5, 3500)
    # One port of 1 to 6 hosts, within 1 to 20 minutes: sweeps from 3 hosts within 10 minutes on.
    for number in range(24):
        length = choice.choice((60, 300, 1200))
        begin = choice.uniform(0, LENGTH - length)
        for host in choice.sample(HOSTS, 1 + number % 6):
            probe(f"198.51.100.{number}", host, 2222, begin, length)
    for number in range(4):  # ports of two hosts over the hour
        for host in HOSTS[:2]:
            for port in (21, 22, 23, 25):
                probe(f"192.0.2.{number}", host, port, 0, LENGTH)
    for number in range(6):  # sources of one network, now and then
        for begin in (300, 2400):
            probe(f"203.0.113.{number}", choice.choice(HOSTS), 8080, begin, 500)
    for host in HOSTS[:4]:
        probe("2001:db8:7::1", host, 22, 1000, 60)
    for host in HOSTS[:3]:  # an address of a host, and one that is never banned
        probe(address_of("web6"), host, 22, 2000, 60)
        probe("198.18.0.1", host, 22, 2000, 60)
    for number in range(8):  # banned by 1 to 4 hosts, some of them too far apart
        length = 300 if number % 2 else 1500
        begin = choice.uniform(100, LENGTH - length - _BAN)
        for host in HOSTS[: 1 + number // 2]:
            at = choice.uniform(begin, begin + length)
            source = f"198.51.101.{number}"
            found.append(Event(at, host, "ban", source, (22, 23, 25)))
            found.append(Event(at + _BAN, host, "expiry", source))
    return sorted(found)


def line_of(event: Event) -> str:
    """What the host's agent logs."""
    moment = round((BEGIN + event.at) * 1e9)
    prefix = f"{event.source}/32" if "." in event.source else "2001:db8:7::/64"
    fields: dict[str, Any] = {
        "@timestamp": timestamp(moment),
        "event.action": event.action,
        "host.name": event.host,
        "source.ip": event.source,
        "packetwatch.prefix": prefix,
    }
    if event.action == "probe":
        fields["destination.ip"] = address_of(event.host)
        fields["destination.port"] = event.ports[0]
        fields["packetwatch.kind"] = "syn"
    else:
        fields["packetwatch.origin"] = "scan"
    if event.action == "ban":
        fields["packetwatch.ports"] = list(event.ports)
        fields["packetwatch.evidence"] = "syn"
        fields["packetwatch.expires"] = timestamp(moment + round(_BAN * 1e9))
    return json.dumps(fields)


class Host:
    """A host of the live run. Times are those of the enforcer's clock."""

    def __init__(self, name: str, store: Folder, now: float) -> None:
        self._name = name
        self._store = store
        self._reports = Reports(Sources())
        self._last: dict[str, float] = {}
        self._waiting: set[str] = set()
        value = status(now + OFFSET, addresses=[address_of(name)])
        store.write(f"{KEYS}hosts/{name}/status", value)

    def take(self, event: Event, now: float) -> tuple[str, float] | None:
        """Take what happens; return a report that is due, and when."""
        item: dict[str, Any] = {"end": [event.source]}
        if event.action == "probe":
            item = {"probe": [event.source, event.ports[0]]}
        elif event.action == "ban":
            item = {"ban": [event.source, list(event.ports), _BAN, "syn"]}
        kind = self._reports.take(item, now)
        if not kind or kind in self._waiting:
            return None
        self._waiting.add(kind)
        pause, interval = (GATHER, 1.0) if kind == "seen" else (0.0, BANS)
        return kind, max(now + pause, self._last.get(kind, -math.inf) + interval)

    def write(self, kind: str, now: float) -> None:
        make = self._reports.seen if kind == "seen" else self._reports.bans
        self._store.write(f"{KEYS}hosts/{self._name}/{kind}", make(now, OFFSET))
        self._waiting.discard(kind)
        self._last[kind] = now


# The process says until when it would wait, and goes on when it is told the time.
_RUN = """
import os, selectors, sys, time

class Clock:
    now = 1000.0

class Waiting(selectors.DefaultSelector):
    def select(self, timeout=None):
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        until = Clock.now + 3600 if timeout is None else Clock.now + timeout
        os.write({said}, b"%.6f\\n" % until)
        Clock.now = max(float(os.read({told}, 64)), Clock.now + 1e-4)
        return super().select(0)

time.monotonic = lambda: Clock.now
time.time = lambda: Clock.now + {offset}
selectors.DefaultSelector = Waiting
from packetwatch_enforcer.__main__ import main
sys.exit(main())
"""


class Enforcer:
    """The real process over a store in a folder, which waits for its time."""

    def __init__(self, process: subprocess.Popen[bytes], said: int, told: int, log: Path) -> None:
        self._process = process
        self._said = said
        self._told = told
        self.log = log
        self.now = 1000.0
        self._data = b""

    def until(self) -> float:
        """Let it work until it waits; return until when it would."""
        while b"\n" not in self._data:
            data = os.read(self._said, 4096)
            assert data, self.log.read_text()
            self._data += data
        line, dummy, self._data = self._data.partition(b"\n")
        return float(line)

    def go_on(self, moment: float) -> None:
        self.now = max(moment, self.now)
        os.write(self._told, b"%.6f" % self.now)


@contextlib.contextmanager
def enforcer(folder: Path, store: Path, rules: Path) -> Iterator[Enforcer]:
    code, log = library(folder), folder / "enforcer.log"
    never = folder / "never"
    never.write_text("198.18.0.0/15 protected\n")
    variables = {
        **CLEAN,
        "PYTHONPATH": str(code),
        "PYTHONPYCACHEPREFIX": str(code / "bytecode"),
        # The order of what changes at once in a folder is that of a set.
        "PYTHONHASHSEED": "0",
        "PW_FLEET_STORE": "folder",
        "PW_FLEET_FOLDER": str(store),
        "PW_FLEET_NEVER": str(never),
        "PW_ENFORCER_NAME": "e1",
        "PW_ENFORCER_RULES": str(rules),
        "PW_ENFORCER_RULES_FOLDER": str(folder / "rules.d"),
        "PW_ENFORCER_METRICS_LISTEN": "",
        "PW_STATE_DIR": str(folder),
    }
    (said, say), (hear, told) = os.pipe(), os.pipe()
    argv = [PYTHON, "-s", "-c", _RUN.format(said=say, told=hear, offset=OFFSET)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            argv, env=variables, stdout=file, stderr=file, pass_fds=(say, hear)
        )
    os.close(say)
    os.close(hear)
    try:
        yield Enforcer(process, said, told, log)
    finally:
        process.kill()
        process.wait()
        os.close(said)
        os.close(told)


class Recorded(NamedTuple):
    """A live run: a journal for each host, the rules, and the decisions of the enforcer."""

    journals: list[Path]
    rules: Path
    decisions: list[dict[str, Any]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("replay")
    rules, store = folder / "rules.json", folder / "store"
    rules.write_text(format_rules(parse_rules(RULES, "rules")))
    store.mkdir()
    with enforcer(folder, store, rules) as process:
        live(process, Folder(str(store)))
        value = Folder(str(store)).read(f"{KEYS}rules/").items[f"{KEYS}rules/e1"][1]
        found = json.loads(value)
        assert "following the store" in process.log.read_text()
    assert found["lost"] == 0 and len(found["recent"]) < 64
    return Recorded(write_journals(folder, compress=True), rules, found["recent"])


def live(process: Enforcer, store: Folder) -> None:
    """Let the hour pass, and a minute in which the enforcer publishes what it has decided."""
    hosts = {name: Host(name, store, process.now) for name in HOSTS}
    events = script()[::-1]
    due: list[tuple[float, str, str]] = []
    begin = BEGIN - OFFSET
    while process.now < begin + LENGTH + _BAN + 60:
        waits = process.until()
        moment = min(
            waits, begin + events[-1].at if events else math.inf, due[0][0] if due else math.inf
        )
        while events and begin + events[-1].at <= moment:
            event = events.pop()
            report = hosts[event.host].take(event, begin + event.at)
            if report:
                heapq.heappush(due, (report[1], event.host, report[0]))
        while due and due[0][0] <= moment:
            at, name, kind = heapq.heappop(due)
            hosts[name].write(kind, at)
        process.go_on(moment)


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


def by_time(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda one: (one["source"], one["rule"], one["t"]))


@pytest.mark.slow
def test_a_replay_of_an_hour_decides_as_the_live_enforcer(recorded: Recorded) -> None:
    code, text = replay(
        "--json", "--rules", recorded.rules, "--never", "198.18.0.0/15", *recorded.journals
    )
    assert code == 0
    found = json.loads(text)
    assert decided(found["decisions"]) == decided(recorded.decisions)
    assert {one["rule"] for one in found["decisions"]} == set(RULES)
    assert len(found["decisions"]) > 20
    for one, other in zip(*map(by_time, (found["decisions"], recorded.decisions)), strict=True):
        # The enforcer looks at its store five times a second.
        assert abs(one["t"] - other["t"]) < 0.5
    assert found["recording"]["to"] - found["recording"]["from"] > 3500
    assert found["refused"]["never"] >= 2
    assert found["recording"]["hosts"] == list(HOSTS)


def write_rules(folder: Path, **rules: Any) -> Path:
    path = folder / "rules.json"
    path.write_text(format_rules(parse_rules(rules, "rules")))
    return path


def write_journals(folder: Path, compress: bool = False) -> list[Path]:
    """Write the journal of each host."""
    paths = []
    for name in HOSTS:
        text = "".join(f"{line_of(event)}\n" for event in script() if event.host == name)
        path = folder / (f"{name}.jsonl.gz" if compress else f"{name}.log")
        path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
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
