# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host's own units repair drift without an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from lab.scenario import HOSTS, SSH, events, info, wait_for
from lab.traffic import Answer, connect

if TYPE_CHECKING:
    from lab.fleet import Fleet
    from lab.machine import Machine

PINS = "/sys/fs/bpf/packetwatch"
# bpf_link_detach() of a pin.
DETACH = (
    "import ctypes; b = ctypes.CDLL('libbpf.so.1'); "
    f"exit(-b.bpf_link_detach(b.bpf_obj_get(b'{PINS}/links/eth0')))"
)

testinfra_hosts = HOSTS


def is_filtered(host: Any) -> bool:
    return info(host, "interfaces")["interfaces"]["eth0"]["mode"] in ("native", "generic")


def repairs(host: Any) -> list[dict[str, Any]]:
    return [event for event in events(host) if event.get("event.action") == "repair"]


@pytest.mark.parametrize(
    "drift",
    [
        f'python3 -c "{DETACH}"',
        f"rm -r {PINS}",
        "rm /etc/packetwatch/current",
    ],
)
def test_drift_is_repaired(host: Any, fleet: Fleet, machine: Machine, drift: str) -> None:
    before = len(repairs(host))
    current = host.check_output("readlink /etc/packetwatch/current")
    host.check_output(drift)
    wait_for(lambda: len(repairs(host)) > before, 120)
    assert repairs(host)[-1]["event.outcome"] == "success"
    assert is_filtered(host)
    assert host.check_output("readlink /etc/packetwatch/current") == current
    host.check_output("systemctl start packetwatch-verify.service")
    assert connect(fleet.station("denied"), machine.ipv4, SSH) is Answer.NONE
    assert connect(fleet.station("client"), machine.ipv4, SSH) is Answer.OPEN
    # Repairs are counted and limited. The repairs of the next tests must not reach the limit.
    host.check_output(
        "python3 -c \"import json; p = '/run/packetwatch-host/status.json'; n = json.load(open(p)); "
        "n['heal']['recent'] = []; json.dump(n, open(p, 'w'))\""
    )


def test_without_the_agent_drift_is_not_repaired(host: Any, fleet: Fleet, machine: Machine) -> None:
    """These are the documented commands to get rid of the filter."""
    host.check_output("systemctl stop packetwatch.service")
    host.check_output(f"rm -r {PINS}/links")
    assert not host.service("packetwatch-heal.path").is_running
    wait_for(lambda: connect(fleet.station("denied"), machine.ipv4, SSH) is Answer.OPEN, 30)
    host.check_output("sleep 15")
    assert not is_filtered(host)
    host.check_output("systemctl start packetwatch.service")
    wait_for(lambda: is_filtered(host), 120)
    assert connect(fleet.station("denied"), machine.ipv4, SSH) is Answer.NONE
