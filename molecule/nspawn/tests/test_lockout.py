# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change that locks out the controller is reverted by the host, also if the controller dies."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from lab.changing import answer, change, declared, follow
from lab.scenario import HOSTS, LOCKOUT, info, wait_for
from lab.traffic import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from lab.fleet import Fleet
    from lab.machine import Machine

# No list denies this address yet: a change that does not change the tables would not need confirmation.
NOT_DENIED = ["192.0.2.0/24"]
# The test sees that there is no answer after an attempt to connect, which takes five seconds.
CONFIRM_SECONDS = 15
DROPS = """#include <uapi/linux/bpf.h>
int next(struct xdp_md *context) { return XDP_DROP; }
"""

testinfra_hosts = HOSTS


def logins(machine: Machine) -> int:
    """Number of ssh logins since the boot, including that of this command."""
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
    with change(host, 60, environment, deny=NOT_DENIED) as process:
        output, dummy = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert '"confirmed": true' in output
    # The one that ControlPersist keeps, the fresh one that confirms, and that of `logins`.
    assert logins(machine) - before == 3
    assert "lockout.list" in declared(machine)
    timers = "systemctl list-timers --no-legend packetwatch-rollback.timer"
    assert host.check_output(timers) == ""
    with change(host, 60, state="absent") as process:
        assert '"confirmed": true' in process.communicate(timeout=300)[0]


def test_a_lockout_fails_and_is_reverted(host: Any, fleet: Fleet, machine: Machine) -> None:
    with change(host, CONFIRM_SECONDS, deny=LOCKOUT) as process:
        wait_for(lambda: answer(fleet, machine) is Answer.NONE, 120)
        wait_for(lambda: answer(fleet, machine) is Answer.OPEN, 60)
        output, dummy = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "FAILED!" in output, output
    assert "UNREACHABLE!" not in output, output
    assert "was not confirmed in time: the host has reverted" in output, output
    assert "lockout.list" not in declared(machine)


def test_a_next_program_that_drops_the_controller_is_reverted(
    host: Any, fleet: Fleet, machine: Machine, tmp_path: Path
) -> None:
    source = tmp_path / "next.c"
    source.write_text(DROPS)
    with follow(host, CONFIRM_SECONDS, source) as process:
        wait_for(lambda: answer(fleet, machine) is Answer.NONE, 120)
        wait_for(lambda: answer(fleet, machine) is Answer.OPEN, 60)
        output, dummy = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "was not confirmed in time: the host has reverted" in output, output
    machine.hang_up()
    chain = info(host, "interfaces")["interfaces"]["eth0"]["chain"]
    assert [member["kind"] for member in chain] == ["packetwatch"]


def test_the_controller_dies(host: Any, fleet: Fleet, machine: Machine) -> None:
    with change(host, CONFIRM_SECONDS, deny=LOCKOUT) as process:
        wait_for(lambda: answer(fleet, machine) is Answer.NONE, 120)
        os.killpg(process.pid, 9)
    wait_for(lambda: answer(fleet, machine) is Answer.OPEN, 60)
    machine.hang_up()
    assert "lockout.list" not in declared(machine)
