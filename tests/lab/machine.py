# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""One guest: its files, its QEMU process, and commands in it by ssh."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lab import guest, topology
from lab.errors import LabError
from lab.process import end, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.accelerator import Accelerator
    from lab.image import Image
    from lab.network import Namespace

BOOT_SECONDS = 240.0
_CONSOLE_LINES = 15

# No quiet: what the kernel says is the only trace of a guest that never answers. Warnings only,
# because every character on an emulated serial line costs.
_KERNEL_OPTIONS = (
    "root=/dev/vda rootfstype=ext4 rw net.ifnames=0 mitigations=off loglevel=5"
    " systemd.show_status=auto"
)


class Machine:
    """A guest of a lab. `directory` is its own; `ssh_config` knows it by its name."""

    def __init__(
        self, spec: topology.MachineSpec, directory: Path, ssh_config: Path, switch: Namespace
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.ipv4 = topology.ipv4(spec.address)
        self.ipv6 = topology.ipv6(spec.address)
        self.console = directory / "console.log"
        self._directory = directory
        self._disk = directory / "disk.qcow2"
        self._initrd = directory / "initrd"
        self._pid = directory / "pid"
        self._log = directory / "qemu.log"
        self._complaints = directory / "qemu.err"
        self._ssh_config = ssh_config
        self._switch = switch

    # Files

    def create(self, image: Image, seed: dict[str, tuple[str, int]]) -> None:
        """Make the machine's disk, an overlay of the image, and an initrd that carries its seed."""
        self._directory.mkdir(parents=True)
        backing = f"backing_file={image.disk},backing_fmt=raw"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", backing, str(self._disk)])
        initrd = image.initrd.read_bytes()
        # The kernel looks for a further archive at multiples of four only.
        padding = b"\0" * (-len(initrd) % 4)
        self._initrd.write_bytes(initrd + padding + guest.seed(seed))

    def discard(self) -> None:
        """Delete disk and initrd; the console's log stays."""
        for path in (self._disk, self._initrd, self._pid):
            path.unlink(missing_ok=True)

    # Power

    def start(self, image: Image, accelerator: Accelerator) -> None:
        """Switch it on; returns when QEMU runs, long before the guest answers.

        Raises LabError, with QEMU's own words, when it does not.
        """
        command = [*accelerator.command, *self._devices(image, accelerator.console)]
        # With a log of its own QEMU leaves its stderr alone when it goes to the background.
        with self._complaints.open("ab") as complaints:
            done = subprocess.run(
                self._switch.inside(command),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
            )
        if done.returncode != 0:
            raise LabError(f"{self.name}: QEMU does not start\n{self._last_words()}")

    def kill(self) -> None:
        """Cut its power; nothing happens if it is off."""
        try:
            pid = int(self._pid.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return
        end([pid], self._is_ours, patience=0.0)
        self._pid.unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether its QEMU process lives."""
        try:
            return self._is_ours(int(self._pid.read_text(encoding="ascii")))
        except (OSError, ValueError):
            return False

    def memory(self) -> int:
        """The resident memory of its QEMU process, in KiB; 0 if it is off."""
        try:
            pid = int(self._pid.read_text(encoding="ascii"))
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        except (OSError, ValueError):
            return 0
        return next(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmRSS"))

    def _is_ours(self, pid: int) -> bool:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return any(os.fsencode(self._disk) in argument for argument in arguments)

    def _devices(self, image: Image, console: str) -> list[str]:
        spec = self.spec
        queues, vectors = "", ""
        if spec.queues > 1:
            # Each pair takes two interrupts; one is for control, one for configuration.
            queues, vectors = f",queues={spec.queues}", f",mq=on,vectors={2 * spec.queues + 2}"
        return [
            *("-name", f"packetwatch-lab-{spec.name}"),
            *("-smp", str(spec.cpus), "-m", str(spec.memory)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-daemonize"),
            *("-pidfile", str(self._pid), "-D", str(self._log), "-d", "guest_errors"),
            *("-chardev", f"file,id=console,path={_escaped(self.console)},append=on"),
            *("-serial", "chardev:console"),
            *("-kernel", str(image.kernel), "-initrd", str(self._initrd)),
            *("-append", f"console={console} {_KERNEL_OPTIONS}"),
            *("-drive", f"if=virtio,format=qcow2,cache=unsafe,file={_escaped(self._disk)}"),
            *("-object", "rng-random,id=entropy,filename=/dev/urandom"),
            *("-device", "virtio-rng-pci,rng=entropy"),
            *("-netdev", f"tap,id=lab,ifname={spec.name},script=no,downscript=no{queues}"),
            *("-device", f"virtio-net-pci,netdev=lab,mac={mac(spec.address)},romfile={vectors}"),
        ]

    # Inside

    def ssh(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60.0,
        stdin: str | None = None,
        fresh: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest as root.

        Commands share one connection, except `fresh` ones, which prove that a new connection gets
        through. `timeout` is in seconds. Raises LabError as `process.run` does; status 255 is
        ssh's own.
        """
        options = ["-o", "ControlPath=none"] if fresh else []
        command = ["ssh", "-F", str(self._ssh_config), *options, self.name, shlex.join(argv)]
        return run(command, check=check, timeout=timeout, stdin=stdin)

    def wait_ssh(
        self, timeout: float = BOOT_SECONDS, *, give_up: threading.Event | None = None
    ) -> None:
        """Return once the guest answers by ssh, or another thread sets `give_up`.

        Raises LabError, with the end of its console, after `timeout` seconds or when its QEMU
        process has ended.
        """
        deadline = time.monotonic() + timeout
        while self.ssh(["true"], check=False, fresh=True, timeout=timeout).returncode != 0:
            if not self.running():
                raise LabError(f"{self.name}: QEMU ended\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: no ssh for {timeout:g} s\n{self._last_words()}")
            if give_up and give_up.is_set():
                return
            time.sleep(0.5)

    def reboot(self, timeout: float = BOOT_SECONDS) -> None:
        """Restart the guest's system in good order and wait until it answers again."""
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
                # It went down between the two questions.
                continue
        raise LabError(f"{self.name}: did not restart within {timeout:g} s\n{self._last_words()}")

    def boot_id(self, *, fresh: bool = False) -> str:
        """What the kernel calls this boot."""
        return self.ssh(["cat", "/proc/sys/kernel/random/boot_id"], fresh=fresh).stdout.strip()

    def hang_up(self) -> None:
        """Close the shared ssh connection: after a restart it would hang."""
        run(["ssh", "-F", str(self._ssh_config), "-O", "exit", self.name], check=False)

    def _last_words(self) -> str:
        """The ends of what QEMU and the guest's console said."""
        rows = []
        for path in (self._complaints, self.console):
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            rows += [f"{path}:", *text.splitlines()[-_CONSOLE_LINES:]]
        return "\n".join(rows)


def mac(number: int) -> str:
    """The hardware address of a machine's number."""
    return f"52:54:00:77:00:{number:02x}"


def _escaped(path: Path) -> str:
    """A path as a value in one of QEMU's comma-separated lists."""
    return str(path).replace(",", ",,")
