# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first host of a rollout is lost, by whatever way: those after it are not touched."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from lab.scenario import HOSTS, INVENTORY, LOCKOUT, SSH, plain, recaps, wait_for
from lab.topology import CONTROLLER
from lab.traffic import Answer, connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.fleet import Fleet
    from lab.machine import Machine

CANARY, LATER = HOSTS[:2]
WAIT = "Wait"

testinfra_hosts = [CANARY]


@pytest.fixture
def rollout(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A play that goes from host to host, as site does, and locks out its controller."""
    lists = {"name": "canary", "deny": LOCKOUT, "force": True, "confirm_timeout": 30}
    tasks = [
        {"packetwatch.xdp._rollout": {"phase": "begin"}, "run_once": True},
        {"name": WAIT, "ansible.builtin.command": "sleep 20"},
        {"packetwatch.xdp.access_lists": lists},
        {"packetwatch.xdp._rollout": {"phase": "end"}},
    ]
    book = {"hosts": [CANARY, LATER], "become": True, "gather_facts": False, "tasks": tasks}
    path = tmp_path / "rollout.yml"
    path.write_text(json.dumps([book | {"any_errors_fatal": True, "serial": 1}]), encoding="ascii")
    environment = {
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(tmp_path),
        "ANSIBLE_SSH_EXTRA_ARGS": "-o ServerAliveInterval=2 -o ServerAliveCountMax=3",
    }
    with subprocess.Popen(
        ["ansible-playbook", "-i", INVENTORY, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=plain() | environment,
    ) as process:
        yield process
        process.kill()


def read(process: subprocess.Popen[str], until: str = "") -> str:
    """What it prints up to a line with that text, or to its end."""
    found = []
    for row in process.stdout or ():
        found.append(row)
        if until and until in row:
            break
    return "".join(found)


def is_untouched(host: Any) -> bool:
    return not host.run("ls /etc/packetwatch/current/deny.d/canary.list").succeeded


def is_open(fleet: Fleet, machine: Machine) -> bool:
    return connect(fleet.station(CONTROLLER), machine.ipv4, SSH) is Answer.OPEN


def test_it_is_locked_out(
    host: Any, fleet: Fleet, machine: Machine, rollout: subprocess.Popen[str]
) -> None:
    output = read(rollout)
    assert rollout.wait() != 0
    assert "was not confirmed in time: the host has returned" in output, output
    assert recaps(output)[CANARY]["failed"] == 1
    assert recaps(output).keys() == {CANARY}, output
    assert is_open(fleet, machine)
    assert is_untouched(host)


def test_it_becomes_unreachable(
    host: Any, fleet: Fleet, machine: Machine, rollout: subprocess.Popen[str]
) -> None:
    read(rollout, until=f"TASK [{WAIT}]")
    fleet.network.plug(CANARY, False)
    try:
        output = read(rollout)
    finally:
        fleet.network.plug(CANARY, True)
        machine.hang_up()
    assert rollout.wait() != 0
    numbers = recaps(output)
    assert numbers[CANARY]["unreachable"] == 1, output
    assert f"hosts of earlier batches were not brought to an end: {CANARY}" in output, output
    assert (numbers[LATER]["ok"], numbers[LATER]["failed"]) == (0, 1), output
    wait_for(lambda: is_open(fleet, machine))
    assert is_untouched(host)
