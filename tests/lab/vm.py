# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""A machine with a kernel of its own: its disk, and its QEMU process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from lab import accelerator, guest, topology
from lab.errors import LabError
from lab.machine import Machine
from lab.process import end, run, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.image import Image
    from lab.network import Network

# No `quiet`, because the kernel's messages are the only trace of a guest that never answers. Warnings
# only, because every character on an emulated serial line takes time.
_KERNEL_OPTIONS = (
    "root=/dev/vda rootfstype=ext4 rw net.ifnames=0 mitigations=off loglevel=5"
    " systemd.show_status=auto"
)


class VirtualMachine(Machine):
    """A guest of QEMU."""

    def __init__(
        self, spec: topology.MachineSpec, directory: Path, ssh_config: Path, network: Network
    ) -> None:
        super().__init__(spec, directory, ssh_config, network)
        self._disk = directory / "disk.qcow2"
        self._initrd = directory / "initrd"
        self._pid = directory / "pid"
        self._log = directory / "qemu.log"

    @classmethod
    def tools(cls) -> Mapping[str, str]:
        board = accelerator.board()
        return {board.emulator: board.package, "qemu-img": "qemu-utils"}

    # Files

    def create(self, image: Image, seed: bytes) -> None:
        """Make the machine's disk, an overlay of the image, and an initrd that carries its seed."""
        self._directory.mkdir(parents=True)
        backing = f"backing_file={image.disk},backing_fmt=raw"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", backing, str(self._disk)])
        initrd = image.initrd.read_bytes()
        # The kernel searches for a further archive only at multiples of four.
        padding = b"\0" * (-len(initrd) % 4)
        self._initrd.write_bytes(initrd + padding + guest.archive_for_initrd(seed))

    def discard(self) -> None:
        """Delete disk and initrd; the console's log stays."""
        for path in (self._disk, self._initrd, self._pid):
            path.unlink(missing_ok=True)

    # Power

    def start(self, image: Image) -> None:
        """Start QEMU; raises LabError, with QEMU's output, if it does not start."""
        chosen = accelerator.choose(image)
        command = [*chosen.command, *self._devices(image, chosen.console)]
        # QEMU has a log of its own, so it writes only its start to stderr.
        with self._complaints.open("ab") as complaints:
            done = subprocess.run(
                self._network.switch.inside(command),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
            )
        if done.returncode != 0:
            raise LabError(f"{self.name}: QEMU does not start\n{self._last_words()}")
        say(f"{self.name}: switched on ({chosen.name})")

    def kill(self) -> None:
        """Cut its power; nothing happens if it is off."""
        try:
            pid = int(self._pid.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return
        end([pid], self._is_ours, patience=0.0)
        self._pid.unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether its QEMU process is running."""
        try:
            return self._is_ours(int(self._pid.read_text(encoding="ascii")))
        except (OSError, ValueError):
            return False

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
            # Each pair needs two interrupts; control and configuration need one each.
            queues, vectors = f",queues={spec.queues}", f",mq=on,vectors={2 * spec.queues + 2}"
        return [
            *("-name", f"packetwatch-lab-{spec.name}"),
            *("-smp", str(spec.cpus), "-m", str(spec.memory)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-daemonize"),
            *("-pidfile", str(self._pid), "-D", str(self._log), "-d", "guest_errors"),
            *("-chardev", f"file,id=console,path={_escaped(self._console)},append=on"),
            *("-serial", "chardev:console"),
            *("-kernel", str(image.kernel), "-initrd", str(self._initrd)),
            *("-append", f"console={console} {_KERNEL_OPTIONS}"),
            *("-drive", f"if=virtio,format=qcow2,cache=unsafe,file={_escaped(self._disk)}"),
            *("-object", "rng-random,id=entropy,filename=/dev/urandom"),
            *("-device", "virtio-rng-pci,rng=entropy"),
            *("-netdev", f"tap,id=lab,ifname={spec.name},script=no,downscript=no{queues}"),
            *(
                "-device",
                f"virtio-net-pci,netdev=lab,mac={topology.mac(spec.address)},romfile={vectors}",
            ),
        ]


def _escaped(path: Path) -> str:
    """A path as a value in one of QEMU's comma-separated lists."""
    return str(path).replace(",", ",,")
