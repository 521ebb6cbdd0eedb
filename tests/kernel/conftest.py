# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter on one end of a cable, both ends in network namespaces of the tests' own.

One filter serves the session; each test finds it with empty maps, no lists and the policy
`POLICY`. A test's thread is in the namespace "host", at whose device v0 the filter is; `peer` is the
namespace at the other end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from kernel.datapath import Datapath, Namespace, command

from packetwatch_core._pins import Paths, Pins

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    """Namespaces "host" and "peer" with a cable of two queues between v0 and v1."""
    if os.geteuid() != 0:
        pytest.skip("makes namespaces and loads programs")
    former = signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, former)
        names = [f"pwtest-{os.getpid()}-{end}" for end in ("host", "peer")]
        ends = []
        for name in names:
            ends.append(Namespace(name))
            stack.callback(ends[-1].close)
        host, peer = ends
        queues = "numrxqueues 2 numtxqueues 2"
        command(
            f"ip -n {host.name} link add v0 {queues} type veth "
            f"peer name v1 netns {peer.name} {queues}"
        )
        for end, device, ipv4, ipv6 in (
            (host, "v0", "10.77.0.1/24", "fd77::1/64"),
            (peer, "v1", "10.77.0.2/24", "fd77::2/64"),
        ):
            command(f"ip -n {end.name} address add {ipv4} dev {device}")
            command(f"ip -n {end.name} address add {ipv6} dev {device} nodad")
            command(f"ip -n {end.name} link set {device} up")
        yield host, peer


@pytest.fixture(scope="session")
def loaded_datapath(
    cable: tuple[Namespace, Namespace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Datapath]:
    """The filter on v0, for all tests of the session."""
    host, peer = cable
    folder = tmp_path_factory.mktemp("packetwatch")
    paths = Paths(
        bpffs=f"/sys/fs/bpf/pwtest-{os.getpid()}",
        state=str(folder / "state"),
        cache=str(folder / "cache"),
        source=str(ROOT / "roles/packetwatch/files/bpf"),
        program=str(folder / "program.c"),
        settings=str(folder / "settings"),
    )
    (folder / "settings").write_text("PW_PROTECT_AUTO=0\n")
    try:
        with host.inside():
            datapath = Datapath(host, peer, paths)
        yield datapath
        with host.inside():
            datapath.close()
    finally:
        left = os.path.exists(paths.bpffs)
        shutil.rmtree(folder)
        Pins(paths.bpffs).remove()
    assert not left, f"{paths.bpffs} was left behind"


@pytest.fixture
def datapath(loaded_datapath: Datapath) -> Iterator[Datapath]:
    """The filter in its first state; the test runs in the host's namespace."""
    with loaded_datapath.host_namespace.inside():
        loaded_datapath.reset()
        yield loaded_datapath


def _interrupt(*dummy: object) -> NoReturn:
    raise KeyboardInterrupt
