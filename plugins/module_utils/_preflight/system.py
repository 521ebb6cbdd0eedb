# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The system that the role needs."""

from __future__ import annotations

import re
import typing as t

if t.TYPE_CHECKING:
    from .machine import Machine

_DEBIAN = ("12", "13")
_KERNEL = (6, 1)


def check_root(machine: Machine) -> t.Iterator[str]:
    """Whether this process may do what the role does."""
    if machine.uid != 0:
        yield f"the role needs root, but runs as the user {machine.uid}: set become: true for the play"


def check_system(machine: Machine) -> t.Iterator[str]:
    """What is wrong with distribution, kernel, systemd and bpffs."""
    yield from _check_distribution(machine)
    yield from _check_kernel(machine.release)
    if not machine.path("run/systemd/system").is_dir():
        yield (
            "systemd does not run as PID 1, and the role needs it for its units: without systemd use "
            "the modules packetwatch.xdp.program, policy and access_lists by themselves"
        )
    mounts = (line.split() for line in machine.lines("proc/mounts"))
    if not any(fields[1:3] == ["/sys/fs/bpf", "bpf"] for fields in mounts):
        yield "bpffs is not mounted at /sys/fs/bpf: mount -t bpf bpf /sys/fs/bpf"


def _check_distribution(machine: Machine) -> t.Iterator[str]:
    release = dict(
        line.replace('"', "").split("=", 1)
        for line in machine.lines("etc/os-release")
        if "=" in line
    )
    if release.get("ID") != "debian" or release.get("VERSION_ID") not in _DEBIAN:
        found = release.get("PRETTY_NAME") or release.get("ID") or "unknown"
        yield f"the system is {found}: Debian {' or '.join(_DEBIAN)} is needed"


def _check_kernel(release: str) -> t.Iterator[str]:
    number = re.match(r"(\d+)\.(\d+)", release)
    if number is None or (int(number[1]), int(number[2])) < _KERNEL:
        yield (
            f"the running kernel is {release}, and {_KERNEL[0]}.{_KERNEL[1]} or newer is needed: "
            "install Debian's kernel (linux-image-amd64 or linux-image-arm64) and reboot"
        )
