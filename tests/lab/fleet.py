# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""A whole lab: bring it up, use it, and remove it completely.

with Fleet(Topology.load(path), run_dir) as fleet:
    fleet.up()
    fleet.wait_ssh()
    fleet.host("debian12").ssh(["uname", "-r"])
    fleet.run_in("client", ["ping", "-c1", "10.77.0.11"])
"""

from __future__ import annotations

import atexit
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lab import image, state
from lab.access import Access
from lab.errors import LabError
from lab.machine import BOOT_SECONDS, Machine
from lab.network import Namespace, Network
from lab.nspawn import Container, remove_cgroups
from lab.paths import IMAGES
from lab.process import Progress, require, require_root, run, say
from lab.topology import CONTROLLER, NSPAWN, VM, Topology
from lab.vm import VirtualMachine

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path
    from types import FrameType, TracebackType

_TOOLS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
_KINDS: dict[str, type[Machine]] = {VM: VirtualMachine, NSPAWN: Container}


class Fleet:
    """A lab in a run directory.

    As a context manager it takes the lab down at the end, also on SIGTERM, SIGHUP and Ctrl-C, unless
    `keep` was called. After SIGKILL, `collect` (`python -m lab gc`) takes it down.
    """

    def __init__(self, plan: Topology, run_dir: Path, *, cache: Path = IMAGES) -> None:
        """A lab that does not exist yet; `run_dir` must hold no other."""
        self._attach(state.State.new(plan), run_dir, cache)

    @classmethod
    def open(cls, run_dir: Path, *, cache: Path = IMAGES) -> Fleet:
        """The lab that is up in a run directory; raises LabError if there is none."""
        self = cls.__new__(cls)
        self._attach(state.State.read(run_dir), run_dir, cache)
        return self

    def _attach(self, facts: state.State, run_dir: Path, cache: Path) -> None:
        self._state = facts
        self._cache = cache
        self.topology = facts.topology
        self.run_dir = run_dir.resolve()
        self.network = Network(facts.lab_id)
        self.access = Access(facts.lab_id, self.run_dir, state.registered(facts.lab_id))
        self.hosts = {
            spec.name: _KINDS[spec.kind](
                spec,
                self.run_dir / "machines" / spec.name,
                self.access.ssh_config,
                self.network,
            )
            for spec in facts.topology.machines.values()
        }
        self._signals: dict[int, object] = {}

    # Life

    def up(self) -> None:
        """Build missing images, make network and machines and switch the machines on.

        Raises LabError if a tool is missing or a step fails; the caller must then take the lab down. The
        machines are booting when this returns: see `wait_ssh`.
        """
        require_root()
        tools = dict(_TOOLS)
        for machine in self.hosts.values():
            tools.update(machine.tools())
        require(tools)
        collect()
        suites = [machine.spec.suite for machine in self.hosts.values()]
        images = image.ensure(suites, self._cache)
        self._claim()
        plan = self.topology
        seeds = self.access.create(plan, self.network.station(CONTROLLER))
        self.network.up(plan)
        for machine in self.hosts.values():
            machine.create(images[machine.spec.suite], seeds[machine.name])
            machine.start(images[machine.spec.suite])

    def wait_ssh(self, timeout: float = BOOT_SECONDS) -> None:
        """Wait until all machines answer by ssh; raises LabError after `timeout` seconds."""
        began = time.monotonic()
        give_up = threading.Event()

        def wait(machine: Machine) -> None:
            try:
                machine.wait_ssh(timeout, give_up=give_up)
            except LabError:
                give_up.set()
                raise
            if not give_up.is_set():
                say(f"{machine.name}: answers after {time.monotonic() - began:.0f} s")

        with Progress("") as progress, ThreadPoolExecutor(max_workers=len(self.hosts)) as pool:
            progress.step("waiting until the machines have booted and answer by ssh")
            list(pool.map(wait, self.hosts.values()))

    def down(self) -> None:
        """End all processes and delete all namespaces and disks; console logs stay.

        It removes whatever exists, so it can be called at any time and repeatedly.
        """
        _clear(self._state.lab_id)
        for machine in self.hosts.values():
            machine.discard()
        self.access.discard()
        state.forget(self.run_dir)

    def keep(self) -> None:
        """Let the lab stay after this process, until a user takes it down."""
        self._state = self._state.kept()
        self._state.write(self.run_dir)

    # Use

    def host(self, name: str) -> Machine:
        """A machine by name; raises LabError if there is none."""
        try:
            return self.hosts[name]
        except KeyError:
            raise LabError(f"no machine {name}; choose from {', '.join(self.hosts)}") from None

    def station(self, name: str) -> Namespace:
        """A station by name; raises LabError if there is none."""
        if name not in self.topology.stations:
            known = ", ".join(self.topology.stations)
            raise LabError(f"no station {name}; choose from {known}")
        return self.network.station(name)

    def run_in(
        self, station: str, argv: Sequence[str], *, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a station. timeout: seconds. Raises LabError like `process.run`."""
        return run(self.station(station).inside(argv), check=check, timeout=timeout)

    def power_cycle(self, name: str, timeout: float = BOOT_SECONDS) -> None:
        """Cut a machine's power, switch it on again and wait until it answers by ssh."""
        machine = self.host(name)
        machine.hang_up()
        machine.kill()
        machine.start(image.ensure([machine.spec.suite], self._cache)[machine.spec.suite])
        machine.wait_ssh(timeout)

    # Inside

    def _claim(self) -> None:
        """Record the lab before anything of it exists."""
        if (self.run_dir / "lab.json").exists():
            raise LabError(
                f"a lab is already up in {self.run_dir}; take it down: lab down --dir {self.run_dir}"
            )
        machines = self.run_dir / "machines"
        if machines.exists():
            shutil.rmtree(machines)
        self.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._state.write(self.run_dir)
        state.register(self._state.lab_id, self.run_dir)

    def __enter__(self) -> Fleet:
        atexit.register(self._leave)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._signals[number] = signal.signal(number, _exit)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A second Ctrl-C must not stop the removal.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._leave()
        finally:
            signal.signal(signal.SIGINT, before)
            for number, handler in self._signals.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            atexit.unregister(self._leave)

    def _leave(self) -> None:
        if self._state.owner is not None and state.registered(self._state.lab_id).exists():
            self.down()
            say("lab taken down")


def collect() -> None:
    """Take down all labs whose owner has ended, or whose run directory has disappeared."""
    for lab_id, run_dir in state.labs():
        if run_dir is None:
            say(f"lab {lab_id}: its run directory is gone, taking it down")
            _clear(lab_id)
        elif state.State.read(run_dir).abandoned():
            say(f"lab {lab_id}: its owner has ended, taking it down")
            Fleet.open(run_dir).down()


def take_down_below(folder: Path) -> None:
    """Take down all labs whose run directory is in a folder, also kept ones and those in use."""
    collect()
    for lab_id, run_dir in state.labs():
        if run_dir and run_dir.is_relative_to(folder.resolve()):
            say(f"lab {lab_id}: taking it down, because {folder} is removed")
            Fleet.open(run_dir).down()


def _clear(lab_id: str) -> None:
    """End the processes in a lab's namespaces, and delete the namespaces."""
    _end_ssh(lab_id)
    network = Network(lab_id)
    for namespace in network.existing():
        namespace.vacate()
    network.down()
    remove_cgroups(lab_id)
    state.unregister(lab_id)


def _end_ssh(lab_id: str) -> None:
    """Close the shared connections of ssh, whose processes are outside the namespaces."""
    for socket in state.registered(lab_id).glob("*"):
        if socket.is_socket():
            run(
                ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "lab"],
                check=False,
            )


def _exit(number: int, frame: FrameType | None) -> None:
    """Exit from a signal handler by an exception, so that context managers run."""
    sys.exit(128 + number)
