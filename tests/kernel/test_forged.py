# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scans with forged sources: which victims cannot be cut off, and how long others can be.

The forger and the victims are at the same end of the cable, where any source address can be used.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6

import pytest
from kernel.datapath import Datapath, difference, join, listening
from kernel.hosting import ip
from kernel.packets import HOST4, HOST6, syn4, syn6

from packetwatch_core._kernel import abi

pytestmark = pytest.mark.usefixtures("plugged_in")

THRESHOLD = 5
RESOLVER, GATEWAY, CONTROLLER, OTHER = (f"10.77.0.{number}" for number in (53, 254, 22, 99))
RESOLVER6 = "fd77::53"
SERVICE = 8700
SSH = 22
ETH_P_ALL = 3


@pytest.fixture(autouse=True)
def others(closed: Datapath) -> Iterator[None]:
    """More addresses at the peer's end, and the default policy: five closed ports."""
    with closed.peer():
        join("v1", *(f"{address}/24" for address in (RESOLVER, GATEWAY, CONTROLLER, OTHER)))
        join("v1", f"{RESOLVER6}/64")
    yield
    with closed.peer():
        for address in (RESOLVER, GATEWAY, CONTROLLER, OTHER):
            ip(f"address delete {address}/24 dev v1")
        ip(f"address delete {RESOLVER6}/64 dev v1")


def forge(datapath: Datapath, source: str, count: int = 3 * THRESHOLD) -> None:
    """Send SYNs from a source to `count` closed ports, from the other end of the cable."""
    make = syn6 if ":" in source else syn4
    frames = [make(source, port) for port in range(3000, 3000 + count)]
    before = sum(datapath.cells().values())
    with datapath.peer(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as device:
        device.bind(("v1", ETH_P_ALL))
        for frame in frames:
            device.send(frame)
    deadline = time.monotonic() + 10
    while sum(datapath.cells().values()) < before + count:
        assert time.monotonic() < deadline


def reaches_host(
    datapath: Datapath, source: str, port: int = SERVICE, patience: float = 0.5
) -> bool:
    """Return whether a source at the peer's end gets an answer from the host."""
    target = HOST6 if ":" in source else HOST4
    with datapath.peer(), contextlib.suppress(OSError):
        socket.create_connection((target, port), patience, source_address=(source, 0)).close()
        return True
    return False


def host_reaches(datapath: Datapath, target: str, patience: float = 2) -> bool:
    """Return whether the host can open a connection to an address and gets an answer."""
    with contextlib.ExitStack() as stack:
        with datapath.peer():
            family = AF_INET6 if ":" in target else AF_INET
            server = stack.enter_context(socket.create_server((target, SERVICE), family=family))
        try:
            client = stack.enter_context(socket.create_connection((target, SERVICE), patience))
        except OSError:
            return False
        answering, dummy = server.accept()
        with answering:
            answering.sendall(b"answer")
        client.settimeout(patience)
        return client.recv(6) == b"answer"


@contextlib.contextmanager
def replaced(path: str, text: str, folder: Path) -> Iterator[None]:
    """Replace the text of a system file, for this process only."""
    (folder / "text").write_text(text)
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    here = Path.cwd()
    try:
        os.unshare(os.CLONE_NEWNS)
        mount("--make-rprivate", "/")
        if Path(path).exists():
            mount("--bind", str(folder / "text"), path)
        yield
    finally:
        os.setns(before, os.CLONE_NEWNS)
        os.close(before)
        os.chdir(here)


def mount(*arguments: str) -> None:
    assert os.spawnlp(os.P_WAIT, "mount", "mount", *arguments) == 0


@contextlib.contextmanager
def protected_resolver(datapath: Datapath, folder: Path, address: str) -> Iterator[None]:
    with replaced("/etc/resolv.conf", f"nameserver {address}\n", folder):
        datapath.protect(auto=True)
    yield


@contextlib.contextmanager
def protected_gateway(datapath: Datapath, folder: Path, address: str) -> Iterator[None]:
    ip(f"route add default via {address}")
    try:
        datapath.protect(auto=True)
        yield
    finally:
        ip("route delete default")


@contextlib.contextmanager
def protected_controller(datapath: Datapath, folder: Path, address: str) -> Iterator[None]:
    """A client that is logged in by SSH."""
    with socket.create_server((HOST4, SSH)):
        with datapath.peer():
            session = socket.create_connection((HOST4, SSH), 5, source_address=(address, 0))
        with session:
            # Simulate a host on which logind does not know of logins: this client has not really logged in.
            with replaced("/etc/pam.d/common-session", "", folder):
                datapath.protect(auto=True)
            yield


Protected = Callable[[Datapath, Path, str], contextlib.AbstractContextManager[None]]
PROTECTED: dict[str, tuple[Protected, str]] = {
    "resolver": (protected_resolver, RESOLVER),
    "resolver, IPv6": (protected_resolver, RESOLVER6),
    "gateway": (protected_gateway, GATEWAY),
    "controller": (protected_controller, CONTROLLER),
}


@pytest.mark.parametrize("scope", ["connections", "all"])
@pytest.mark.parametrize("who", PROTECTED)
def test_whom_the_host_needs_is_never_cut_off(
    closed: Datapath, tmp_path: Path, who: str, scope: str
) -> None:
    protect, source = PROTECTED[who]
    closed.policy(scan_counts="closed", scan_ports=THRESHOLD, scan_grace=1, ban_scope=scope)
    family = AF_INET6 if ":" in source else AF_INET
    with protect(closed, tmp_path, source), listening(family, "", SERVICE):
        closed.events()
        before = closed.counters()
        forge(closed, source)
        assert sum(closed.counters()["scans"]) - sum(before["scans"]) == 3
        alerts = [event for event in closed.events() if event["type"] == abi.EVENT_BAN]
        assert alerts
        assert all(alert["flags"] & abi.EVENT_PROTECTED for alert in alerts)
        assert not closed.banned()
        assert reaches_host(closed, source, patience=2)
        assert host_reaches(closed, source)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["connections", "all"])
def test_a_declared_deny_of_a_protected_source_drops(
    closed: Datapath, tmp_path: Path, scope: str
) -> None:
    closed.policy(scan_counts="closed", scan_ports=THRESHOLD, scan_grace=1, ban_scope=scope)
    with protected_gateway(closed, tmp_path, GATEWAY), listening(AF_INET, "", SERVICE):
        closed.lists(deny=[GATEWAY])
        before = closed.cells()
        forge(closed, GATEWAY)
        assert difference(closed.cells(), before)["drop deny ipv4"] >= 3 * THRESHOLD
        assert not reaches_host(closed, GATEWAY)
        assert not host_reaches(closed, GATEWAY, patience=0.5)


def test_what_the_host_opens_survives_the_ban_of_whom_a_forger_names(closed: Datapath) -> None:
    forge(closed, OTHER)
    assert closed.banned() == {OTHER}
    assert host_reaches(closed, OTHER)


def test_with_scope_all_it_does_not(closed: Datapath) -> None:
    closed.policy(scan_counts="closed", scan_ports=THRESHOLD, scan_grace=1, ban_scope="all")
    forge(closed, OTHER)
    assert closed.banned() == {OTHER}
    assert not host_reaches(closed, OTHER, patience=0.5)


@pytest.mark.slow
def test_an_honest_client_gets_in_again_after_one_ban_time(closed: Datapath) -> None:
    ban_time = 2
    closed.policy(scan_counts="closed", scan_ports=THRESHOLD, scan_grace=1, ban_time=ban_time)
    with listening(AF_INET, HOST4, SERVICE):
        assert reaches_host(closed, OTHER)
        forge(closed, OTHER)
        ban = closed.ban_of(OTHER)
        assert ban is not None and ban.expires - ban.since == ban_time * 10**9
        assert not reaches_host(closed, OTHER)
        # The client's own attempts do not prolong the ban.
        while time.monotonic_ns() < ban.expires:
            reaches_host(closed, OTHER, patience=0.2)
        assert reaches_host(closed, OTHER, patience=2)
