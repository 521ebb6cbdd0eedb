# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change on twenty hosts, with each strategy of Ansible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet import HOST, PEER, Fleet, make_fleet

pytestmark = pytest.mark.slow(24)

SIZE = 20
PLAY = """
- hosts: packetwatch
  gather_facts: false
  strategy: {strategy}
  serial: {serial}
  tasks:
    - packetwatch.xdp.access_lists:
        deny: "{{{{ deny }}}}"
        force: true
        confirm_timeout: {timeout}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with make_fleet(SIZE, tmp_path_factory.mktemp("many"), attach=True) as found:
        yield found


@pytest.mark.parametrize(
    ("strategy", "serial", "pipelining", "last"),
    [
        ("linear", SIZE, "true", 7),
        ("linear", 7, "false", 8),
        ("free", SIZE, "true", 9),
    ],
)
def test_each_host_is_confirmed(
    fleet: Fleet, tmp_path: Path, strategy: str, serial: int, pipelining: str, last: int
) -> None:
    fleet.variables["deny"] = [f"198.51.100.{last}"]
    # A strategy that waits for the other hosts before it confirms would be too late.
    book = tmp_path / "play.yml"
    book.write_text(PLAY.format(strategy=strategy, serial=serial, timeout=30))
    done = fleet.play(str(book), "-f", "5", ANSIBLE_PIPELINING=pipelining)
    assert done.status == 0, done.output
    recap = done.recap()
    assert len(recap) == SIZE
    assert {(row["changed"], row["failed"]) for row in recap.values()} == {(1, 0)}, done.output
    for name in fleet.hosts:
        assert fleet.denied(name) == f"198.51.100.{last}\n"


def test_a_late_one_among_many_is_an_error(fleet: Fleet, tmp_path: Path) -> None:
    fleet.variables["deny"] = ["198.51.100.10"]
    fleet.host_variables["h13"] = {"deny": [PEER]}
    book = tmp_path / "play.yml"
    book.write_text(PLAY.format(strategy="free", serial=SIZE, timeout=15))
    done = fleet.play(str(book), "-f", "5")
    assert done.status == 2
    assert "was not confirmed in time: the host has reverted" in done.output, done.output
    recap = done.recap()
    assert {name for name, row in recap.items() if row["failed"]} == {"h13"}
    assert {row["unreachable"] for row in recap.values()} == {0}
    assert PEER not in fleet.denied("h13")
    assert fleet.hosts["h13"].peer_reaches(HOST)
    assert fleet.denied("h14") == "198.51.100.10\n"
