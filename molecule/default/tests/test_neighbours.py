# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packetwatch in libxdp's dispatcher, beside Debian's xdp-filter and programs of the tests.

Each test goes on from where the one before it left the host. pw7 is one end of a veth pair, whose other end is in
the namespace `neighbour`. Extensions of XDP programs need the kernels of Debian, so this runs in machines.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lab
import pytest
from lab.scenario import HOSTS, SSH, info, module, wait_for
from lab.traffic import Answer, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fleet import Fleet
    from lab.machine import Machine

testinfra_hosts = HOSTS

LAB = Path(lab.__file__).parent
SET_UP = """
ip netns add neighbour
ip link add pw7 type veth peer name p7 netns neighbour
ip address add 10.9.0.1/24 dev pw7
ip link set pw7 up
ip -n neighbour link set lo up
ip -n neighbour link set p7 up
for host in 2 66 77; do ip -n neighbour address add 10.9.0.$host/24 dev p7; done
base64 -d >/root/neighbour.o
"""
TEAR_DOWN = "ip netns delete neighbour; rm -rf /root/neighbour.o /run/second"
OURS, THEIRS = 60, 20


@pytest.fixture(scope="module")
def neighbour() -> bytes:
    """The neighbour's programs, compiled."""
    argv = [*("clang", "-O2", "-g", "-Wall", "-target", "bpf"), "-I/usr/include/x86_64-linux-gnu"]
    source = str(LAB / "neighbour.bpf.c")
    done = subprocess.run([*argv, "-c", source, "-o", "-"], capture_output=True, check=True)
    return done.stdout


def step(machine: Machine, name: str, *arguments: object) -> Any:
    """Run a step of lab/chain_on_host.py on the host."""
    argv = ["python3", "-", name, *map(str, arguments)]
    script = (LAB / "chain_on_host.py").read_text(encoding="utf-8")
    return json.loads(machine.ssh(argv, stdin=script, timeout=240).stdout)


def members(machine: Machine) -> list[str]:
    """The names of the programs in the dispatcher of pw7."""
    return [member["name"] for member in step(machine, "chain")]


def load(machine: Machine, program: str, priority: int) -> None:
    machine.ssh(
        ["xdp-loader", "load", "pw7", "/root/neighbour.o", "-n", program, "-P", str(priority)]
    )


def unload(machine: Machine, name: str) -> None:
    # The kernel keeps 15 characters of a name.
    (found,) = [member for member in step(machine, "chain") if member["name"] == name[:15]]
    machine.ssh(["xdp-loader", "unload", "pw7", "--id", str(found["id"])])


def reaches(machine: Machine, source: str) -> bool:
    """Whether a source in the namespace gets an answer: an error of ICMP, because no service is there."""
    script = (
        "import socket; s = socket.socket(2, 2); s.settimeout(1); s.bind(('SOURCE', 0));"
        "s.connect(('10.9.0.1', 9)); s.send(b'x'); s.recv(1)"
    ).replace("SOURCE", source)
    argv = ["ip", "netns", "exec", "neighbour", "python3", "-c", script]
    return "refused" in machine.ssh(argv, check=False).stderr


def place(host: Any, **options: Any) -> dict[str, Any]:
    """Filter pw7 as a member."""
    options |= {"mode": "dispatcher", "confirm_timeout": 0}
    return module(host, "program", interface="pw7", **options)


def test_it_joins_a_program_that_was_there_before(
    host: Any, machine: Machine, neighbour: bytes
) -> None:
    machine.ssh(["sh", "-ec", SET_UP], stdin=base64.b64encode(neighbour).decode())
    module(host, "access_lists", name="neighbour", deny=["10.9.0.66"], confirm_timeout=0)
    machine.ssh(["xdp-filter", "load", "pw7", "--policy", "allow", "--features", "ipv4"])
    refused = module(host, "program", interface="pw7")
    assert "join it with mode dispatcher" in refused["msg"]
    done = place(host, priority=20)
    assert (done["changed"], done["mode"]) == (True, "dispatcher:20:pass")
    assert not place(host, priority=20)["changed"]
    assert members(machine) == ["xdpfilt_alw_ip", "packetwatch"]
    assert reaches(machine, "10.9.0.2")
    assert not reaches(machine, "10.9.0.66")
    assert info(host, "interfaces")["interfaces"]["pw7"]["mode"] == "dispatcher:20:pass"


def test_the_neighbour_is_removed_under_it(machine: Machine) -> None:
    machine.ssh(["xdp-filter", "unload", "pw7"])
    assert members(machine) == ["packetwatch"]
    assert not reaches(machine, "10.9.0.66")


def test_programs_that_come_after_it_join(machine: Machine) -> None:
    load(machine, "neighbour_count", 60)
    assert members(machine) == ["packetwatch", "neighbour_count"]
    assert step(machine, "verify") == []


def test_no_packet_is_lost_and_none_leaks_while_the_chain_changes(machine: Machine) -> None:
    found = step(machine, "flood", OURS, THEIRS)
    print(found)
    sent = found["sent"]
    assert sent > 1000
    assert found["leaked"] == 0
    assert found["is_replaced"]
    assert [found[key] for key in ("denied", "counted", "arrived")] == [sent] * 3


def test_a_program_before_it_rewrites_what_it_judges(host: Any, machine: Machine) -> None:
    assert reaches(machine, "10.9.0.2")
    load(machine, "neighbour_rewrite", 5)
    before = info(host, "counters")["counters"]["packets"]["drop"]["deny"]["ipv4"]
    send = "import socket; s = socket.socket(2, 2); s.bind(('10.9.0.77', 0)); s.sendto(b'x', ('10.9.0.1', 7000))"
    machine.ssh(["ip", "netns", "exec", "neighbour", "python3", "-c", send])
    assert info(host, "counters")["counters"]["packets"]["drop"]["deny"]["ipv4"] == before + 1
    unload(machine, "neighbour_rewrite")


def test_a_second_filter_is_refused(machine: Machine) -> None:
    assert "already has a program packetwatch" in step(machine, "second")


def test_a_change_that_is_not_confirmed_is_reverted(machine: Machine) -> None:
    pending, reverted = step(machine, "revert")
    assert sorted(pending) == [40, 60]
    assert sorted(reverted) in ([20, 60], [30, 60])


def test_it_joins_again_after_the_dispatcher_was_detached(machine: Machine) -> None:
    machine.ssh(["bpftool", "net", "detach", "xdp", "dev", "pw7"])
    assert members(machine) == []
    wait_for(lambda: members(machine) == ["packetwatch"], 90)
    assert not reaches(machine, "10.9.0.66")


def test_detaching_leaves_the_neighbour(host: Any, machine: Machine) -> None:
    load(machine, "neighbour_drop", 70)
    assert module(host, "program", interface="pw7", state="detached", confirm_timeout=0)["changed"]
    assert members(machine) == ["neighbour_drop"]
    unload(machine, "neighbour_drop")
    module(host, "access_lists", name="neighbour", state="absent", confirm_timeout=0)
    module(host, "access_lists", name="many", state="absent", confirm_timeout=0)
    machine.ssh(["sh", "-c", TEAR_DOWN])


@pytest.fixture
def eth0_in_a_dispatcher(host: Any, machine: Machine) -> Iterator[None]:
    assert module(host, "program", interface="eth0", mode="dispatcher")["changed"]
    yield
    assert module(host, "program", interface="eth0")["changed"]


def test_it_is_a_member_again_after_a_reboot(
    host: Any, fleet: Fleet, machine: Machine, eth0_in_a_dispatcher: None
) -> None:
    machine.reboot()
    assert info(host, "interfaces")["interfaces"]["eth0"]["mode"] == "dispatcher:10:pass"
    assert connect(fleet.station("denied"), machine.ipv4, SSH, timeout=4.0) is Answer.NONE
    assert connect(fleet.station("client"), machine.ipv4, SSH) is Answer.OPEN
