# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host loses power while a change is pending, or while it is applied."""

from __future__ import annotations

import json
import os
import random
import time
from typing import TYPE_CHECKING, Any

from lab.changing import answer, change, declared
from lab.scenario import HOSTS, LOCKOUT, wait_for
from lab.traffic import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from lab.fleet import Fleet
    from lab.machine import Machine

MANY = 20_000

testinfra_hosts = HOSTS


def test_the_host_loses_power(host: Any, fleet: Fleet, machine: Machine) -> None:
    with change(host, 3600, deny=LOCKOUT) as process:
        wait_for(lambda: answer(fleet, machine) is Answer.NONE, 300)
        os.killpg(process.pid, 9)
    machine.hang_up()
    fleet.power_cycle(host.backend.host)
    assert answer(fleet, machine) is Answer.OPEN
    assert "lockout.list" not in declared(machine)
    unit = "packetwatch-xdp@eth0.service"
    assert machine.ssh(["systemctl", "is-active", unit]).stdout.strip() == "active"


def test_the_host_loses_power_during_an_apply(
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
        print(f"undisturbed, the change took {took:.1f} s; power is cut after {moment:.1f} s")
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
