# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Reading what a host reports of itself: the agent's log lines and its metrics."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.machine import Machine

Event = dict[str, Any]

_FETCH = (
    "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9477/metrics').read().decode())"
)
_SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Sample:
    """One metric's value, with its labels."""

    name: str
    labels: dict[str, str]
    value: float


def events(machine: Machine) -> list[Event]:
    """The agent's log lines of this boot, oldest first; lines that are not JSON objects are left out.

    Raises LabError if the journal cannot be read.
    """
    found = []
    journal = machine.ssh(["journalctl", "-b", "-u", "packetwatch", "-o", "cat", "--no-pager"])
    for line in journal.stdout.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def wait_for(machine: Machine, wanted: Callable[[Event], bool], *, timeout: float) -> Event:
    """Wait for the first log line that is wanted; raises LabError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        logged = events(machine)
        if match := next(filter(wanted, logged), None):
            return match
        if time.monotonic() > deadline:
            last = "\n".join(json.dumps(event) for event in logged[-5:])
            raise LabError(
                f"{machine.name} did not log the wanted event within {timeout:g} s; its last ones:\n{last}"
            )
        time.sleep(1.0)


def ban(machine: Machine, source: str, *, timeout: float) -> Event:
    """Wait for the log line about the ban of a source; raises LabError after `timeout` seconds."""

    def wanted(event: Event) -> bool:
        return event.get("event.action") == "ban" and event.get("source.ip") == source

    return wait_for(machine, wanted, timeout=timeout)


def metrics(machine: Machine) -> list[Sample]:
    """The agent's metrics; raises LabError if it does not answer."""
    text = machine.ssh(["python3", "-c", _FETCH]).stdout
    samples = []
    for row in text.splitlines():
        if match := _SAMPLE.fullmatch(row):
            labels = dict(_LABEL.findall(match["labels"] or ""))
            samples.append(Sample(match["name"], labels, float(match["value"])))
    return samples


def total(samples: list[Sample], name: str, **labels: str) -> int:
    """The sum of a metric over all its series that have the given labels."""
    wanted = labels.items()
    return int(sum(s.value for s in samples if s.name == name and wanted <= s.labels.items()))
