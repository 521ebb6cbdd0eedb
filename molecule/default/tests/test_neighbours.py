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
for host in 2 66 77 78; do ip -n neighbour address add 10.9.0.$host/24 dev p7; done
base64 -d >/root/neighbour.o
"""
TEAR_DOWN = "ip netns delete neighbour; rm -rf /root/neighbour.o /run/second"
UNLISTED, DENIED, REWRITTEN, ALLOWED = (f"10.9.0.{number}" for number in (2, 66, 77, 78))
# Changes by Packetwatch, and replacements by the neighbour's tool, each of which is two changes.
OURS, THEIRS = 60, 20
# Of a packet in a dispatcher, as a part of the filter standing alone.
MAX_COST = 2.0


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


def load(machine: Machine, program: str, priority: int) -> int:
    """Load one of the neighbour's programs, by libxdp's tool; return its id."""
    return int(step(machine, "load", program, priority))


def unload(machine: Machine, number: int) -> None:
    machine.ssh(["xdp-loader", "unload", "pw7", "--id", str(number)])


def place(host: Any, **options: Any) -> dict[str, Any]:
    """Filter pw7 as a member."""
    options |= {"mode": "dispatcher", "confirm_timeout": 0}
    return module(host, "program", interface="pw7", **options)


def test_it_joins_a_program_that_was_there_before(
    host: Any, machine: Machine, neighbour: bytes
) -> None:
    machine.ssh(["sh", "-ec", SET_UP], stdin=base64.b64encode(neighbour).decode())
    lists = {"deny": [DENIED], "allow": [ALLOWED]}
    module(host, "access_lists", name="neighbour", confirm_timeout=0, **lists)
    machine.ssh(["xdp-filter", "load", "pw7", "--policy", "allow", "--features", "ipv4"])
    refused = module(host, "program", interface="pw7")
    assert "join it with mode dispatcher" in refused["msg"]
    done = place(host, priority=20)
    assert (done["changed"], done["mode"]) == (True, "dispatcher:20:pass")
    assert not place(host, priority=20)["changed"]
    assert members(machine) == ["xdpfilt_alw_ip", "packetwatch"]
    assert step(machine, "ask", UNLISTED, DENIED) == [True, False]
    found = info(host, "interfaces")["interfaces"]["pw7"]
    assert found["mode"] == "dispatcher:20:pass"
    assert [(item["name"], item["passes_on"]) for item in found["chain"]] == [
        ("xdpfilt_alw_ip", ["pass"]),
        ("packetwatch", ["pass"]),
    ]


def test_the_neighbour_is_removed_under_it_and_loaded_again_after_it(machine: Machine) -> None:
    machine.ssh(["xdp-filter", "unload", "pw7"])
    assert members(machine) == ["packetwatch"]
    assert step(machine, "ask", UNLISTED, DENIED) == [True, False]
    machine.ssh(["xdp-filter", "load", "pw7", "--policy", "allow", "--features", "ipv4"])
    assert members(machine) == ["xdpfilt_alw_ip", "packetwatch"]
    assert step(machine, "ask", UNLISTED, DENIED) == [True, False]
    machine.ssh(["xdp-filter", "unload", "pw7"])


def test_programs_that_come_after_it_join(machine: Machine) -> None:
    number = load(machine, "neighbour_count", 60)
    ours, other = step(machine, "chain")
    assert (ours["name"], other["name"], other["id"]) == ("packetwatch", "neighbour_count", number)
    assert step(machine, "verify") == []
    shown = machine.ssh(["packetwatchctl", "why", DENIED]).stdout
    rows = [
        "  programs on pw7, in this order:",
        *(
            f"    {at}. {item['name']} (id {item['id']}, tag {item['tag']}), hands on: pass"
            for at, item in enumerate((ours, other), 1)
        ),
    ]
    assert "\n".join(rows) in shown


def test_no_packet_is_lost_and_none_leaks_while_the_chain_changes(
    machine: Machine, record_property: Any
) -> None:
    found = step(machine, "flood", OURS, THEIRS)
    record_property("100 changes", found)
    sent = found["sent"]
    assert sent > 1000
    assert found["leaked"] == 0
    assert found["is_replaced"]
    assert [found[key] for key in ("denied", "counted", "arrived")] == [sent] * 3


def test_a_program_before_it_rewrites_what_it_judges(machine: Machine) -> None:
    number = load(machine, "neighbour_rewrite", 5)
    before = step(machine, "denied")
    assert step(machine, "ask", UNLISTED, REWRITTEN) == [True, False]
    assert step(machine, "denied") == before + 1
    unload(machine, number)
    assert step(machine, "ask", REWRITTEN) == [True]


def test_a_program_that_drops(machine: Machine) -> None:
    """Before Packetwatch it hides packets from it; after it, it gets what passes, of allowed sources too."""
    assert step(machine, "drop") == {
        "before": [False, False, True, 0],
        "after": [False, False, True, 1],
    }


def test_no_program_runs_after_it_if_that_is_declared(machine: Machine) -> None:
    assert step(machine, "last") == [True, 0, True, 1]


def test_a_second_filter_is_refused(machine: Machine) -> None:
    assert "already has a program packetwatch" in step(machine, "second")


def test_a_change_that_is_not_confirmed_is_reverted(machine: Machine) -> None:
    pending, reverted = step(machine, "revert")
    assert sorted(pending) == [40, 60]
    assert sorted(reverted) in ([20, 60], [30, 60])


def test_its_device_moves_to_another_namespace_and_comes_back(machine: Machine) -> None:
    away, back, names, wrong = step(machine, "wander")
    assert (away, back) == ([True, False], [True, False])
    assert names == ["packetwatch", "neighbour_count"]
    assert wrong == []


def test_the_cost_of_a_place(machine: Machine, record_property: Any) -> None:
    """An emulated processor says little about time, so the limits are wide."""
    found = step(machine, "cost")
    record_property("nanoseconds of a packet", found)
    assert all(found[f"{name} : alone"] < MAX_COST for name in ("one", "two"))


def test_it_joins_again_after_the_dispatcher_was_detached(machine: Machine) -> None:
    machine.ssh(["bpftool", "net", "detach", "xdp", "dev", "pw7"])
    assert members(machine) == []
    wait_for(lambda: members(machine) == ["packetwatch"], 90)
    assert step(machine, "ask", UNLISTED, DENIED) == [True, False]


def test_a_member_that_keeps_it_from_a_large_mtu_is_named(machine: Machine) -> None:
    ((ours, priority),) = [(item["name"], item["priority"]) for item in step(machine, "chain")]
    said, after = step(machine, "large")
    # Linux 6.12 refuses such an MTU while the member is there, Linux 6.1 the next change of the dispatcher.
    named = "only if all its programs do, and neighbour_count (id "
    assert named in said or "mtu greater than device maximum" in said
    assert after == [[ours, priority], ["neighbour_count", 60]]


def test_detaching_leaves_the_neighbour(host: Any, machine: Machine) -> None:
    number = load(machine, "neighbour_drop", 70)
    assert module(host, "program", interface="pw7", state="detached", confirm_timeout=0)["changed"]
    assert members(machine) == ["neighbour_drop"]
    unload(machine, number)


def test_a_next_program_where_it_stands_alone(machine: Machine) -> None:
    answers = [False, False, True, False]
    assert step(machine, "follow") == [*answers, "packetwatch", "next"]


def test_it_leaves_a_dispatcher_in_another_namespace(machine: Machine) -> None:
    assert step(machine, "leave") == [False, True]
    step(machine, "forget")
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
