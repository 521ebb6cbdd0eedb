# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter at one end of a cable; both ends are in network namespaces of the tests.

One filter serves the session; each test finds it with empty maps, no lists and the policy
`POLICY`. A test's thread is in the namespace "host", at whose device v0 the filter is; `peer` is the
namespace at the other end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from kernel.datapath import GRACE, PORTS, Datapath, join, reaches, wait_for
from kernel.hosting import BPFFS, PREFIX, SOURCE, Namespace, ip, sweep

from packetwatch_core._base.paths import Paths
from packetwatch_core._kernel.pins import Pins

NUMBER = 1_000_000  # number of this folder of pins; sites number theirs from 0


@pytest.fixture(scope="session")
def bytecode_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, so that every source is compiled once."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture(scope="session")
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    """Namespaces "host" and "peer" with a cable of two queues between v0 and v1, not plugged in.

    Connected systems send neighbour discovery packets, which tests do not want to count.
    """
    if os.geteuid() != 0:
        pytest.skip("makes namespaces and loads programs")
    host, peer = Namespace(), Namespace()
    queues = "numrxqueues 2 numtxqueues 2"
    with host.entered():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        ip("link set lo up")
        ip(f"link add v0 {queues} type veth peer name v1 netns {peer.path} {queues}")
        join("v0", "10.77.0.1/24", "fd77::1/64")
    yield host, peer
    for namespace in (host, peer):
        namespace.close()


@pytest.fixture(scope="session")
def loaded_datapath(
    cable: tuple[Namespace, Namespace],
    tmp_path_factory: pytest.TempPathFactory,
    bytecode_cache: Path,
) -> Iterator[Datapath]:
    """The filter on v0, for all tests of the session."""
    host, peer = cable
    folder = tmp_path_factory.mktemp("datapath")
    sweep()
    paths = Paths(
        bpffs=str(BPFFS / f"{PREFIX}{os.getpid()}-{NUMBER}"),
        state=str(folder / "state"),
        cache=str(bytecode_cache),
        images=str(folder / "boot"),
        spared=str(folder / "spared"),
        clock=str(folder / "clock"),
        tables=str(folder / "known/tables.json"),
        source=str(SOURCE),
        settings=str(folder / "settings"),
        pending=str(folder / "pending"),
        runtime=str(folder / "systemd"),
        units=str(folder / "units"),
        status=str(folder / "run/status.json"),
    )
    (folder / "settings").write_text("PW_PROTECT_AUTO=0\n")
    former = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with host.entered():
            datapath = Datapath(host, peer, paths)
        yield datapath
        with host.entered():
            datapath.close()
        left = [str(path) for path in BPFFS.glob(f"{PREFIX}{os.getpid()}-*")]
        assert not left, f"pins were left behind: {left}"
    finally:
        signal.signal(signal.SIGTERM, former)
        Pins(paths.bpffs).remove()


@pytest.fixture(scope="module")
def plugged_in(loaded_datapath: Datapath) -> Iterator[None]:
    """Both ends of the cable are up and can reach each other."""
    with loaded_datapath.host_namespace.entered():
        loaded_datapath.reset()
    peer = loaded_datapath.peer_namespace
    with peer.entered():
        ip("link set lo up")
        join("v1", "10.77.0.2/24", "fd77::2/64")
        wait_for(lambda: reaches("10.77.0.1") and reaches("fd77::1"))
    yield
    with peer.entered():
        ip("link set v1 down")


@pytest.fixture
def datapath(loaded_datapath: Datapath) -> Iterator[Datapath]:
    """The filter in its initial state; the test runs in the host's namespace."""
    with loaded_datapath.host_namespace.entered():
        loaded_datapath.reset()
        yield loaded_datapath


@pytest.fixture
def closed(datapath: Datapath) -> Datapath:
    """The filter with a policy by which five closed ports are a scan; no port was ever seen open."""
    datapath.policy(scan_counts="closed", scan_ports=5, scan_grace=GRACE)
    keys = b"".join(port.to_bytes(4, sys.byteorder) for port in range(PORTS))
    datapath.maps["open_ports"].update_many(keys, bytes(8 * PORTS))
    return datapath


def _interrupt(*dummy: object) -> NoReturn:
    raise KeyboardInterrupt
