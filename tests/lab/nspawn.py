# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""A machine that shares this machine's kernel: a container with systemd and sshd of its own.

It starts in a second and runs as fast as this machine. Its root file system is the image's folder under
a layer of its own. It has its own network, BPF file system and control groups. It shares the numbers of
BPF objects and the kernel's clock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.machine import Machine
from lab.process import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.image import Image
    from lab.network import Namespace

# Runs as the first process of a process namespace: when it ends, the kernel ends all other processes.
#
# /sys/fs/cgroup is mounted again, so that systemd-nspawn finds only the container's control groups there.
# Its notes about guests are in a tmpfs, which disappears with the container. Status 133 asks for a
# restart. The BPF file system is mounted again for each boot, because a reboot empties it.
_RUN = """
tree=$1 own=$2 namespace=$3 name=$4
cd "$own"
mount -t overlay -o "lowerdir=$tree,upperdir=upper,workdir=work" overlay root
[ -e root/etc/lab-seeded ] || tar -x -C root -f seed.tar
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
# bcc needs only uapi headers, and those of Debian's kernel fit the running kernel too.
headers=root/lib/modules/$(uname -r)
mkdir -p "$headers"
cp -Pn root/lib/modules/*/build root/lib/modules/*/source "$headers" 2>/dev/null || true
while
    mount -t bpf bpf bpf
    status=0
    systemd-nspawn --boot --quiet --directory=root --machine="$name" --settings=no \
        --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off \
        --console=pipe --network-namespace-path="$namespace" --bind="$own/bpf:/sys/fs/bpf" \
        --capability=CAP_BPF,CAP_NET_ADMIN,CAP_PERFMON,CAP_SYS_RESOURCE \
        --system-call-filter="bpf perf_event_open" || status=$?
    umount bpf
    [ "$status" -eq 133 ]
do :; done
exit "$status"
"""


class Container(Machine):
    """A guest of systemd-nspawn."""

    @classmethod
    def tools(cls) -> Mapping[str, str]:
        return {"systemd-nspawn": "systemd-container", "unshare": "util-linux"}

    # Files

    def create(self, image: Image, seed: bytes) -> None:
        """Make the folders of the layer and the mount points."""
        for name in ("upper", "work", "root", "bpf"):
            (self._directory / name).mkdir(parents=True)
        (self._directory / "seed.tar").write_bytes(seed)

    def discard(self) -> None:
        for path in self._directory.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self._console:
                path.unlink()

    # Power

    def start(self, image: Image) -> None:
        """Start systemd-nspawn in namespaces of its own; its output goes to the console's log."""
        groups = _cgroups(self._network.lab_id)
        if not groups:
            raise LabError("systemd-nspawn needs control groups of version 2; mount cgroup2")
        group = groups[0] / self.name
        group.mkdir(parents=True, exist_ok=True)
        own = str(self._directory)
        kinds = ("--mount", "--cgroup", "--pid", "--fork", "--kill-child", "--mount-proc")
        script = ("sh", "-euc", _RUN, "sh", str(image.tree), own, str(self._home.path), self.name)
        # The process enters the control group by this file; all that it starts belong to it too.
        join = ("sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs"))
        command = [*join, *self._home.inside(["unshare", *kinds, *script])]
        with self._console.open("ab") as console:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        while not self.running():
            if process.poll() is not None:
                raise LabError(f"{self.name}: does not start\n{self._last_words()}")
            time.sleep(0.05)
        say(f"{self.name}: switched on (systemd-nspawn)")

    def kill(self) -> None:
        self._home.vacate()

    def running(self) -> bool:
        return bool(self._home.pids())

    @property
    def _home(self) -> Namespace:
        """The network namespace of all its processes, and of no others."""
        return self._network.station(self.name)


def _cgroups(lab_id: str) -> list[Path]:
    """The control group of a lab's containers, in each mount of cgroup2."""
    rows = [row.split() for row in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
    return [Path(row[1]) / f"packetwatch-lab-{lab_id}" for row in rows if row[2] == "cgroup2"]


def remove_cgroups(lab_id: str) -> None:
    """Remove the control groups that a lab's containers have left; all containers must have ended."""
    for group in _cgroups(lab_id):
        for folder, _folders, _files in os.walk(group, topdown=False):
            Path(folder).rmdir()
