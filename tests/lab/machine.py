# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""One host of a lab, virtual machine or container: its power, and commands in it by ssh."""

from __future__ import annotations

import shlex
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from lab import topology
from lab.errors import LabError
from lab.process import run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from lab.image import Image
    from lab.network import Network

# An emulated machine on a busy computer needs ten times as long as on an idle one.
BOOT_SECONDS = 600.0
_SSH_SECONDS = 300.0
_CONSOLE_LINES = 15


class Machine(ABC):
    """A host of a lab. directory: of this host alone. ssh_config: has an entry for the host's name."""

    def __init__(
        self, spec: topology.MachineSpec, directory: Path, ssh_config: Path, network: Network
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.ipv4 = topology.ipv4(spec.address)
        self.ipv6 = topology.ipv6(spec.address)
        self._directory = directory
        self._console = directory / "console.log"
        self._complaints = directory / "complaints.log"
        self._ssh_config = ssh_config
        self._network = network

    @classmethod
    @abstractmethod
    def tools(cls) -> Mapping[str, str]:
        """The commands that this kind of machine needs, with the Debian packages that contain them."""

    # Files

    @abstractmethod
    def create(self, image: Image, seed: bytes) -> None:
        """Make the machine's own files: a layer over the image, and the seed, which is a tar archive."""

    @abstractmethod
    def discard(self) -> None:
        """Delete the machine's files; the console's log stays."""

    # Power

    @abstractmethod
    def start(self, image: Image) -> None:
        """Switch it on. Does not wait until it answers. Raises LabError if it does not start."""

    @abstractmethod
    def kill(self) -> None:
        """Cut its power; nothing happens if it is off."""

    @abstractmethod
    def running(self) -> bool:
        """Whether it is on."""

    # Inside

    def ssh(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = _SSH_SECONDS,
        stdin: str | None = None,
        fresh: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine as root.

        Commands share one connection, except `fresh` ones, which prove that a new connection passes.
        timeout: seconds. Raises LabError like `process.run`; status 255 is ssh's own.
        """
        options = ["-o", "ControlPath=none"] if fresh else []
        command = ["ssh", "-F", str(self._ssh_config), *options, self.name, shlex.join(argv)]
        return run(command, check=check, timeout=timeout, stdin=stdin)

    def wait_ssh(
        self, timeout: float = BOOT_SECONDS, *, give_up: threading.Event | None = None
    ) -> None:
        """Wait until the machine answers by ssh, or another thread sets `give_up`.

        Raises LabError, with the last lines of its console, after `timeout` seconds or if the machine
        is off.
        """
        deadline = time.monotonic() + timeout
        while self.ssh(["true"], check=False, fresh=True, timeout=timeout).returncode != 0:
            if not self.running():
                raise LabError(f"{self.name} has ended\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: no ssh for {timeout:g} s\n{self._last_words()}")
            if give_up and give_up.is_set():
                return
            time.sleep(0.5)

    def reboot(self, timeout: float = BOOT_SECONDS) -> None:
        """Shut the machine down in order, start it, and wait until it answers again."""
        before = self.boot_id()
        self.ssh(["systemctl", "reboot"], check=False)
        self.hang_up()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            time.sleep(1.0)
            self.wait_ssh(max(1.0, deadline - time.monotonic()))
            try:
                if self.boot_id(fresh=True) != before:
                    return
            except LabError:
                # It shut down between the two commands.
                continue
        raise LabError(f"{self.name}: did not restart within {timeout:g} s\n{self._last_words()}")

    def boot_id(self, *, fresh: bool = False) -> str:
        """The kernel's id of this boot."""
        return self.ssh(["cat", "/proc/sys/kernel/random/boot_id"], fresh=fresh).stdout.strip()

    def hang_up(self) -> None:
        """Close the shared ssh connection, which would hang after a restart."""
        run(["ssh", "-F", str(self._ssh_config), "-O", "exit", self.name], check=False)

    def _last_words(self) -> str:
        """The last lines of the program that runs the machine, and of the machine's console."""
        rows = []
        for path in (self._complaints, self._console):
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            rows += [f"{path}:", *text.splitlines()[-_CONSOLE_LINES:]]
        return "\n".join(rows)
