# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's life with the filter: under attack, changed, without its agent, over a reboot.

Each test goes on from where the one before it left the host.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from lab.scenario import (
    CLIENT,
    CLOSED,
    HOSTS,
    SCANNER,
    SSH,
    events,
    info,
    module,
    wait_for,
)
from lab.traffic import Answer, connect, scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fleet import Fleet
    from lab.machine import Machine

testinfra_hosts = HOSTS


def test_filter_and_agent_run(host: Any) -> None:
    assert host.service("packetwatch.service").is_running
    assert host.service("packetwatch.service").is_enabled
    assert host.service("packetwatch-xdp@eth0.service").is_enabled
    filtered = info(host, "interfaces")["interfaces"]["eth0"]
    assert filtered["mode"] in ("native", "generic")
    # Far below the kernel's maximum, which is a million; converge.yml has printed the number.
    assert 10_000 < filtered["verified_instructions"] < 500_000


def test_client_passes_and_is_logged(host: Any, fleet: Fleet, machine: Machine) -> None:
    assert connect(fleet.station("client"), machine.ipv4, SSH) is Answer.OPEN

    def logged() -> list[dict[str, Any]]:
        mine = [event for event in events(host) if event.get("source.ip") == CLIENT]
        return [event for event in mine if event["destination.port"] == SSH]

    (event, *_more) = wait_for(logged)
    assert event["event.action"] == "connection"
    assert event["observer.ingress.interface.name"] == "eth0"


def test_denied_source_never_gets_through(fleet: Fleet, machine: Machine) -> None:
    assert connect(fleet.station("denied"), machine.ipv4, SSH) is Answer.NONE


def test_scanner_is_banned_at_the_fifth_closed_port(
    host: Any, fleet: Fleet, machine: Machine
) -> None:
    assert connect(fleet.station("scanner"), machine.ipv4, SSH) is Answer.OPEN
    states = scan(fleet.station("scanner"), machine.ipv4, list(CLOSED))
    answered = [port for port, state in states.items() if state == "closed"]
    assert len(answered) <= 4, states
    assert connect(fleet.station("scanner"), machine.ipv4, SSH) is Answer.NONE
    (ban,) = [ban for ban in info(host, "bans")["bans"] if ban["source"] == SCANNER]
    assert ban["origin"] == "scan"
    assert ban["ports"] == 5
    wait_for(
        lambda: [
            event
            for event in events(host)
            if event.get("source.ip") == SCANNER and event["event.action"] == "ban"
        ]
    )


def test_allowed_source_may_scan(fleet: Fleet, machine: Machine) -> None:
    states = scan(fleet.station("allowed"), machine.ipv4, list(CLOSED)[:20])
    assert set(states.values()) == {"closed"}
    assert connect(fleet.station("allowed"), machine.ipv4, SSH) is Answer.OPEN


def test_metrics_count_the_drops(host: Any) -> None:
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9477/metrics').read().decode())"
    text = host.check_output(f'python3 -c "{fetch}"')
    drops = [row for row in text.splitlines() if row.startswith("packetwatch_packets_total")]
    (denied,) = [row for row in drops if 'reason="deny"' in row and 'family="ipv4"' in row]
    assert float(denied.split()[-1]) > 0


def test_an_interface_that_comes_back_is_filtered_again(host: Any) -> None:
    add = "ip link add pw8 type veth peer name pw9 && ip link set pw8 up && ip link set pw9 up"

    def is_native() -> bool:
        # Far quicker on an emulated machine than a module.
        return " xdp " in host.run("ip link show pw8").stdout

    host.check_output(add)
    assert module(host, "program", interface="pw8")["changed"]
    host.check_output("systemctl enable --now packetwatch-xdp@pw8.service")
    assert is_native()
    host.check_output("ip link delete pw8")
    assert not is_native()
    host.check_output(add)
    wait_for(is_native)
    host.check_output("systemctl disable --now packetwatch-xdp@pw8.service")
    assert module(host, "program", interface="pw8", state="detached")["changed"]
    host.check_output("ip link delete pw8")


@contextmanager
def denied_for_a_while(host: Any) -> Iterator[float]:
    """Deny the client for longer than a command takes on this host; yields the end in UTC seconds."""
    began = time.time()
    host.check_output("packetwatchctl lists")
    now = time.time()
    end = now + 20 + 5 * (now - began)
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    host.check_output(f"packetwatchctl deny {CLIENT} --expires {text}")
    try:
        yield end
    finally:
        host.check_output(f"packetwatchctl remove {CLIENT}")


def test_an_entry_expires_at_its_time(host: Any, fleet: Fleet, machine: Machine) -> None:
    # These machines have no time service, so the test marks the clock as synchronised: ADJ_STATUS,
    # ADJ_ESTERROR, ADJ_MAXERROR.
    synchronise = (
        "import ctypes, struct; "
        "clock = ctypes.create_string_buffer(struct.pack('=I4xqqqqi', 0x1c, 0, 0, 0, 0, 0), 512); "
        "assert ctypes.CDLL(None).adjtimex(clock) == 0"
    )
    host.check_output(f'python3 -c "{synchronise}"')
    with denied_for_a_while(host) as end:
        assert connect(fleet.station("client"), machine.ipv4, SSH, timeout=4.0) is Answer.NONE
        wait_for(
            lambda: connect(fleet.station("client"), machine.ipv4, SSH) is Answer.OPEN,
            end - time.time() + 60,
        )


def test_filter_goes_on_without_the_agent(host: Any, fleet: Fleet, machine: Machine) -> None:
    host.check_output("systemctl kill --signal=KILL packetwatch.service")
    host.check_output("systemctl stop packetwatch.service")
    assert connect(fleet.station("denied"), machine.ipv4, SSH) is Answer.NONE
    assert connect(fleet.station("scanner"), machine.ipv4, SSH) is Answer.NONE
    assert connect(fleet.station("client"), machine.ipv4, SSH) is Answer.OPEN
    host.check_output("systemctl start packetwatch.service")


@pytest.fixture
def answers_to_denied(fleet: Fleet, machine: Machine) -> Iterator[list[Answer]]:
    """Answers to the denied station, which tries to connect all the time while the test runs."""
    found: list[Answer] = []
    stop = threading.Event()

    def connect_again_and_again() -> None:
        while not stop.is_set():
            found.append(connect(fleet.station("denied"), machine.ipv4, SSH, timeout=0.5))
            time.sleep(0.05)

    thread = threading.Thread(target=connect_again_and_again)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def active_since(machine: Machine, unit: str) -> int:
    """Microseconds from the boot until the unit was started."""
    argv = ["systemctl", "show", "--property", "ActiveEnterTimestampMonotonic", "--value", unit]
    return int(machine.ssh(argv).stdout)


def test_reboot_filters_before_sshd_answers(
    host: Any, fleet: Fleet, machine: Machine, answers_to_denied: list[Answer]
) -> None:
    with denied_for_a_while(host) as end:
        machine.reboot()
        assert answers_to_denied
        assert set(answers_to_denied) == {Answer.NONE}
        filtering, listening = (
            active_since(machine, unit) for unit in ("packetwatch-xdp@eth0.service", "ssh.service")
        )
        assert 0 < filtering < listening
        # The clock was not synchronised since the boot, so an expired deny entry must stay.
        time.sleep(max(0.0, end + 5 - time.time()))
        assert connect(fleet.station("client"), machine.ipv4, SSH, timeout=4.0) is Answer.NONE
    assert connect(fleet.station("client"), machine.ipv4, SSH) is Answer.OPEN


def test_attaching_takes_no_place_in_tmp(host: Any) -> None:
    # systemd makes folders for some kinds of sandbox in /tmp, but at boot /tmp is emptied meanwhile.
    unit = "packetwatch-xdp@eth0.service"
    host.check_output(
        "mount -t tmpfs -o ro tmpfs /tmp; trap 'umount --lazy /tmp' EXIT;"
        f" systemctl reset-failed {unit}; systemctl restart {unit}"
    )
    assert host.service(unit).is_running


def test_bans_survive_the_reboot(fleet: Fleet, machine: Machine, host: Any) -> None:
    wait_for(lambda: [ban for ban in info(host, "bans")["bans"] if ban["source"] == SCANNER])
    assert connect(fleet.station("scanner"), machine.ipv4, SSH) is Answer.NONE
