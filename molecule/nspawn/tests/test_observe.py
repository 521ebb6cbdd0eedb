# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host reports: to Prometheus, in monitor mode, and during a flood."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab.forgery import flood, forge
from lab.prometheus import Prometheus, complaints, get, parse
from lab.scenario import (
    CLIENT,
    CLOSED,
    DENIED,
    HOSTS,
    PLAYBOOKS,
    SCANNER,
    SSH,
    banned,
    events,
    module,
    settle,
    wait_for,
)
from lab.topology import CONTROLLER
from lab.traffic import Answer, connect, scan

if TYPE_CHECKING:
    from lab.fleet import Fleet
    from lab.machine import Machine

testinfra_hosts = HOSTS

RULES = PLAYBOOKS.parent / "roles/packetwatch/files/prometheus/packetwatch.rules.yml"
METRICS = 9477
FLOOD_SECONDS = 10.0
MANUAL, EARLIER = "203.0.114.77", "203.0.114.78"
LIMIT_KIB = 25 * 1024


@pytest.fixture
def machine(host: Any, machine: Machine) -> Machine:
    # Shortly after a boot nothing counts as a scan.
    wait_for(lambda: float(host.check_output("cat /proc/uptime").split()[0]) > 30)
    return machine


def page(machine: Machine, fleet: Fleet) -> bytes:
    return get(str(fleet.station(CONTROLLER).path), machine.ipv4, METRICS, "/metrics")


def passed(values: dict[str, float], reason: str) -> float:
    return values[f'packetwatch_packets_total{{verdict="pass",reason="{reason}",family="ipv4"}}']


def connections(values: dict[str, float], family: str) -> float:
    return values[f'packetwatch_connections_total{{family="{family}"}}']


def logged(host: Any) -> set[tuple[str, str, str]]:
    """Action, reason and source of all events."""
    names = ("event.action", "packetwatch.reason", "source.ip")
    return {tuple(event.get(name, "") for name in names) for event in events(host)}


def health(prometheus: Prometheus) -> set[str]:
    """Health of the collection's alerting rules."""
    (group,) = prometheus.ask("rules")["groups"]
    return {rule["health"] for rule in group["rules"]}


def test_prometheus_scrapes_it_and_has_no_alert(
    fleet: Fleet, machine: Machine, tmp_path: Path
) -> None:
    assert complaints(page(machine, fleet)) == ""
    controller = str(fleet.station(CONTROLLER).path)
    target = f"{machine.ipv4}:{METRICS}"
    port = 9000 + int(machine.ipv4.rpartition(".")[2])
    # A reverted change leaves it unknown whether the lists are in the kernel, until a timer verifies them.
    machine.ssh(["systemctl", "start", "packetwatch-verify.service"])
    prometheus = Prometheus(tmp_path, RULES, target, port, controller)
    try:
        wait_for(prometheus.is_scraping)
        well = "up == 1 and on (instance) packetwatch_attached == 1 and on (instance) packetwatch_lists_in_kernel == 1"
        wait_for(lambda: prometheus.query(well))
        wait_for(lambda: health(prometheus) == {"ok"})
        settle(lambda: prometheus.ask("alerts")["alerts"], [], 120)
    finally:
        prometheus.close()


def test_monitoring_logs_what_it_would_drop_and_drops_nothing(
    host: Any, fleet: Fleet, machine: Machine
) -> None:
    assert module(host, "policy", action="monitor")["changed"]
    before = parse(page(machine, fleet))
    assert connect(fleet.station("denied"), machine.ipv4, SSH) is Answer.OPEN
    states = scan(fleet.station("client"), machine.ipv4, list(CLOSED)[:20])
    assert set(states.values()) == {"closed"}
    expected = {("would_drop", "deny", DENIED), ("scan", "monitor", CLIENT)}
    wait_for(lambda: expected <= logged(host))
    after = parse(page(machine, fleet))
    for reason in ("monitor_deny", "monitor_scan"):
        assert passed(after, reason) > passed(before, reason)
    assert CLIENT not in banned(host)
    assert module(host, "policy", action="enforce")["changed"]
    assert connect(fleet.station("denied"), machine.ipv4, SSH, timeout=1.0) is Answer.NONE


def has_caught_up(machine: Machine, fleet: Fleet) -> bool:
    """Whether the agent has read all events; False while it is too busy to answer."""
    try:
        return parse(page(machine, fleet))["packetwatch_ring_backlog_bytes"] == 0
    except OSError:
        return False


def test_a_flood_hides_no_scan_and_ends_no_ban(host: Any, fleet: Fleet, machine: Machine) -> None:
    scanner = fleet.station("scanner")
    module(host, "ban", address=SCANNER, state="absent")
    assert module(host, "ban", address=MANUAL, duration=3600)["changed"]
    forge(scanner, EARLIER, machine.ipv4, CLOSED[:5])
    wait_for(lambda: EARLIER in banned(host))

    def lost() -> int:
        """Number of packets that did not reach the machine."""
        return scanner.dropped("eth0") + fleet.network.switch.dropped(machine.name)

    before, lost_before = parse(page(machine, fleet)), lost()
    sent = flood(scanner, machine.ipv6, CLOSED[0], seconds=FLOOD_SECONDS)
    wait_for(lambda: has_caught_up(machine, fleet), 120)
    # The page was read after the flood, so all earlier packets have arrived or are lost.
    after = parse(page(machine, fleet))

    grown = {name: after[name] - value for name, value in before.items()}
    arrived = connections(grown, "ipv6")
    assert sent - (lost() - lost_before) <= arrived <= sent
    assert arrived > 10_000
    counted = ("events_total", "events_suppressed_total", "events_lost_total")
    assert sum(grown[f"packetwatch_{name}"] for name in counted) == (
        arrived + connections(grown, "ipv4")
    )
    assert {MANUAL, EARLIER} <= banned(host)
    scan(scanner, machine.ipv4, list(CLOSED)[:20])
    assert SCANNER in banned(host)
    assert connect(scanner, machine.ipv4, SSH, timeout=1.0) is Answer.NONE
    wait_for(lambda: ("ban", "scan", SCANNER) in logged(host))
    pid = host.check_output("systemctl show --property MainPID --value packetwatch.service")
    peak = host.check_output(f"grep VmHWM /proc/{pid}/status")
    assert int(peak.split()[1]) <= LIMIT_KIB
