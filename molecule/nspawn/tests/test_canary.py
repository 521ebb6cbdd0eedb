# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If the first host of a rollout is lost, the hosts after it are not changed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
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
WAIT = "sleep 33"
CONFIRM_SECONDS = 15
SECONDS = 600.0

testinfra_hosts = [CANARY]


@pytest.fixture
def rollout(
    request: pytest.FixtureRequest, tmp_path: Path, sockets: str
) -> Iterator[subprocess.Popen[str]]:
    """A play that changes host after host, as site does, and locks out its controller.

    The parameter is a command to run before the change.
    """
    lists = {"name": "canary", "deny": LOCKOUT, "force": True, "confirm_timeout": CONFIRM_SECONDS}
    tasks = [
        {"packetwatch.xdp.__private.rollout": {"phase": "begin"}, "run_once": True},
        {"name": "Wait", "ansible.builtin.command": request.param},
        {"packetwatch.xdp.access_lists": lists},
        {"packetwatch.xdp.__private.rollout": {"phase": "end"}},
    ]
    book = {"hosts": [CANARY, LATER], "become": True, "gather_facts": False, "tasks": tasks}
    path = tmp_path / "rollout.yml"
    path.write_text(json.dumps([book | {"any_errors_fatal": True, "serial": 1}]), encoding="ascii")
    environment = {
        "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
        "ANSIBLE_SSH_EXTRA_ARGS": "-o ServerAliveInterval=2 -o ServerAliveCountMax=3",
    }
    with subprocess.Popen(
        ["ansible-playbook", "-i", INVENTORY, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=plain() | environment,
        start_new_session=True,
    ) as process:
        # This kills its workers too.
        late = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        try:
            yield process
        finally:
            late.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def is_untouched(host: Any) -> bool:
    return "canary.list" not in host.check_output("ls /etc/packetwatch/current/deny.d").split()


def is_open(fleet: Fleet, machine: Machine) -> bool:
    return connect(fleet.station(CONTROLLER), machine.ipv4, SSH) is Answer.OPEN


@pytest.mark.parametrize("rollout", ["true"], indirect=True)
def test_it_is_locked_out(
    host: Any, fleet: Fleet, machine: Machine, rollout: subprocess.Popen[str]
) -> None:
    output, dummy = rollout.communicate()
    assert rollout.returncode != 0
    assert "was not confirmed in time: the host has reverted" in output, output
    assert recaps(output)[CANARY]["failed"] == 1
    assert recaps(output).keys() == {CANARY}, output
    assert is_open(fleet, machine)
    assert is_untouched(host)


@pytest.mark.parametrize("rollout", [WAIT], indirect=True)
def test_it_becomes_unreachable_during_a_task(
    host: Any, fleet: Fleet, machine: Machine, rollout: subprocess.Popen[str]
) -> None:
    wait_for(lambda: machine.ssh(["pgrep", "-f", f"^{WAIT}"], check=False).returncode == 0, 120)
    fleet.network.plug(CANARY, False)
    try:
        output, dummy = rollout.communicate()
    finally:
        fleet.network.plug(CANARY, True)
        machine.hang_up()
    assert rollout.returncode != 0
    numbers = recaps(output)
    assert numbers[CANARY]["unreachable"] == 1, output
    assert f"hosts of earlier batches were not completed: {CANARY}" in output, output
    assert (numbers[LATER]["ok"], numbers[LATER]["failed"]) == (0, 1), output
    wait_for(lambda: is_open(fleet, machine))
    assert is_untouched(host)
