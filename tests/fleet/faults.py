# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults of a fleet's nodes. While each lasts, and after it, the kernels of hosts are compared with the store.

The tests' writer is at the first node that runs. So the hosts should know the gates of the others alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from fleet.host_process import until
from fleet.real_host import RealHost, page, row
from fleet.servers import FleetNodes

# Seconds within which every kernel has to equal the store: after a fault, and while one lasts that leaves two nodes.
HEALED, NOTICED = 10.0, 20.0
_OWN = "198.51.100.7"


@contextlib.contextmanager
def killed(nodes: FleetNodes, node: int) -> Iterator[None]:
    """A node without power. node: the one that hosts follow."""
    nodes.kill(node)
    _wait_for_others(nodes, node)
    yield
    nodes.start(node)
    nodes.wait()


@contextlib.contextmanager
def without_leader(nodes: FleetNodes, dummy: int) -> Iterator[None]:
    leader = nodes.leader()
    nodes.kill(leader, "etcd")
    _wait_for_others(nodes, leader)
    yield
    nodes.start(leader)
    nodes.wait()


@contextlib.contextmanager
def cut(nodes: FleetNodes, node: int) -> Iterator[None]:
    """A node that hosts reach, and the other nodes do not."""
    nodes.cut(node)
    _wait_for_others(nodes, node)
    yield
    nodes.join(node)
    nodes.wait()


@contextlib.contextmanager
def unplugged(nodes: FleetNodes, node: int) -> Iterator[None]:
    nodes.unplug(node)
    _wait_for_others(nodes, node)
    yield
    nodes.plug(node)
    nodes.wait()


@contextlib.contextmanager
def without_gates(nodes: FleetNodes, dummy: int) -> Iterator[None]:
    """No host reaches the store, which forgets meanwhile what was overwritten."""
    for number in range(len(nodes.nodes)):
        nodes.kill(number, "gate")
    yield
    nodes.compact()
    for number in range(len(nodes.nodes)):
        nodes.start(number, "gate")
    nodes.wait()


Fault = Callable[[FleetNodes, int], AbstractContextManager[None]]
FAULTS: dict[str, Fault] = {
    "node killed": killed,
    "leader killed": without_leader,
    "node cut from its peers": cut,
    "link down": unplugged,
    "all gates killed, and compaction": without_gates,
}


def survive(nodes: FleetNodes, hosts: Sequence[RealHost], fault: str, slack: float = 0.0) -> float:
    """Decide before, during and after a fault; return the seconds from its end until every kernel equals the store.

    slack: seconds by which a machine with other work may be late.
    """
    nodes.put("bans/e1/p", page(*(row(f"203.0.113.{number}") for number in range(1, 50))))
    nodes.put("bans/e1/q", page(*(row(f"203.0.113.{number}") for number in range(50, 60))))
    nodes.put("bans/e2/p", page())
    _until_equal(hosts, HEALED + slack)
    before = [host.kernel().keys() for host in hosts]
    with FAULTS[fault](nodes, hosts[0].follows()):
        nodes.put("bans/e2/p", page(*(row(f"203.0.113.{number}") for number in range(55, 90))))
        # Nothing is lifted because something could not be read.
        for host, sources in zip(hosts, before, strict=True):
            assert sources <= host.kernel().keys()
        if FAULTS[fault] is not without_gates:
            _until_equal(hosts, NOTICED + slack)
    nodes.delete("bans/e1/q")
    healed = time.monotonic()
    _until_equal(hosts, HEALED + slack)
    assert len(hosts[0].kernel()) == 84
    return time.monotonic() - healed


def outlive(
    nodes: FleetNodes, hosts: Sequence[RealHost], seconds: float, slack: float = 0.0
) -> float:
    """Kill all etcds for so long; return the seconds from their return until every kernel equals the store.

    Meanwhile bans end, a host bans a scanner, and a fleet process and an agent are killed. slack: as for `survive`.
    """
    lasting = {f"203.0.113.{number}" for number in range(1, 50)}
    ending = {f"203.0.113.{number}" for number in range(50, 60)}
    nodes.put("bans/e1/p", page(*(row(source, seconds + 3600) for source in lasting)))
    nodes.put("bans/e1/q", page(*(row(source, seconds / 2) for source in ending)))
    nodes.put("bans/e2/p", page())
    _until_equal(hosts, HEALED + slack)
    # The store has acknowledged it. Whether hosts have heard of it does not matter.
    nodes.put("bans/e1/r", page(row("203.0.113.60", seconds + 3600)))
    for number in range(len(nodes.nodes)):
        nodes.kill(number, "etcd")
    began = time.monotonic()
    hosts[-1].process.kill()
    hosts[-1].process.start()
    hosts[len(hosts) // 2].kill_agent()
    hosts[len(hosts) // 2].start_agent()
    has_scanned = False
    while (spent := time.monotonic() - began) < seconds:
        for host in hosts:
            sources = host.kernel().keys()
            assert lasting <= sources <= lasting | ending | {"203.0.113.60"}
            # The second is for the rounding of ends.
            assert not ending & sources or spent < seconds / 2 + 2
        if spent > seconds / 2 and not has_scanned:
            has_scanned = True
            hosts[0].scan(_OWN)
        time.sleep(min(5.0, seconds / 20))
    for number in range(len(nodes.nodes)):
        nodes.start(number, "etcd")
    nodes.wait()
    healed = time.monotonic()
    nodes.put("bans/e1/p", page(*(row(source) for source in sorted(lasting)[:40])))
    nodes.put("bans/e2/p", page(row("203.0.113.61")))
    _until_equal(hosts, HEALED + slack)
    spent = time.monotonic() - healed
    assert hosts[0].kernel().keys() == {*sorted(lasting)[:40], "203.0.113.60", "203.0.113.61"}
    until(lambda: hosts[0].reports(_OWN), healed + HEALED + slack - time.monotonic())
    return spent


def _until_equal(hosts: Sequence[RealHost], seconds: float) -> None:
    until(
        lambda: all(host.is_equal() for host in hosts),
        seconds,
        lambda: [(host.kernel(), host.declared()) for host in hosts],
        pause=0.1,
    )


def _wait_for_others(nodes: FleetNodes, node: int) -> None:
    nodes.wait(*(other for other in range(len(nodes.nodes)) if other != node))
