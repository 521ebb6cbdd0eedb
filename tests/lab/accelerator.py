# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""How this machine runs guests: with KVM if that boots a guest, otherwise by emulation (TCG).

It is not enough that /dev/kvm exists: under some hypervisors it opens, but a stock kernel then hangs. So
the lab boots a guest's kernel once, for some seconds. The result is kept until this machine reboots.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.paths import REGISTRY
from lab.process import end, say

if TYPE_CHECKING:
    from lab.image import Image

_PROBE_SECONDS = 12.0
# The kernel writes this when it has started and runs the first process.
_ALIVE = b"Run /init"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ANSWER = REGISTRY / ".kvm"
_DEVICE = "/dev/kvm"


@dataclass(frozen=True)
class _Board:
    """The differences between the architectures that the lab supports."""

    emulator: str
    package: str
    machine: str
    emulated_cpu: str
    console: str


# Emulation makes fast string instructions slow. Without erms and fsrm the guest uses other instructions.
_EMULATED_X86 = "max,-cx16,-erms,-fsrm"

_BOARDS = {
    "x86_64": _Board(
        "qemu-system-x86_64", "qemu-system-x86", "q35,sata=off,smbus=off", _EMULATED_X86, "ttyS0"
    ),
    "aarch64": _Board(
        "qemu-system-aarch64", "qemu-system-arm", "virt,gic-version=max", "max,pauth=off", "ttyAMA0"
    ),
}


@dataclass(frozen=True)
class Accelerator:
    """The start of QEMU's command line, and the guest's serial console."""

    name: str
    command: tuple[str, ...]
    console: str


def board() -> _Board:
    """This machine's board; raises LabError for an unsupported architecture."""
    try:
        return _BOARDS[platform.machine()]
    except KeyError:
        raise LabError(
            f"{platform.machine()} is not supported; run the lab on x86_64 or aarch64"
        ) from None


def choose(image: Image) -> Accelerator:
    """KVM or TCG, and then say why; PACKETWATCH_LAB_ACCEL (`kvm` or `tcg`) decides without a probe."""
    wish = os.environ.get("PACKETWATCH_LAB_ACCEL")
    if wish not in (None, "", "kvm", "tcg"):
        raise LabError(f"PACKETWATCH_LAB_ACCEL is {wish!r}; write kvm or tcg")
    if wish == "tcg":
        return _tcg()
    why = "" if wish == "kvm" else _kvm_fails(image)
    if why:
        _say_once(f"machines are emulated, which is slow, without KVM: {why}")
    return _tcg() if why else _kvm()


@cache
def _say_once(text: str) -> None:
    say(text)


def _kvm() -> Accelerator:
    it = board()
    command = (it.emulator, "-machine", it.machine, "-accel", "kvm", "-cpu", "host")
    return Accelerator("kvm", command, it.console)


def _tcg() -> Accelerator:
    it = board()
    # The default translation cache would take a quarter of this machine's memory per guest.
    accel = "tcg,thread=multi,tb-size=128"
    command = (it.emulator, "-machine", it.machine, "-accel", accel, "-cpu", it.emulated_cpu)
    return Accelerator("tcg", command, it.console)


def _kvm_fails(image: Image) -> str:
    """Why KVM cannot be used; empty if it boots a guest."""
    try:
        # Only this asks the kernel: in a container, root may not open what its mode allows it to.
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return (
            f"there is no {_DEVICE}: the processor's virtualisation is off, or this is a guest without "
            "nested virtualisation"
        )
    except OSError as error:
        return f"{_DEVICE} cannot be opened: {error.strerror}"
    boot = _BOOT_ID.read_text(encoding="ascii").strip()
    try:
        known_boot, answer = _ANSWER.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        known_boot, answer = "", ""
    if known_boot != boot:
        say("probing whether KVM boots a guest")
        answer = "yes" if _probe(image) else "no"
        say(f"KVM boots a guest: {answer}")
        _ANSWER.parent.mkdir(parents=True, exist_ok=True)
        fresh = _ANSWER.with_name(f".kvm-{os.getpid()}")
        fresh.write_text(f"{boot} {answer}\n", encoding="ascii")
        fresh.replace(_ANSWER)
    if answer == "yes":
        return ""
    return (
        f"{_DEVICE} opens, but a guest's kernel did not start within {_PROBE_SECONDS:g} s "
        f"(probed once a boot; remove {_ANSWER} to probe again)"
    )


def _probe(image: Image) -> bool:
    """Boot kernel and initrd, with no disk and no network, until the kernel starts a process."""
    guest = _kvm()
    with tempfile.TemporaryFile() as console:
        command = [
            *guest.command,
            *("-m", "512", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", f"console={guest.console} panic=-1"),
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + _PROBE_SECONDS
            while time.monotonic() < deadline and process.poll() is None:
                console.seek(0)
                if _ALIVE in console.read():
                    return True
                time.sleep(0.2)
            return False
        finally:
            end([process.pid], lambda pid: pid == process.pid)
            process.wait()
