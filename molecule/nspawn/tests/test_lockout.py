# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who locks himself out of a host: it returns by itself, whatever becomes of the controller or of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from lab.scenario import HOSTS, INVENTORY, LOCKOUT, SSH, plain, wait_for
from lab.topology import CONTROLLER
from lab.traffic import Answer, connect

if TYPE_CHECKING:
    from pathlib import Path

    from lab.fleet import Fleet
    from lab.machine import Machine

LISTS = "packetwatch.xdp.access_lists"
MANY = 20_000
# Not yet denied by any list: what changes no table needs nobody to confirm it.
UNHEARD_OF = ["192.0.2.0/24"]

testinfra_hosts = HOSTS


def change(
    host: Any, timeout: int, environment: dict[str, str] | None = None, /, **options: Any
) -> subprocess.Popen[str]:
    """A controller of its own that changes the lists named lockout."""
    options |= {"name": "lockout", "force": True, "confirm_timeout": timeout}
    argv = ["ansible", "-i", INVENTORY, host.backend.host, "-b", "-m", LISTS]
    return subprocess.Popen(
        [*argv, "-a", json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=plain() | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"} | (environment or {}),
    )


def answer(fleet: Fleet, machine: Machine) -> Answer:
    """What the controller meets when it connects anew."""
    return connect(fleet.station(CONTROLLER), machine.ipv4, SSH)


def declared(machine: Machine) -> str:
    """Names of the lists that boot would read, and what is pending."""
    listing = machine.ssh(["ls", "/etc/packetwatch/current/deny.d"])
    return str(listing.stdout)


def logins(machine: Machine) -> int:
    """How many connections have come in so far by ssh, with the one that asks."""
    read = "journalctl --boot --output cat _COMM=sshd + _COMM=sshd-session"
    found = machine.ssh(["sh", "-c", f"journalctl --sync && {read}"], fresh=True)
    return str(found.stdout).count("Accepted publickey")


@pytest.mark.parametrize("pipelining", ["true", "false"])
def test_a_change_is_confirmed(host: Any, machine: Machine, sockets: str, pipelining: str) -> None:
    environment = {
        "ANSIBLE_PIPELINING": pipelining,
        "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
    }
    before = logins(machine)
    with change(host, 60, environment, deny=UNHEARD_OF) as process:
        output, dummy = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert '"confirmed": true' in output
    # One that ControlPersist keeps, through which all went before, a fresh one, and ours.
    assert logins(machine) - before == 3
    assert "lockout.list" in declared(machine)
    timers = "systemctl list-timers --no-legend packetwatch-rollback.timer"
    assert host.check_output(timers) == ""
    with change(host, 60, state="absent") as process:
        assert '"confirmed": true' in process.communicate(timeout=300)[0]


def test_a_lockout_fails_and_the_host_returns(host: Any, fleet: Fleet, machine: Machine) -> None:
    with change(host, 30, deny=LOCKOUT) as process:
        wait_for(lambda: answer(fleet, machine) is Answer.NONE, 120)
        wait_for(lambda: answer(fleet, machine) is Answer.OPEN, 60)
        output, dummy = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "FAILED!" in output, output
    assert "UNREACHABLE!" not in output, output
    assert "was not confirmed in time: the host has reverted" in output, output
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


def test_the_host_loses_power_amid_an_apply(
    host: Any, fleet: Fleet, machine: Machine, tmp_path: Path
) -> None:
    texts = []
    for network in (18, 19):
        addresses = (f"198.{network}.{number >> 8}.{number & 255}" for number in range(MANY))
        texts.append("".join(f"{address}\n" for address in addresses))
        (tmp_path / f"{network}.list").write_text(texts[-1], encoding="ascii")
    started = time.monotonic()
    with change(host, 0, deny_src=str(tmp_path / "18.list")) as process:
        output, dummy = process.communicate(timeout=300)
    assert process.returncode == 0, output
    took = time.monotonic() - started
    with change(host, 0, deny_src=str(tmp_path / "19.list")) as process:
        moment = random.uniform(0.4, 1.0) * took
        print(f"undisturbed it took {took:.1f} s; the power goes after {moment:.1f}")
        time.sleep(moment)
        fleet.power_cycle(host.backend.host)
        os.killpg(process.pid, 9)
    found = machine.ssh(["cat", "/etc/packetwatch/current/deny.d/lockout.list"]).stdout
    assert found in texts
    machine.ssh(["systemctl", "start", "packetwatch-verify.service"])
    note = json.loads(machine.ssh(["cat", "/run/packetwatch-host/status.json"]).stdout)
    assert note["matches"] == 1
    with change(host, 60, state="absent") as process:
        assert '"confirmed": true' in process.communicate(timeout=300)[0]
