# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scans with forged sources: they cannot ban the controller, nor cut connections that the host opens."""

from __future__ import annotations

from typing import Any

from lab.forgery import forge
from lab.scenario import (
    CLIENT,
    HOSTS,
    SSH,
    banned,
    events,
    machine_of,
    module,
    open_fleet,
    wait_for,
)
from lab.topology import CONTROLLER, CONTROLLER_NUMBER, ipv4, ipv6
from lab.traffic import Answer, connect, served

testinfra_hosts = HOSTS

# Three times as many as a scan takes.
PORTS = range(3001, 3016)
SERVICE = 8700


def alerts(host: Any, source: str) -> list[dict[str, Any]]:
    """Logged events of scans by a source."""
    kinds = ("ban", "scan")
    found = [event for event in events(host) if event.get("event.action") in kinds]
    return [event for event in found if event["source.ip"] == source]


def check_never_cut_off(host: Any, controller: str, address: str) -> None:
    """Forge a scan of the host's address with the controller as source: it is logged, and not banned."""
    fleet = open_fleet()
    before = len(alerts(host, controller))
    forge(fleet.station("scanner"), controller, address, PORTS)
    wait_for(lambda: len(alerts(host, controller)) > before)
    last = alerts(host, controller)[-1]
    assert (last["event.action"], last["packetwatch.reason"]) == ("scan", "protected")
    assert controller not in banned(host)
    assert connect(fleet.station(CONTROLLER), address, SSH) is Answer.OPEN


def test_the_controller_is_never_cut_off(host: Any) -> None:
    """In both scopes. Each uses another address of the controller, whose scans are logged once a minute."""
    machine = machine_of(host, open_fleet())
    check_never_cut_off(host, ipv6(CONTROLLER_NUMBER), machine.ipv6)
    assert module(host, "policy", ban_scope="all")["changed"]
    check_never_cut_off(host, ipv4(CONTROLLER_NUMBER), machine.ipv4)
    assert module(host, "policy", ban_scope="connections")["changed"]


def test_what_the_host_opens_survives_the_ban(host: Any) -> None:
    fleet = open_fleet()
    machine, client = machine_of(host, fleet), fleet.station("client")
    forge(fleet.station("scanner"), CLIENT, machine.ipv4, PORTS)
    wait_for(lambda: CLIENT in banned(host))
    assert connect(client, machine.ipv4, SSH, timeout=1.0) is Answer.NONE
    with served(client, SERVICE) as callers:
        host.check_output(f"timeout 10 bash -c '</dev/tcp/{CLIENT}/{SERVICE}'")
        wait_for(lambda: callers == [machine.ipv4])
    assert module(host, "ban", address=CLIENT, state="absent")["changed"]
    assert connect(client, machine.ipv4, SSH) is Answer.OPEN
