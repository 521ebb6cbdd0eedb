# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What takes too long for `make test`: `make soak` leaves a fleet without its store for ten minutes, an enforcer for one.

Three nodes, and three hosts with the real agent and program. Every other fault of nodes comes before that.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet.enforcing import Two, folded
from fleet.faults import FAULTS, outlive, survive
from fleet.host_process import until
from fleet.real_host import RealHost, real_host
from fleet.servers import FleetNodes, fleet_nodes
from fleet.software import VERSIONS

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs")

HOSTS = ("host-a", "host-b", "host-c")
SECONDS = 600.0

Lab = tuple[FleetNodes, list[RealHost]]


@pytest.fixture(scope="module")
def lab(
    request: pytest.FixtureRequest, bytecode_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_nodes(request.param, 3) as nodes, contextlib.ExitStack() as open_:
        hosts = [
            open_.enter_context(real_host(nodes, name, bytecode_cache, folder / name, 1, 2))
            for name in HOSTS
        ]
        yield nodes, hosts


def test_an_enforcer_that_was_paused_for_a_minute(tmp_path: Path) -> None:
    """Meanwhile the other one lets the store forget what was overwritten."""
    with fleet_nodes(VERSIONS[-1], 3) as nodes, contextlib.closing(Two(tmp_path, nodes)) as pair:
        until(lambda: pair.first.follows and pair.second.follows)
        pair.sweep("203.0.113.9")
        until(lambda: pair.authors("203.0.113.9") == {"e1", "e2"})
        with pair.first.paused():
            for number in range(10, 16):
                pair.sweep(f"203.0.113.{number}")
                time.sleep(10)
        pair.sweep("203.0.113.16", first=41)
        until(lambda: pair.authors("203.0.113.16") == {"e1", "e2"}, 30, pair.first.log.read_text)
        sources = {f"203.0.113.{number}" for number in range(9, 17)}
        assert folded(nodes).keys() == sources
        assert all(pair.authors(source) >= {"e2"} for source in sources)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("lab", VERSIONS, indirect=True)
def test_a_fault(lab: Lab, fault: str) -> None:
    spent = survive(*lab, fault)
    print(f"{fault}: all kernels equal the store {spent:.1f} s after it")


@pytest.mark.parametrize("lab", VERSIONS[-1:], indirect=True)
def test_ten_minutes_without_the_store(lab: Lab) -> None:
    spent = outlive(*lab, SECONDS)
    print(f"ten minutes without the store: all kernels equal it {spent:.1f} s after it is back")
