# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Hosts that share their bans, for `make demo FLEET=1`.

One of the machines also has the store. A ban that is decided there reaches the kernels of all machines.
Then the store is away for a while: everything goes on filtering. After that, a ban is lifted and another
one is made, and the kernels must equal the store again.
"""

from __future__ import annotations

import json
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lab.errors import LabError
from lab.finding import Finding, visit
from lab.play import fleet_variables, module, play
from lab.process import say
from lab.topology import ipv4
from lab.traffic import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.finding import Visit
    from lab.fleet import Fleet
    from lab.machine import Machine

_ETCD = "packetwatch-fleet-etcd.service"
_ON_HOST = Path(__file__).with_name("on_host.py")
# Networks for documentation and benchmarks; nobody in the lab has such an address.
_ELSEWHERE = [f"198.18.0.{number}" for number in range(1, 41)]
_ELSEWHERE += [f"2001:db8:0:{number}::1" for number in range(1, 11)]
_NEXT = "198.18.1.1"
_PASSWORD = "{{ lookup('ansible.builtin.file', fleet_node_secrets ~ '/users/api/password') }}"
# For one play, and for one module.
_PLAY_SECONDS, _MODULE_SECONDS = 900.0, 120.0
# The store's clock is known to a second, by its hosts and here.
_SLACK = 3.0
_PROMPT = 5.0
# The time of a decision is rounded to tenths of a second.
_ROUNDED = 0.05
# Processes on an emulated machine need seconds for what takes them milliseconds elsewhere.
_PATIENCE, _PAUSE = 60.0, 2.0
_CLOCK_READINGS = 5

T = TypeVar("T")


class State(NamedTuple):
    """What a machine's kernel has, and what the store declares; by source: begin, and seconds to the end."""

    kernel: dict[str, tuple[float, float]]
    store: dict[str, tuple[float, float]]

    def equal(self) -> int:
        """How many bans are in both, with the same end."""
        return sum(
            source in self.kernel and abs(self.kernel[source][1] - left) <= _SLACK
            for source, (_made, left) in self.store.items()
        )

    def latest(self) -> tuple[float, float]:
        """When the last ban was made, and when the last one has begun in the kernel; never if there is none."""
        made = max((made for made, _left in self.store.values()), default=0.0)
        return made, max((begun for begun, _left in self.kernel.values()), default=math.inf)

    def text(self) -> str:
        """How many bans the store and the kernel have in common, and how many only the kernel has."""
        extra = len(self.kernel.keys() - self.store.keys())
        return f"{self.equal()} of {len(self.store)}" + (f", {extra} too many" if extra else "")


class Clock(NamedTuple):
    """By how many seconds a machine's clock is ahead of this machine's, at least and at most."""

    least: float
    most: float

    def earliest(self, moment: float) -> float:
        """The earliest time of this machine's clock that a time of the machine's clock can be."""
        return moment - self.most

    def latest(self, moment: float) -> float:
        """The latest one."""
        return moment - self.least


class Memory:
    """The scenes. hosts: all machines; nodes: those of them that have the store."""

    def __init__(
        self, fleet: Fleet, inventory: Path, hosts: list[Machine], nodes: list[Machine]
    ) -> None:
        self._fleet = fleet
        self._inventory = inventory
        self._hosts = hosts
        self._nodes = nodes
        self.findings: list[Finding] = []
        self._account: list[str] = []

    def found(self) -> None:
        """Set up the store, and let the machines join when Packetwatch is installed on them."""
        members = {node.name: {"fleet_node_address": node.ipv4} for node in self._nodes}
        group = {"packetwatch_fleet_nodes": {"hosts": members}}
        (self._inventory / "fleet.json").write_text(json.dumps(group), encoding="utf-8")
        with (self._inventory / "group_vars/packetwatch.yml").open("a", encoding="utf-8") as file:
            file.write(fleet_variables())
        say(f"setting up the fleet's store on {_names(self._nodes)}: packetwatch.xdp.fleet")
        for row in play(
            self._fleet, "packetwatch.xdp.fleet", self._inventory, timeout=_PLAY_SECONDS
        ):
            say(f"    {row}")

    def act(self) -> None:
        """Decide, take the store away, bring it back, and note the results."""
        scanner = ipv4(self._fleet.topology.stations["scanner"])
        other = self._hosts[-1]
        banned = [scanner, *_ELSEWHERE]
        self._expect_followed(True, "")
        say(f"{self._nodes[0].name} bans scanner and {len(_ELSEWHERE)} other sources everywhere")
        self._decide(address=banned, duration="1h", reason="demo")
        states = self._expect_equal(len(banned), "has the fleet's bans in its kernel")
        self._expect_prompt(states)
        # The scanner has scanned another address of this machine, and is not banned at this one.
        visits: tuple[Visit, ...] = (
            ("scanner", other, other.ipv4, Answer.NONE),
            ("denied", other, other.ipv4, Answer.NONE),
            *(("client", host, host.ipv4, Answer.OPEN) for host in self._hosts),
        )
        self.findings += visit(self._fleet, *visits, note=", banned by the fleet")
        self._be_without_store(visits, states)
        say(f"{self._nodes[0].name} lifts the fleet's ban of scanner, and bans another source")
        self._decide(address=scanner, state="absent")
        self._decide(address=_NEXT, duration="1h", reason="demo")
        self._expect_equal(len(banned), "has the fleet's bans in its kernel again")
        back = ("scanner", other, other.ipv4, Answer.OPEN)
        self.findings += visit(self._fleet, back, note=", after the fleet's lift")

    def report(self) -> list[str]:
        """What took how long."""
        return ["", f"The fleet's store on {_names(self._nodes)}", *self._account]

    # Scenes

    def _decide(self, **options: object) -> None:
        given = options | {"password": _PASSWORD}
        module(self._inventory, self._nodes[0], "fleet_ban", given, timeout=_MODULE_SECONDS)

    def _be_without_store(self, visits: tuple[Visit, ...], before: dict[str, State]) -> None:
        say("all etcds stop")
        stopped = time.monotonic()
        self._switch("stop", "inactive")
        self._expect_followed(False, ", while it is away")
        self.findings += visit(self._fleet, *visits, note=", without the store")
        for host in self._hosts:
            wanted = before[host.name].kernel.keys()
            kept = wanted & _state(host, store=False).kernel.keys()
            text = f"{host.name} keeps the fleet's bans, without the store"
            expected = f"{len(wanted)} of {len(wanted)}"
            self.findings.append(Finding(text, expected, f"{len(kept)} of {len(wanted)}"))
        say("all etcds start")
        self._switch("start", "active")
        started = time.monotonic()
        self._expect_followed(True, ", after it is back")
        self._account += [
            f"  away for {started - stopped:.0f} s",
            f"  followed by all hosts {time.monotonic() - started:.0f} s after it is back",
        ]

    def _switch(self, verb: str, expected: str) -> None:
        for node in self._nodes:
            node.ssh(["systemctl", verb, _ETCD])
            seen = node.ssh(["systemctl", "is-active", _ETCD], check=False).stdout.strip()
            self.findings.append(Finding(f"etcd of {node.name}, after {verb}", expected, seen))

    # Results

    def _expect_followed(self, wanted: bool, note: str) -> None:
        """Wait until each host follows the store, or until it does not."""
        words = {True: "yes", False: "no"}
        for host in self._hosts:
            seen = _until(partial(_is_connected, host), lambda found: found is wanted)
            text = f"{host.name} follows the store{note}"
            self.findings.append(Finding(text, words[wanted], words[seen]))

    def _expect_equal(self, count: int, text: str) -> dict[str, State]:
        """Wait until each kernel has the bans of the store, of which there must be `count`."""
        expected = f"{count} of {count}"
        states = {}
        for host in self._hosts:
            found = _until(partial(_state, host, store=True), lambda it: it.text() == expected)
            states[host.name] = found
            self.findings.append(Finding(f"{host.name} {text}", expected, found.text()))
        return states

    def _expect_prompt(self, states: dict[str, State]) -> None:
        """Compare when the last ban was in each kernel with the time of the decision."""
        node = self._nodes[0]
        clocks = {machine.name: _clock(machine) for machine in {node, *self._hosts}}
        for host in self._hosts:
            made, begun = states[host.name].latest()
            seconds = clocks[host.name].latest(begun) - clocks[node.name].earliest(made - _ROUNDED)
            self._account.append(
                f"  {len(states[host.name].kernel)} bans: the last one is in the kernel of {host.name}"
                f" within {seconds:.2f} s of the decision"
            )
            limit = f"within {_PROMPT:g} s"
            seen = limit if seconds <= _PROMPT else f"within {seconds:.1f} s"
            self.findings.append(Finding(f"{host.name} has them after the decision", limit, seen))


def _names(machines: list[Machine]) -> str:
    return ", ".join(machine.name for machine in machines)


def _state(host: Machine, *, store: bool) -> State:
    """What a host has in its kernel. store: whether the host also asks the store."""
    script = _ON_HOST.read_text(encoding="utf-8")
    arguments = ["store"] if store else []
    return State(**json.loads(host.ssh(["python3", "-I", "-B", "-c", script, *arguments]).stdout))


def _is_connected(host: Machine) -> bool:
    """Whether the host's fleet process reports that it follows the store."""
    done = host.ssh(["packetwatchctl", "fleet", "--json"], check=False)
    result = json.loads(done.stdout)
    if "store" not in result:
        raise LabError(f"{host.name}: packetwatchctl fleet: {done.stderr.strip()}")
    return bool(result["store"]["connected"])


def _clock(machine: Machine) -> Clock:
    """Compare a machine's clock with this machine's, by the quickest of some answers."""
    readings = []
    for _reading in range(_CLOCK_READINGS):
        asked = time.time()
        seen = float(machine.ssh(["date", "+%s.%N"]).stdout)
        answered = time.time()
        readings.append((answered - asked, Clock(seen - answered, seen - asked)))
    return min(readings)[1]


def _until(read: Callable[[], T], is_good: Callable[[T], bool]) -> T:
    """Read again and again until the result is good; return the last one."""
    deadline = time.monotonic() + _PATIENCE
    while not is_good(found := read()) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return found
