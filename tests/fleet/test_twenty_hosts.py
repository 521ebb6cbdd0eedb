# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Twenty hosts with real kernels and agents, three nodes and two enforcers: what no host can see alone, all ban."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator

import pytest
from bench.fleet_enforcer import PORT, K, enforced, sweep
from bench.fleet_hosts import Fleet
from fleet.enforcing import Enforcer, report
from fleet.host_process import until
from kernel.controlling import PROTECTED

from packetwatch_core._kernel import abi

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs"),
]

HOSTS = 20
ALLOWED = "198.51.100.7"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("twenty")
    for path in (folder, *folder.parents):
        # The agents are not root.
        path.chmod(path.stat().st_mode | 0o011)
    with contextlib.ExitStack() as open_:
        yield Fleet(folder, open_, HOSTS, HOSTS)


@pytest.fixture(scope="module")
def enforcers(fleet: Fleet) -> Iterator[list[Enforcer]]:
    allow = {"v": 1, "allow": [{"address": ALLOWED}], "deny": []}
    fleet.nodes.put("lists/office", json.dumps(allow))
    with enforced(fleet.folder, fleet.nodes) as found:
        yield found


def test_one_closed_port_on_each_of_some_hosts_is_a_ban_on_all(
    fleet: Fleet, enforcers: list[Enforcer]
) -> None:
    delays = []
    for number in range(6):
        hosts = [fleet.real[(5 * number + one) % HOSTS] for one in range(K)]
        delays.append(sweep(hosts, f"203.0.113.{number + 1}", fleet.real))
    print(f"K-th packet to the last kernel: median {statistics.median(delays):.2f} s, {delays}")
    # The first one waits for the streams; the goal of the others is the bench's, for a machine without other work.
    assert statistics.median(delays[1:]) < 20
    for host in fleet.real:
        ban = host.fleet_ban("203.0.113.2")
        assert ban and ban.origin == abi.ORIGIN_FLEET and ban.flags & abi.BAN_CONNECTIONS
        # A forged source is out for at most the maximum of SYNs.
        assert ban.expires <= time.monotonic_ns() + 600_000_000_000


def test_four_hosts_are_not_enough_and_five_ports_of_one_host_are_its_own_ban(
    fleet: Fleet, enforcers: list[Enforcer]
) -> None:
    for host in fleet.real[: K - 1]:
        host.scan("203.0.113.50", [PORT])
    one = fleet.real[3]
    one.scan("203.0.113.51")
    # Its program has decided before a report could have reached the store.
    assert one.host_ban("203.0.113.51")
    time.sleep(3)
    for host in fleet.real:
        assert not host.has("203.0.113.50") and not host.has("203.0.113.51")


def test_an_allowed_or_protected_source_is_never_banned(
    fleet: Fleet, enforcers: list[Enforcer]
) -> None:
    for host in fleet.real[: 2 * K]:
        for source in (ALLOWED, PROTECTED):
            host.scan(source, [PORT])
    until(
        lambda: report(fleet.nodes, "e1").get("refused", {}).get("never", 0) >= 1,
        60,
        lambda: report(fleet.nodes, "e1"),
    )
    time.sleep(1)
    for host in fleet.real:
        assert not host.has(ALLOWED) and not host.has(PROTECTED)
