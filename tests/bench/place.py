# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bench's own mounts, namespaces and files, which disappear with its process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from kernel.hosting import Site, Wire, run

from bench import objects
from packetwatch_core._kernel.bytecode import Compiler
from packetwatch_core._kernel.source import flatten


class Place:
    """Makes filtered hosts; at the end of its context it closes what it has opened."""

    def __init__(self, folder: Path, open_: contextlib.ExitStack) -> None:
        self.folder = folder
        self.open = open_
        self.cache = folder / "cache"
        self.programs = objects.compiled(folder)
        self.impossible: dict[str, str] = {}
        """Why this machine cannot measure a case, by the case's name."""
        self._sites = 0

    def wire(self) -> Wire:
        """Make two namespaces and a veth pair, without a filter."""
        found = Wire()
        self.open.callback(found.close)
        return found

    def site(self, wire: Wire | None = None, **settings: str) -> Site:
        """Make a host with our filter on pw0, with its defaults: no lists, default policy."""
        wire = wire or self.wire()
        folder = self.folder / f"site{self._sites}"
        folder.mkdir()
        with wire.host.entered():
            found = Site(wire, folder, self.cache, self._sites)
            self._sites += 1
            self.open.callback(found.close)
            found.settings(PW_LIST_MEMORY="256", **settings)
            found.host.attach("pw0", "native")
        return found

    def bytecode_size(self) -> int:
        """Return the instructions of our program."""
        source = flatten(str(Path(__file__).parents[2] / "roles/packetwatch/files/bpf"))
        return len(Compiler(run, str(self.cache)).get(source).code) // 8


def private_mounts() -> None:
    """Take a mount namespace with a BPF file system of its own."""
    os.unshare(os.CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)


def end_in_order() -> None:
    """Let SIGTERM clean up as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_arguments: object) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def isolated() -> Iterator[Place]:
    """Take mounts of its own; at the end of the context all that was made disappears."""
    private_mounts()
    with tempfile.TemporaryDirectory(prefix="pwbench-") as name, contextlib.ExitStack() as open_:
        yield Place(Path(name), open_)


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Run on one processor only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def processors() -> tuple[int, int]:
    """Return the processor that measures, and one for consumers: the same if there is only one."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[-1], cpus[0]
