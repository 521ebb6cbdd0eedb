# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Hosts that share their bans, for `make demo FLEET=1`.

A further machine has the store. The scanner, which one host bans, is banned by the other host too. Bans
that a play decides reach the kernels of all hosts. Then the store is away for a while: everything goes on
filtering. After that, a ban is lifted and another one is made, and the kernels must equal the store again.
"""

from __future__ import annotations

import json
import math
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lab import observe
from lab.errors import LabError
from lab.finding import Finding, visit
from lab.play import fleet_variables, module, play
from lab.process import Progress, say
from lab.topology import NSPAWN, MachineSpec, ipv4
from lab.traffic import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.finding import Visit
    from lab.fleet import Fleet
    from lab.machine import Machine

# The store needs no kernel of its own, and in a container it starts while virtual machines boot.
NODE = MachineSpec("node", "trixie", 21, NSPAWN, ("packetwatch_fleet_nodes",))
# By default, a rule wants more hosts than the demo has.
_RULES = {"slow": {"action": "enforce", "hosts": 1, "probes": 4}}
_ETCD = "packetwatch-fleet-etcd.service"
_ON_HOST = Path(__file__).with_name("on_host.py")
# Networks for documentation and benchmarks; nobody in the lab has such an address.
_ELSEWHERE = [f"198.18.0.{number}" for number in range(1, 41)]
_ELSEWHERE += [f"2001:db8:0:{number}::1" for number in range(1, 11)]
_NEXT = "198.18.1.1"
_PASSWORD = (
    "{{ lookup('ansible.builtin.file', inventory_dir ~ '/.packetwatch-fleet/users/api/password') }}"
)
_MODULE_SECONDS = 600.0
# The store's clock is known to a second, by its hosts and here.
_SLACK = 3.0
# Hosts need less than a second, unless they are emulated on a busy computer.
_PROMPT = 60.0
# The time of a decision is rounded to tenths of a second.
_ROUNDED = 0.05
# Processes on an emulated machine need seconds for what takes them milliseconds elsewhere.
_PATIENCE, _PAUSE = 300.0, 1.0
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
    """The scenes. hosts: the machines that filter; the first one bans the scanner's IPv4 address."""

    def __init__(self, fleet: Fleet, inventory: Path, hosts: list[Machine]) -> None:
        self._fleet = fleet
        self._inventory = inventory
        self._hosts = hosts
        self._node = fleet.host(NODE.name)
        self.findings: list[Finding] = []
        self._account: list[str] = []

    def found(self) -> None:
        """Set up the store, and let the hosts join when Packetwatch is installed on them."""
        settings = {"fleet_node_address": self._node.ipv4, "fleet_node_rules": _RULES}
        group = {"packetwatch_fleet_nodes": {"hosts": {self._node.name: settings}}}
        (self._inventory / "fleet.json").write_text(json.dumps(group), encoding="utf-8")
        with (self._inventory / "group_vars/packetwatch.yml").open("a", encoding="utf-8") as file:
            file.write(fleet_variables())
        self._node.wait_ssh()
        say(f"setting up the fleet's store on {self._node.name}: packetwatch.xdp.fleet")
        for row in play(self._fleet, "packetwatch.xdp.fleet", self._inventory):
            say(f"    {row}")

    def expect_followed(self) -> None:
        """Wait until all hosts follow the store."""
        self._expect_followed(True, "")

    def expect_spread(self) -> None:
        """Compare when the first host has banned the scanner with the time of the ban in the last one's kernel."""
        first, last = self._hosts[0], self._hosts[-1]
        scanner = self._scanner
        logged = observe.ban(first, scanner, timeout=_PATIENCE)["@timestamp"]
        banned = datetime.fromisoformat(str(logged)).timestamp()
        what = f"the ban of {scanner}, made by {first.name}, is in the kernel of {last.name}"
        found = _until(
            f"waiting until {what}",
            partial(_state, last, store=False),
            lambda it: scanner in it.kernel,
        )
        seconds = math.inf
        if scanner in found.kernel:
            begun = _clock(last).latest(found.kernel[scanner][0])
            seconds = begun - _clock(first).earliest(banned)
        self._expect_seconds(what, seconds, "the fifth closed port")

    def act(self) -> None:
        """Decide, take the store away, bring it back, and note the results."""
        scanner = self._scanner
        other = self._hosts[-1]
        banned = [scanner, *_ELSEWHERE]
        say(f"a play bans scanner for an hour, and {len(_ELSEWHERE)} other sources, everywhere")
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
        say("a play lifts the fleet's ban of scanner, and bans another source")
        self._decide(address=scanner, state="absent")
        self._decide(address=_NEXT, duration="1h", reason="demo")
        self._expect_equal(len(banned), "has the fleet's bans in its kernel again")
        back = ("scanner", other, other.ipv4, Answer.OPEN)
        self.findings += visit(self._fleet, back, note=", after the fleet's lift")

    def report(self) -> list[str]:
        """What took how long."""
        return ["", f"The fleet's store on {self._node.name}", *self._account]

    @property
    def _scanner(self) -> str:
        return ipv4(self._fleet.topology.stations["scanner"])

    # Scenes

    def _decide(self, **options: object) -> None:
        given = options | {"password": _PASSWORD}
        module(self._inventory, self._node, "fleet_ban", given, timeout=_MODULE_SECONDS)

    def _be_without_store(self, visits: tuple[Visit, ...], before: dict[str, State]) -> None:
        say("all etcds stop: the fleet has one")
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
            f"  the store is away for {started - stopped:.0f} s",
            f"  all hosts follow it {time.monotonic() - started:.0f} s after it is back",
        ]

    def _switch(self, verb: str, expected: str) -> None:
        node = self._node
        node.ssh(["systemctl", verb, _ETCD])
        seen = node.ssh(["systemctl", "is-active", _ETCD], check=False).stdout.strip()
        self.findings.append(Finding(f"etcd of {node.name}, after {verb}", expected, seen))

    # Results

    def _expect_followed(self, wanted: bool, note: str) -> None:
        """Wait until each host follows the store, or until it does not."""
        words = {True: "yes", False: "no"}
        for host in self._hosts:
            text = f"{host.name} follows the store{note}"
            what = f"waiting until {host.name} {'follows' if wanted else 'misses'} the store"
            seen = _until(what, partial(_is_connected, host), lambda found: found is wanted)
            self.findings.append(Finding(text, words[wanted], words[seen]))

    def _expect_equal(self, count: int, text: str) -> dict[str, State]:
        """Wait until each kernel has the bans of the store, of which there must be `count`."""
        expected = f"{count} of {count}"
        states = {}
        for host in self._hosts:
            found = _until(
                f"waiting until {host.name} {text}",
                partial(_state, host, store=True),
                lambda it: it.text() == expected,
            )
            states[host.name] = found
            self.findings.append(Finding(f"{host.name} {text}", expected, found.text()))
        return states

    def _expect_prompt(self, states: dict[str, State]) -> None:
        """Compare when the last ban was in each kernel with the time of the decision."""
        decided = _clock(self._node)
        for host in self._hosts:
            made, begun = states[host.name].latest()
            seconds = _clock(host).latest(begun) - decided.earliest(made - _ROUNDED)
            what = f"the last one of {len(states[host.name].kernel)} bans is in the kernel of {host.name}"
            self._expect_seconds(what, seconds, "the play's decision")

    def _expect_seconds(self, what: str, seconds: float, after: str) -> None:
        self._account.append(f"  {what} within {seconds:.2f} s of {after}")
        limit = f"within {_PROMPT:g} s"
        seen = limit if seconds <= _PROMPT else f"within {seconds:.1f} s"
        self.findings.append(Finding(what, limit, seen))


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


def _until(what: str, read: Callable[[], T], is_good: Callable[[T], bool]) -> T:
    """Read again and again until the result is good; return the last one. what: printed as progress."""
    deadline = time.monotonic() + _PATIENCE
    with Progress("    ") as progress:
        progress.step(what)
        while not is_good(found := read()) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
    return found
