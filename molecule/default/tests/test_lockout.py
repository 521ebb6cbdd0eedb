# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who locks himself out of a host: it returns by itself, whatever becomes of the controller or of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from lab.scenario import HOSTS, INVENTORY, SSH, wait_for
from lab.topology import CONTROLLER
from lab.traffic import Answer, connect

if TYPE_CHECKING:
    from lab.fleet import Fleet
    from lab.machine import Machine

LISTS = "packetwatch.xdp.access_lists"
# The controller's own networks.
LOCKOUT = ["10.77.0.0/24", "fd77::/64"]

testinfra_hosts = HOSTS


def change(host: Any, timeout: int, **options: Any) -> subprocess.Popen[str]:
    """A controller of its own that changes the lists named lockout."""
    options |= {"name": "lockout", "force": True, "confirm_timeout": timeout}
    argv = ["ansible", "-i", INVENTORY, host.backend.host, "-b", "-m", LISTS]
    return subprocess.Popen(
        [*argv, "-a", json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ
        | {
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_FORCE_COLOR": "false",
            "ANSIBLE_NOCOLOR": "true",
        },
    )


def answer(fleet: Fleet, machine: Machine) -> Answer:
    """What the controller meets when it connects anew."""
    return connect(fleet.station(CONTROLLER), machine.ipv4, SSH)


def declared(machine: Machine) -> str:
    """Names of the lists that boot would read, and what is pending."""
    listing = machine.ssh(["ls", "/etc/packetwatch/current/deny.d"])
    return str(listing.stdout)


def test_a_change_is_confirmed(host: Any, machine: Machine) -> None:
    with change(host, 60, deny=["198.51.100.0/24"]) as process:
        output, dummy = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert '"confirmed": true' in output
    assert "lockout.list" in declared(machine)
    timers = "systemctl list-timers --no-legend packetwatch-rollback.timer"
    assert host.check_output(timers) == ""
    with change(host, 60, state="absent") as process:
        assert '"confirmed": true' in process.communicate(timeout=300)[0]


def test_a_lockout_fails_and_the_host_returns(host: Any, fleet: Fleet, machine: Machine) -> None:
    with change(host, 30, deny=LOCKOUT) as process:
        wait_for(lambda: answer(fleet, machine) is Answer.NONE, 120)
        locked_out = time.monotonic()
        wait_for(lambda: answer(fleet, machine) is Answer.OPEN, 60)
        assert time.monotonic() - locked_out <= 40
        output, dummy = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "FAILED!" in output, output
    assert "UNREACHABLE!" not in output, output
    assert "was not confirmed in time: the host has returned" in output, output
    assert "lockout.list" not in declared(machine)


def test_the_controller_dies(host: Any, fleet: Fleet, machine: Machine) -> None:
    with change(host, 30, deny=LOCKOUT) as process:
        wait_for(lambda: answer(fleet, machine) is Answer.NONE, 120)
        os.killpg(process.pid, 9)
    wait_for(lambda: answer(fleet, machine) is Answer.OPEN, 60)
    machine.hang_up()
    assert "lockout.list" not in declared(machine)


def test_the_host_loses_power(host: Any, fleet: Fleet, machine: Machine) -> None:
    with change(host, 3600, deny=LOCKOUT) as process:
        wait_for(lambda: answer(fleet, machine) is Answer.NONE, 120)
        os.killpg(process.pid, 9)
    machine.hang_up()
    fleet.power_cycle(host.backend.host)
    assert answer(fleet, machine) is Answer.OPEN
    assert "lockout.list" not in declared(machine)
    unit = "packetwatch-xdp@eth0.service"
    assert machine.ssh(["systemctl", "is-active", unit]).stdout.strip() == "active"
