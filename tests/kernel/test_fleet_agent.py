# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's side of the fleet: a real agent and kernel, and a fleet process that tries everything."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kernel.controlling import (
    ADMIN,
    AGENT,
    OUTSIDER,
    PROTECTED,
    PYTHON,
    READER,
    Controlled,
    User,
    rights_of,
)
from kernel.hosting import OWN, XDP_DROP, XDP_PASS, other_program
from kernel.packets import ACK, IPV4, ethernet, ipv4, syn4, tcp

from packetwatch_core._bans.bans import Ban
from packetwatch_core._kernel import abi

pytest_plugins = ("kernel.agent_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs")

FLEET = User(62005, 62005)
ON = {"PW_FLEET": "enforce", "PW_FLEET_USER": str(FLEET.uid)}
LIMIT_KIB = 25 * 1024
COMMANDS = ("fleet_watch", "fleet_apply", "fleet_bans")
OTHERS = ("status", "bans", "protect", "why", "top", "ban", "unban", "watch")
_PIPE = """
import os, socket, sys, threading
found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
found.connect(sys.argv[1])
def send():
    while data := os.read(0, 65536):
        found.sendall(data)
    found.shutdown(socket.SHUT_RDWR)
threading.Thread(target=send, daemon=True).start()
while data := found.recv(65536):
    os.write(1, data)
"""


class Client:
    """A connection to the agent, by a process of another user."""

    def __init__(self, path: Path, user: User = FLEET) -> None:
        self._data = b""
        self.process = subprocess.Popen(
            [PYTHON, "-Ic", _PIPE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **rights_of(user),
        )

    def send(self, **request: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def line(self) -> Any:
        assert self.process.stdout
        while b"\n" not in self._data:
            assert select.select([self.process.stdout], [], [], 10)[0], (
                f"no line within 10 s, only {self._data!r}"
            )
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, "the connection has ended"
            self._data += data
        line, dummy, self._data = self._data.partition(b"\n")
        return json.loads(line)

    def ask(self, command: str, **arguments: Any) -> tuple[dict[str, Any], list[Any]]:
        """Return the last line of an answer, and its items."""
        self.send(command=command, **arguments)
        items = []
        while "item" in (answer := self.line()):
            items.append(answer["item"])
        return answer, items

    def apply(self, ban: Sequence[Any] = (), lift: Sequence[str] = ()) -> dict[str, Any]:
        """Return the result, with the refusals that are not 0 beside the rest."""
        answer, dummy = self.ask("fleet_apply", ban=list(ban), lift=list(lift))
        result = answer["result"] | answer["result"].pop("refused")
        return {name: number for name, number in result.items() if number}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def client(host: Controlled, user: User = FLEET) -> Iterator[Client]:
    found = Client(host.control, user)
    try:
        yield found
    finally:
        found.close()


def fleet(address: str, seconds: float = 600, evidence: str = "manual") -> list[Any]:
    return [address, seconds, "e1/quorum", evidence]


@pytest.fixture
def host(shared: Controlled) -> Iterator[Controlled]:
    """A host without bans, whose agent answers the fleet; the test runs in its namespace."""
    with shared.site.wire.host.entered():
        shared.stop()
        shared.start(**ON)
        yield shared
        with shared.bans() as bans:
            for ban in bans.walk():
                bans.remove(ban)


def bans_of(host: Controlled) -> dict[str, Ban]:
    with host.bans() as bans:
        return {ban.source.text: ban for ban in bans.active()}


def verdict(host: Controlled, source: str, port: int = 22, frame: bytes = b"") -> int:
    with host.site.program() as program:
        found: int = program.test_run(
            frame or syn4(source, port, OWN), socket.if_nametoindex("pw0")
        )[0]
        return found


def of_a_connection(source: str) -> bytes:
    """A segment with timestamps."""
    options = b"\1\1\x08\n" + bytes(8)
    return ethernet(IPV4, ipv4(source, OWN, tcp(40000, 22, ACK, options)))


def test_without_a_fleet_its_user_has_no_right_and_its_commands_do_not_exist(
    host: Controlled,
) -> None:
    host.stop()
    host.start(PW_FLEET_USER=str(FLEET.uid))
    with client(host) as found:
        assert found.line()["error"]["kind"] == "denied"
    with host.connect() as connection, connection.makefile("rb") as answers:
        for command in COMMANDS:
            connection.sendall(b'{"command":"%s"}\n' % command.encode())
            assert "is not a command" in json.loads(answers.readline())["error"]["message"]


def test_the_fleet_process_may_use_its_commands_alone(host: Controlled) -> None:
    with client(host) as found:
        for command in OTHERS:
            answer, dummy = found.ask(command, address="203.0.113.9")
            assert answer["error"]["kind"] == "denied", command
        answer, items = found.ask("fleet_bans")
        assert answer["result"]["action"] == "enforce" and not items
    assert not bans_of(host)


@pytest.mark.parametrize("user", [AGENT, ADMIN, READER, OUTSIDER])
def test_nobody_else_may_use_them(host: Controlled, user: User) -> None:
    with client(host, user) as found:
        if user == OUTSIDER:
            assert found.line()["error"]["kind"] == "denied"
            return
        for command in COMMANDS:
            answer, dummy = found.ask(command, ban=[fleet("203.0.113.9")])
            assert answer["error"]["kind"] == "denied", command
            assert "be root or the user" in answer["error"]["message"]


@pytest.mark.slow
def test_places_of_the_fleet_process_and_of_others_are_apart(host: Controlled) -> None:
    with contextlib.ExitStack() as stack:
        ours = [stack.enter_context(client(host)) for dummy in range(4)]
        for found in ours:
            assert found.ask("fleet_bans")[0]["ok"]
        more = stack.enter_context(client(host))
        assert "at most 4" in more.line()["error"]["message"]
        assert host.ctl("status", user=READER).status == 0
        ours.pop().close()
        others = [
            stack.enter_context(client(host, User(62100 + n, 62100, (READER.groups[0],))))
            for n in range(24)
        ]
        for found in others:
            assert found.ask("status")[0]["ok"]
        follower = ours[0]
        follower.send(command="fleet_watch")
        assert follower.line() == {"item": None}
        with client(host) as again:
            assert again.ask("fleet_bans")[0]["ok"]


def test_a_fleet_ban_is_in_the_kernel_and_bans_lists_and_why_name_it(host: Controlled) -> None:
    with client(host) as found:
        assert found.apply([fleet("203.0.113.9", 600, "syn"), fleet("2001:db8:5::7")]) == {
            "banned": 2
        }
        assert verdict(host, "203.0.113.9") == XDP_DROP
        assert verdict(host, "203.0.113.9", frame=of_a_connection("203.0.113.9")) == XDP_PASS
        listed = {item["source"]: item for item in host.ctl("bans", "--json").json["bans"]}
        assert {name: (item["origin"], item["evidence"]) for name, item in listed.items()} == {
            "203.0.113.9": ("fleet", "syn"),
            "2001:db8:5::/64": ("fleet", "manual"),
        }
        assert "(fleet, evidence syn)" in host.ctl("why", "203.0.113.9").out
        dummy, items = found.ask("fleet_bans")
        assert {item[0]: item[2] for item in items} == {
            "203.0.113.9": "syn",
            "2001:db8:5::/64": "manual",
        }
        host.wait(lambda: any(line.get("packetwatch.rule") == "e1/quorum" for line in host.lines()))
        assert found.apply(lift=["203.0.113.9", "2001:db8:5::7"]) == {"lifted": 2}
        assert verdict(host, "203.0.113.9") == XDP_PASS and not bans_of(host)


def test_a_taken_over_fleet_process_bans_no_protected_source_and_lifts_nothing_of_ours(
    host: Controlled,
) -> None:
    host.site.policy(scan_ports="3", scan_counts="any")
    for port in (1, 2, 3):
        verdict(host, "203.0.113.7", port)
    host.ctl("ban", "203.0.113.8", "--for", "10m", user=ADMIN)
    before = bans_of(host)
    assert set(before) == {"203.0.113.7", "203.0.113.8"}
    everything = ["0.0.0.0/0", "0.0.0.0", "127.0.0.1", "224.0.0.1", "::/0", PROTECTED]
    with client(host) as found:
        result = found.apply([fleet(address, 1e9) for address in [*everything, "203.0.113.8"]])
        assert result == {"invalid": 2, "protected": 4, "local": 1}
        assert found.apply(lift=[*everything, *before]) == {"invalid": 2}
        assert found.apply([fleet("203.0.113.7")]) == {"banned": 1}
        assert found.apply(lift=["203.0.113.7"]) == {"lifted": 1}
    assert bans_of(host) == before
    assert verdict(host, "203.0.113.7") == XDP_DROP


@pytest.mark.slow
def test_unban_is_a_veto_that_outlasts_the_agent(host: Controlled) -> None:
    with client(host) as found:
        assert found.apply([fleet("203.0.113.9")]) == {"banned": 1}
        assert host.ctl("unban", "203.0.113.9", user=ADMIN).status == 0
        assert found.apply([fleet("203.0.113.9")]) == {"veto": 1}
    host.stop()
    host.start(**ON)
    with client(host) as found:
        assert found.apply([fleet("203.0.113.9")]) == {"veto": 1}
        assert host.ctl("ban", "203.0.113.9", user=ADMIN).status == 0
        assert found.apply([fleet("203.0.113.9")]) == {"local": 1}
        assert host.ctl("unban", "203.0.113.9").status == 0
        assert found.apply([fleet("203.0.113.9")]) == {"banned": 1}


def test_what_this_host_sees_is_streamed(host: Controlled) -> None:
    host.site.policy(scan_ports="3", scan_counts="closed")
    with client(host) as found:
        found.send(command="fleet_watch")
        assert found.line() == {"item": None}
        for port in (1, 2, 3):
            verdict(host, "203.0.113.30", port)
        seen: list[Any] = []
        while not seen or "ban" not in seen[-1]:
            seen.append(found.line()["item"])
        assert {"probe": ["203.0.113.30", 1]} in seen and {"probe": ["203.0.113.30", 2]} in seen
        (ban,) = (item["ban"] for item in seen if "ban" in item)
        assert ban[:2] == ["203.0.113.30", [1, 2, 3]] and 590 < ban[2] <= 600 and ban[3] == "syn"
        with client(host) as other:
            dummy, items = other.ask("fleet_bans", of="host")
            assert [item[0] for item in items] == ["203.0.113.30"]
        host.ctl("unban", "203.0.113.30")
        assert found.line() == {"item": {"end": ["203.0.113.30"]}}


@pytest.mark.slow
def test_ten_thousand_bans_take_a_second_and_little_memory(host: Controlled) -> None:
    addresses = [f"198.18.{n // 256}.{n % 256}" for n in range(10_000)]
    with client(host) as found:
        began = time.monotonic()
        for at in range(0, 10_000, 500):
            rows = [fleet(address) for address in addresses[at : at + 500]]
            assert found.apply(rows) == {"banned": 500}
        spent = time.monotonic() - began
        dummy, items = found.ask("fleet_bans")
        assert {item[0] for item in items} == set(addresses)
        assert found.apply([fleet("203.0.113.9")]) == {"quota": 1}
    # 0.4 s alone on the machine.
    assert spent < 3
    assert host.resident_kib() <= LIMIT_KIB
    sys.stderr.write(f"10,000 fleet bans: {spent:.2f} s, agent {host.resident_kib()} KiB\n")


def test_monitor_mode_changes_nothing_in_the_kernel(host: Controlled) -> None:
    host.stop()
    host.start(**ON | {"PW_FLEET": "monitor"})
    with client(host) as found:
        assert found.apply([fleet("203.0.113.9")]) == {"banned": 1}
        answer, items = found.ask("fleet_bans")
        assert answer["result"]["action"] == "monitor" and items[0][0] == "203.0.113.9"
    assert not bans_of(host)
    host.wait(lambda: "the fleet's bans are only monitored" in host.log.read_text())


@pytest.mark.slow
def test_fleet_bans_survive_the_agent_the_program_and_the_fleet_process(host: Controlled) -> None:
    with client(host) as found:
        found.apply([fleet("203.0.113.9", 600, "syn")])
    before = bans_of(host)
    assert host.process
    host.process.kill()
    host.process.wait()
    host.process = None
    assert verdict(host, "203.0.113.9") == XDP_DROP
    number = host.site.generation_id()
    host.site.host.attach("pw0", source=other_program())
    assert host.site.generation_id() != number
    assert verdict(host, "203.0.113.9") == XDP_DROP
    host.start(**ON)
    after = bans_of(host)["203.0.113.9"]
    assert (after.expires, after.origin, after.flags) == (
        before["203.0.113.9"].expires,
        abi.ORIGIN_FLEET,
        abi.BAN_CONNECTIONS,
    )
    with client(host) as found:
        dummy, items = found.ask("fleet_bans")
        assert [item[0] for item in items] == ["203.0.113.9"]
