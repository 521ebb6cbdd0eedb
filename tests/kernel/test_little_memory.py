# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A boot of a million entries in little memory: what it needs, and what a boot leaves that does not get it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from kernel.hosting import XDP_DROP, Site, install_library

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.programs import attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="loads programs"), pytest.mark.slow]

MIB = 1 << 20
ENTRIES = 1_000_000
# What docs/operations.md promises: beside the tables in the kernel.
LIMIT = 64 * MIB
# The maps that outlive programs, and the interpreter's files that no other process has mapped.
ATTACH = """
from packetwatch_core._host.boot import filter_interface
from packetwatch_core._base.paths import Paths
def run(argv, stdin):
    return 1, "", "no process is needed"
print(filter_interface(run, Paths(**{paths!r}), "pw0", 1.0).mode)
"""


class Group:
    """A control group with a limit of memory, which the kernel's maps count towards."""

    def __init__(self) -> None:
        old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/memory.max")
        rows = [row.split() for row in Path("/proc/self/mounts").read_text().splitlines()]
        unified = [Path(row[1]) for row in rows if row[2] == "cgroup2"]
        if (old / "memory.limit_in_bytes").exists():
            self.path, self._limit, self._peak = (
                old,
                "memory.limit_in_bytes",
                "memory.max_usage_in_bytes",
            )
        elif unified and "memory" in (unified[0] / "cgroup.subtree_control").read_text():
            self.path, self._limit, self._peak = unified[0], "memory.max", "memory.peak"
        else:
            pytest.skip(f"no control group limits memory here ({new})")
        self.path /= f"packetwatch-test-{os.getpid()}"

    def run(self, limit: int, argv: list[str], environment: dict[str, str]) -> tuple[int, str, int]:
        """Status, output and peak memory of a process in a new group with this limit."""
        self.path.mkdir()
        try:
            (self.path / self._limit).write_text(str(limit))
            join = f'echo $$ >{self.path}/cgroup.procs && exec "$@"'
            done = subprocess.run(
                ["sh", "-c", join, "sh", *argv],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            peak = int((self.path / self._peak).read_text())
        finally:
            self.path.rmdir()
        return done.returncode, done.stdout + done.stderr, peak


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lib")
    install_library(folder)
    return folder


@pytest.fixture(scope="module", params=[4, 6])
def full(standing: Site, request: pytest.FixtureRequest) -> tuple[Site, str]:
    """A host that denies a million random addresses of a family, and one of them."""
    chance = random.Random(7)
    numbers = chance.sample(range(1 << 24, 224 << 24), ENTRIES)
    if request.param == 4:
        rows = [socket.inet_ntoa(number.to_bytes(4, "big")) for number in numbers]
    else:
        rows = [f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1" for number in numbers]
    with standing.wire.host.entered():
        standing.settings(PW_LIST_MEMORY="128", PW_PROTECT_AUTO="0")
        standing.lists(deny="\n".join(rows), force=True)
    return standing, rows[0]


def boot(site: Site, library: Path, limit: int) -> tuple[int, str, int]:
    """Reboot, and filter the interface by a process that gets so much memory."""
    with site.wire.host.entered():
        if attached(socket.if_nametoindex("pw0")).program_id:
            site.power_off()
        argv = ["/usr/bin/python3", "-Ps", "-c", ATTACH.format(paths=site.paths_as_words())]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(library),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return Group().run(limit, argv, environment)


def tables(site: Site) -> int:
    """Bytes of the active tables in the kernel."""
    with site.wire.host.entered(), Loaded(site.host.pins) as loaded, loaded.generation() as current:
        return current.capacity * abi.PAGE


def test_a_boot_needs_little_beside_its_tables(full: tuple[Site, str], library: Path) -> None:
    site, denied = full
    status, output, peak = boot(site, library, 4 * LIMIT)
    assert status == 0, output
    size = tables(site)
    print(f"peak {peak / MIB:.1f} MiB, tables {size / MIB:.1f} MiB")
    status, output, peak = boot(site, library, size + LIMIT)
    assert status == 0, output
    assert tables(site) == size
    if ":" not in denied:
        with site.wire.host.entered():
            assert site.verdict(denied) == XDP_DROP


def test_a_boot_that_is_killed_leaves_nothing_and_the_next_one_filters(
    full: tuple[Site, str], library: Path
) -> None:
    """A part of the lists would be worse: without its allow list, a host drops what it must pass."""
    site, dummy = full
    for limit in (12 * MIB, 24 * MIB):
        status, output, _peak = boot(site, library, limit)
        # The kernel either kills the process or refuses a map.
        is_killed = status in (-signal.SIGKILL, 128 + signal.SIGKILL)
        assert is_killed or (status == 1 and "Cannot allocate memory" in output), output
        with site.wire.host.entered():
            assert not attached(socket.if_nametoindex("pw0")).program_id
    status, output, _peak = boot(site, library, 4 * LIMIT)
    assert status == 0, output
