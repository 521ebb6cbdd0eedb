# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""A small fleet under attack: `make demo`, or `make demo KEEP=1` to look around afterwards.

Two machines with Debian 12 and 13 get Packetwatch by the playbook, with an inventory like a user's. Then
four stations connect to them: a client, a scanner, a denied source, and an allowed source that scans. The
results are compared with the expected ones. With FLEET=1, both machines share bans too: see `memory`.
Nothing has to happen within a short time, because emulated machines on a busy computer are slow.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab import observe
from lab.errors import LabError
from lab.finding import SERVED, Finding, family, table, visit
from lab.fleet import Fleet
from lab.memory import NODE, Memory
from lab.paths import RUNS
from lab.play import inventory, play, tool
from lab.process import require_root, say
from lab.topology import Topology, ipv4, ipv6
from lab.traffic import Answer, connect, scan

if TYPE_CHECKING:
    from lab.finding import Visit
    from lab.machine import Machine

_TOPOLOGY = Path(__file__).with_name("topologies") / "pair.toml"
# A hundred ports, of which one is served. Port 22 is left out.
_SCANNED = tuple(port for port in range(1, 102) if port != 22)
_CLOSED = len(_SCANNED) - 1
_SCAN_SECONDS = 120.0
_PATIENCE = 300.0


class Demo:
    """The scenes, on a fleet that is up."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._old, self._new = fleet.host("debian12"), fleet.host("debian13")
        self.machines = [self._old, self._new]
        self.findings: list[Finding] = []

    def serve(self) -> None:
        """Start a web server on each machine, to which stations connect."""
        server = ["python3", "-m", "http.server", "--bind", "::", "--directory", "/srv"]
        command = ["systemd-run", "-q", "--unit=web", *server, str(SERVED)]
        for machine in self.machines:
            machine.ssh(command)
        for machine in self.machines:
            _until_open(self._fleet, machine)

    def attack(self) -> None:
        """Let all stations connect and scan, and note the results."""
        old, new = self._old, self._new
        say("client, scanner and denied connect")
        self._visit(
            ("client", old, old.ipv4, Answer.OPEN),
            ("client", new, new.ipv6, Answer.OPEN),
            ("scanner", old, old.ipv4, Answer.OPEN),
            ("denied", old, old.ipv4, Answer.NONE),
            ("denied", old, old.ipv6, Answer.NONE),
            ("denied", new, new.ipv4, Answer.NONE),
            ("denied", new, new.ipv6, Answer.NONE),
        )
        say(f"scanner and allowed scan {len(_SCANNED)} ports each")
        attacks = (
            ("scanner", old, old.ipv4),
            ("scanner", new, new.ipv6),
            ("allowed", new, new.ipv4),
        )
        with ThreadPoolExecutor(len(attacks)) as pool:
            self.findings += pool.map(lambda attack: self._scan(*attack), attacks)
        number = self._fleet.topology.stations["scanner"]
        self._expect_ban(old, ipv4(number))
        self._expect_ban(new, ipv6(number))

    def compare(self, *, shared: bool) -> None:
        """Let stations connect again. shared: whether a ban of one machine is one of both."""
        old, new = self._old, self._new
        say("all but denied connect again")
        self._visit(
            ("scanner", old, old.ipv4, Answer.NONE),
            ("scanner", new, new.ipv6, Answer.NONE),
            # It has not scanned the other machine with this address.
            ("scanner", new, new.ipv4, Answer.NONE if shared else Answer.OPEN),
            ("allowed", new, new.ipv4, Answer.OPEN),
            ("client", old, old.ipv4, Answer.OPEN),
            ("client", new, new.ipv6, Answer.OPEN),
        )

    def report(self) -> str:
        """All results, and each machine's log and counters."""
        parts = ["Expected results, and what was seen", *table(self.findings)]
        for machine in self.machines:
            parts += ["", f"{machine.name}, from its log and its counters", *_account(machine)]
        return "\n".join(parts)

    def _visit(self, *visits: Visit) -> None:
        self.findings += visit(self._fleet, *visits)

    def _scan(self, who: str, machine: Machine, address: str) -> Finding:
        """Scan with nmap, and count the ports for which the machine answers that they are closed."""
        states = scan(self._fleet.station(who), address, _SCANNED, timeout=_SCAN_SECONDS)
        words = list(states.values())
        counts = ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words)))
        say(f"    nmap from {who} to {machine.name}: {counts or 'no result'}")
        closed = words.count("closed")
        if who == "allowed":
            expected, seen = f"for all {_CLOSED}", f"for all {closed}"
        else:
            # The fifth closed port within a minute bans the source.
            expected, seen = "for 1 to 4", "for 1 to 4" if 1 <= closed <= 4 else f"for {closed}"
        text = f"{machine.name} answers a scan of {who} by {family(address)} with closed"
        return Finding(text, expected, seen)

    def _expect_ban(self, machine: Machine, source: str) -> None:
        say(f"waiting until {machine.name} logs its ban of {source}")
        try:
            observe.ban(machine, source, timeout=_PATIENCE)
            seen = "logged"
        except LabError as error:
            say(str(error))
            seen = "not logged"
        text = f"{machine.name} bans scanner ({source})"
        self.findings.append(Finding(text, "logged", seen))


def _until_open(fleet: Fleet, machine: Machine) -> None:
    """Wait until the web server, which an emulated machine starts in seconds, listens."""
    say(f"waiting for the web server of {machine.name}")
    deadline = time.monotonic() + _PATIENCE
    while connect(fleet.station("client"), machine.ipv4, SERVED) is not Answer.OPEN:
        if time.monotonic() > deadline:
            raise LabError(f"{machine.name}: the web server did not come up")
        time.sleep(0.5)


def _account(machine: Machine) -> list[str]:
    """A machine's bans of scanners, the number of its other log lines, and its counters."""
    logged = observe.events(machine)
    rows = []
    for event in logged:
        # A ban without ports is none of a scan. There may be many of these.
        if event.get("event.action") == "ban" and event.get("packetwatch.ports"):
            ports = " ".join(str(port) for port in event["packetwatch.ports"])
            rows.append(
                f"  {event['@timestamp']}  ban of {event.get('packetwatch.prefix')}"
                f" after ports {ports}, until {event.get('packetwatch.expires')}"
            )
    actions = [str(event["event.action"]) for event in logged if "event.action" in event]
    counts = ", ".join(f"{actions.count(word)} {word}" for word in sorted(set(actions)))
    samples = observe.metrics(machine)
    packets = "packetwatch_packets_total"
    dropped = ", ".join(
        f"{observe.total(samples, packets, verdict='drop', reason=reason)} {reason}"
        for reason in ("deny", "scan", "ban")
    )
    attached = ", ".join(
        f"{sample.labels.get('interface')} ({sample.labels.get('mode')})"
        for sample in samples
        if sample.name == "packetwatch_attached" and sample.value == 1
    )
    rows += [
        f"  log lines: {counts}",
        f"  attached: {attached}",
        f"  packets passed: {observe.total(samples, packets, verdict='pass')}",
        f"  packets dropped: {dropped}",
    ]
    return rows


def _next_commands(fleet: Fleet, inventory_dir: Path, shares: bool) -> str:
    """Commands for a user who wants to look around in a fleet that was kept."""
    run_dir = fleet.run_dir
    ssh = shlex.join(["ssh", "-F", str(fleet.access.ssh_config), "debian12"])
    python = f"PYTHONPATH={shlex.quote(str(Path(__file__).resolve().parents[1]))} {sys.executable}"
    lab = f"{python} -m lab"
    collections = os.environ.get("ANSIBLE_COLLECTIONS_PATH", "")
    where = f"--dir {shlex.quote(str(run_dir))}"
    playbook = shlex.join([tool("ansible-playbook"), "-i", str(inventory_dir)])
    return "\n".join(
        [
            "The fleet is still up. To look around:",
            f"  {ssh}",
            f"  {ssh} journalctl -u packetwatch -o cat -f",
            f"  {ssh} curl -s http://127.0.0.1:9477/metrics",
            *([f"  {ssh} packetwatchctl fleet"] if shares else []),
            f"  {lab} shell {where} scanner nmap -n -Pn -p 1-20 10.77.0.12",
            f"  ANSIBLE_COLLECTIONS_PATH={shlex.quote(collections)} {playbook}"
            " packetwatch.xdp.site --check --diff",
            "To take it down:",
            f"  {lab} down {where}",
        ]
    )


def _show(run_dir: Path, keep: bool, shares: bool) -> int:
    if (run_dir / "lab.json").exists():
        say("taking down the fleet of an earlier demo")
        Fleet.open(run_dir).down()
    plan = Topology.load(_TOPOLOGY)
    if shares:
        plan = replace(plan, machines=plan.machines | {NODE.name: NODE})
    with Fleet(plan, run_dir) as fleet:
        try:
            return _run(fleet, shares)
        finally:
            if keep and fleet.access.ssh_config.exists():
                fleet.keep()
                print(_next_commands(fleet, fleet.run_dir / "inventory", shares), flush=True)


def _run(fleet: Fleet, shares: bool) -> int:
    fleet.up()
    demo = Demo(fleet)
    inventory_dir = inventory(fleet)
    memory = Memory(fleet, inventory_dir, demo.machines) if shares else None
    if memory:
        # The other machines boot meanwhile.
        memory.found()
    fleet.wait_ssh()
    demo.serve()
    say("installing Packetwatch: ansible-playbook packetwatch.xdp.site")
    for row in play(fleet, "packetwatch.xdp.site", inventory_dir):
        say(f"    {row}")
    if memory:
        memory.expect_followed()
    demo.attack()
    if memory:
        memory.expect_spread()
    demo.compare(shared=shares)
    if memory:
        memory.act()
        demo.findings += memory.findings
    print("\n".join(["", demo.report(), *(memory.report() if memory else []), ""]), flush=True)
    if failed := [finding for finding in demo.findings if not finding.good]:
        print(f"FAILED: {len(failed)} of {len(demo.findings)} results are not the expected ones")
        return 1
    print(f"All {len(demo.findings)} results are the expected ones")
    return 0


def _wants(variable: str) -> bool:
    return os.environ.get(variable) not in (None, "", "0")


def main() -> int:
    """Run the demo; return the process's exit status: 1 if a result is not the expected one."""
    parser = argparse.ArgumentParser(prog="lab.demo", description="A small fleet under attack.")
    parser.add_argument("--keep", action="store_true", help="leave the fleet running (or KEEP=1)")
    parser.add_argument("--fleet", action="store_true", help="hosts share bans too (or FLEET=1)")
    parser.add_argument("--dir", type=Path, default=RUNS / "demo", help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        require_root()
        return _show(
            arguments.dir, arguments.keep or _wants("KEEP"), arguments.fleet or _wants("FLEET")
        )
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
