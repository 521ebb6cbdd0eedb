# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control socket in a loop: rights, limits, faults; and the data that `top` keeps."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from packetwatch_agent.control import audit, server, wire
from packetwatch_agent.control.follow import Follow
from packetwatch_agent.control.requests import Command, Requests
from packetwatch_agent.control.rights import (
    CHANGE,
    FLEET,
    NOTHING,
    READ,
    Peer,
    Rights,
    peer_of,
    user_name,
)
from packetwatch_agent.control.server import Server
from packetwatch_agent.control.talkers import SIZE, WINDOW, Summary, Talkers
from packetwatch_agent.control.watch import Watch
from packetwatch_agent.loop import IDLE, Loop
from packetwatch_agent.output import Output
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.ring import HEADER

ROOT = Path(__file__).resolve().parents[2]

# Rights


@pytest.fixture
def groups(tmp_path: Path) -> str:
    path = tmp_path / "group"
    path.write_text("root:x:0:\nlook:x:100:ann,bob\nchange:x:200:\nbroken\nodd:x:many:\n")
    return str(path)


@pytest.mark.parametrize(
    ("peer", "right"),
    [
        (Peer(1, 0, frozenset({0})), CHANGE),
        (Peer(1, 7, frozenset({7})), NOTHING),
        (Peer(1, 7, frozenset({7, 100})), READ),
        (Peer(1, 7, frozenset({200})), CHANGE),
        (Peer(1, 7, frozenset({100, 200})), CHANGE),
        (Peer(1, 7, frozenset({300})), CHANGE),
        (Peer(1, 100, frozenset({7})), NOTHING),
        (Peer(1, 7, frozenset({0})), NOTHING),
    ],
)
def test_rights(peer: Peer, right: int, groups: str) -> None:
    assert Rights("look", "change 300", groups).of(peer) == right


def test_the_user_of_the_fleet_has_that_right_alone(tmp_path: Path, groups: str) -> None:
    users = tmp_path / "passwd"
    users.write_text("root:x:0:0::/:\nfleet:x:50:50::/:\n")
    rights = Rights("look", "change", groups, fleet="fleet 60", users=str(users))
    held = {uid: rights.of(Peer(1, uid, frozenset({100, 200}))) for uid in (0, 50, 60, 70)}
    assert held == {0: CHANGE | FLEET, 50: FLEET, 60: FLEET, 70: CHANGE}
    peer = Peer(1, 50, frozenset())
    assert rights.permit(peer, FLEET) and not rights.permit(peer, READ)
    users.write_text("root:x:0:0::/:\n")
    assert rights.of(peer) == NOTHING
    assert Rights("look", "change", groups).of(Peer(1, 0, frozenset())) == CHANGE


def test_groups_that_do_not_exist_give_no_right(tmp_path: Path, groups: str) -> None:
    peer = Peer(1, 7, frozenset({7, 100, 200}))
    assert Rights("missing odd", "", groups).of(peer) == NOTHING
    assert Rights("look", "change", str(tmp_path / "missing")).of(peer) == NOTHING


def test_the_kernel_tells_who_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert os.getgid() in peer.groups
    assert set(os.getgroups()) <= peer.groups


def test_names_of_users(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text("root:x:0:0::/root:/bin/sh\nann:x:7:7::/:/bin/sh\n")
    assert user_name(7, str(path)) == "ann"
    assert user_name(8, str(path)) == ""


def test_an_audit_line_says_who_what_and_with_what_result() -> None:
    request = {"command": "ban", "address": "192.0.2.9", "duration": 60.0, "reason": "r", "x": None}
    line = json.loads(
        audit.line("web1", Peer(5, 4711, frozenset()), "ban", audit.arguments_of(request))
    )
    assert line["user.id"] == "4711"
    assert line["packetwatch.arguments"] == ["address=192.0.2.9", "duration=60.0"]
    assert line["event.outcome"] == "success"
    line = json.loads(
        audit.line("web1", Peer(5, 0, frozenset()), "ban", error=InvalidInput("no"), reason="r")
    )
    assert (line["event.outcome"], line["message"], line["event.reason"]) == ("failure", "no", "r")


# The socket


class Lab:
    """A server in a loop, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "control.sock")
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.output = Output(writer, "host")
        self.loop = Loop(lambda: IDLE)
        self.made = 0
        self.commands: dict[str, Command] = {
            "status": Command(READ, lambda request: {"up": True}),
            "many": Command(READ, self._many),
            "fault": Command(READ, self._fault),
            "late": Command(READ, self._late),
            "ban": Command(CHANGE, self._change),
            **Watch(self.output).commands(),
        }
        readers = str(os.getgid())
        self.server = Server(
            self.loop, self.path, Rights(readers, readers), self.commands, self.output
        )
        self.jobs: list[Callable[[], object]] = []
        self.loop.after(0, self._work)
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def _work(self) -> float:
        while self.jobs:
            self.jobs.pop(0)()
        return 0.01

    def _many(self, request: wire.Request) -> Iterator[str]:
        for number in range(request["count"]):
            self.made += 1
            yield wire.item(number)
        yield wire.done({"whole": True})

    def _fault(self, request: wire.Request) -> wire.Result:
        raise ZeroDivisionError("a fault of ours")

    def _late(self, request: wire.Request) -> Iterator[str]:
        yield wire.item(1)
        raise InvalidInput("no more")

    def _change(self, request: wire.Request) -> wire.Result:
        if request.get("fail"):
            raise InvalidInput("refused")
        return {"message": "done"}

    def connect(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(10)
        found.connect(self.path)
        return found

    def written(self) -> list[dict[str, Any]]:
        try:
            data = os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return []
        return [json.loads(line) for line in data.splitlines()]

    def close(self) -> None:
        self.jobs.append(self.server.close)
        self.jobs.append(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    found = Lab(tmp_path)
    yield found
    found.close()
    assert not Path(found.path).exists()


def ask(lab: Lab, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Send all requests at once; return all answers up to that of the last request."""
    with lab.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in requests))
        found: list[dict[str, Any]] = []
        left = len(requests)
        while left:
            found.append(json.loads(answers.readline()))
            left -= "ok" in found[-1]
    return found


def test_requests_on_one_connection_are_answered_in_order(lab: Lab) -> None:
    many = {"command": "many", "count": 3}
    answers = ask(lab, {"command": "status"}, many, {"command": "status"})
    assert [answer.get("item") for answer in answers] == [None, 0, 1, 2, None, None]
    assert answers[0] == answers[-1] == {"ok": True, "result": {"up": True}}


def test_a_long_answer_comes_in_pieces(lab: Lab) -> None:
    count = 200_000
    with lab.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b'{"command":"many","count":%d}\n' % count)
        threading.Event().wait(0.3)
        assert 0 < lab.made < count / 2
        for number in range(count):
            assert answers.readline() == b'{"item":%d}\n' % number
        assert json.loads(answers.readline())["result"] == {"whole": True}


def test_a_fault_of_ours_is_answered_and_logged(lab: Lab) -> None:
    answers = ask(lab, {"command": "fault"}, {"command": "late"}, {"command": "status"})
    assert [answer.get("ok") for answer in answers] == [False, None, False, True]
    (line,) = lab.written()
    assert "ZeroDivisionError" in line["message"]


def test_every_change_is_logged(lab: Lab) -> None:
    ask(lab, {"command": "ban", "address": "a", "reason": "why"}, {"command": "ban", "fail": True})
    first, second = lab.written()
    assert (first["event.outcome"], first["event.reason"]) == ("success", "why")
    assert (second["event.outcome"], second["message"]) == ("failure", "refused")
    assert first["user.id"] == str(os.getuid())


def test_followers_get_what_they_want_and_nothing_when_gone(lab: Lab) -> None:
    with lab.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(
            b'{"command":"watch","actions":["ban","scan"],"sources":["203.0.113.1"]}\n'
        )
        assert json.loads(answers.readline()) == {"item": None}
        lines = [
            wire.encode({"event.action": action, "source.ip": source})
            for action in ("ban", "lift", "scan")
            for source in ("203.0.113.1", "203.0.113.2")
        ]
        lab.jobs.append(lambda: lab.output.write(lines))
        found = [json.loads(answers.readline())["item"]["event.action"] for dummy in range(2)]
        assert found == ["ban", "scan"]
    for dummy in range(200):
        if lab.output.tap is None:
            break
        threading.Event().wait(0.02)
    assert lab.output.tap is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actions": ["ban", "x" * 1000]}, "is not an event: send some of connection, probe, scan"),
        ({"actions": ["a"] * 10000}, "'a' is not an event"),
        ({"sources": [f"203.0.113.{n}" for n in range(33)]}, "33 addresses: send at most 32"),
        ({"sources": ["203.0.113.0/24"]}, "a single address is needed"),
        ({"sources": ["\ud800"]}, "is not an IP address"),
        ({"actions": {"ban": 1}}, "send a list of texts"),
    ],
)
def test_what_a_client_may_follow_is_bounded(
    lab: Lab, arguments: dict[str, Any], message: str
) -> None:
    (answer,) = ask(lab, {"command": "watch", **arguments})
    assert answer["error"]["kind"] == "input"
    assert message in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 400
    assert lab.output.tap is None


def test_the_same_filter_many_times_costs_no_more(lab: Lab) -> None:
    follow = (
        Watch(lab.output)
        .commands()["watch"]
        .run({"actions": ["ban"] * 9000, "sources": ["203.0.113.1"] * 4000 + ["2001:DB8::0"]})
    )
    assert isinstance(follow, Follow)
    fields = {"event.action": "ban", "source.ip": "2001:db8::"}
    assert follow.matches(wire.encode(fields))
    assert not follow.matches(wire.encode(fields | {"event.action": "lift"}))
    assert not follow.matches(wire.encode({"message": wire.encode(fields)}))
    began = time.thread_time()
    for dummy in range(10_000):
        follow.matches('{"event.action":"connection"}')
    assert time.thread_time() - began < 0.5


def test_lines_that_find_no_room_are_counted(lab: Lab) -> None:
    count = 0

    def write() -> None:
        for dummy in range(8):
            lab.output.write(["{}"] * 1000)

    with lab.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b'{"command":"watch"}\n')
        assert json.loads(answers.readline()) == {"item": None}
        # All at once, so that nothing is passed on meanwhile.
        lab.jobs.append(write)
        while count < 8000:
            answer = json.loads(answers.readline())
            count += 1 if "item" in answer else answer["missed"]
    assert count == 8000


def test_what_a_follower_sends_is_discarded(lab: Lab) -> None:
    with lab.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b'{"command":"watch"}\n' + b'{"command":"status"}\n' * 1000)
        assert json.loads(answers.readline()) == {"item": None}
        lab.jobs.append(lambda: lab.output.write(['{"a":1}']))
        assert json.loads(answers.readline()) == {"item": {"a": 1}}


def test_events_that_may_be_named_are_those_that_are_documented() -> None:
    text = (ROOT / "docs/events.md").read_text()
    table = text[text.index("| `event.action` | written when") :].partition("\n\n")[0]
    documented = set(re.findall(r"^\| ([a-z_]+) \|", table, re.M))
    assert documented == set(wire.ACTIONS)
    completion = ROOT / "roles/packetwatch/files/completion/packetwatchctl.bash"
    options = re.search(r"--action\) options='([^']*)'", completion.read_text())
    assert options and set(options[1].split()) == set(wire.ACTIONS)


def test_a_change_of_the_groups_is_noticed(tmp_path: Path, groups: str) -> None:
    rights, peer = Rights("look", "change", groups), Peer(1, 7, frozenset({7, 300}))
    assert rights.of(peer) == NOTHING
    Path(groups).write_text("look:x:300:\n")
    assert rights.of(peer) == READ
    Path(groups).unlink()
    assert rights.of(peer) == NOTHING


class Ticker:
    """A stream that is not the log."""

    def __init__(self) -> None:
        self.tap: Callable[[Sequence[str]], None] | None = None

    def tick(self, line: str) -> None:
        if self.tap:
            self.tap([line])


def test_a_command_may_offer_a_stream_of_its_own(lab: Lab) -> None:
    ticker = Ticker()
    lab.commands["ticks"] = Command(READ, lambda request: Follow(ticker, lambda line: True))
    with lab.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b'{"command":"ticks"}\n')
        assert json.loads(answers.readline()) == {"item": None}
        assert lab.output.tap is None
        lab.jobs.append(lambda: lab.output.write(["{}"]))
        lab.jobs.append(lambda: ticker.tick('{"tick":1}'))
        assert json.loads(answers.readline()) == {"item": {"tick": 1}}
    for dummy in range(200):
        if ticker.tap is None:
            break
        threading.Event().wait(0.02)
    assert ticker.tap is None


def test_a_right_for_some_commands_gives_no_other(lab: Lab, groups: str) -> None:
    fleet = 4

    class Fleet(Rights):
        def of(self, peer: Peer) -> int:
            return fleet

    rights = Fleet("", "", groups)
    requests = Requests(
        {
            "report": Command(fleet, lambda request: {"done": True}),
            "status": Command(READ, lambda request: {}),
        },
        rights,
        lab.output,
    )
    peer = Peer(1, 7, frozenset())
    assert requests.admit(peer) == fleet
    assert requests.answer(peer, b'{"command":"report"}') == {"done": True}
    with pytest.raises(wire.ControlError, match="not permitted"):
        requests.answer(peer, b'{"command":"status"}')


def test_the_silent_are_dropped(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.0)
    with lab.connect() as silent:
        silent.sendall(b'{"command":')
        threading.Event().wait(0.1)
        lab.jobs.append(lab.server._sweep)
        assert silent.recv(100) == b""


def test_a_place_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    loop = Loop(lambda: IDLE)
    with pytest.raises(OSError, match="in use"):
        Server(loop, str(path), Rights("", ""), {}, Output(1, "host"))
    assert path.read_text() == "mine"
    loop.close()


# The data that top keeps


def record(source: int, port: int = 80, kind: int = abi.EVENT_CONNECTION) -> bytes:
    saddr = bytes(12) + source.to_bytes(4, "big")
    return abi.EVENT.pack(type=kind, family=4, saddr=saddr, dport=port)[: abi.EVENT_SHORT]


def test_heavy_sources_are_found_among_a_million() -> None:
    summary = Summary()
    heavy = b"heavy"
    for start in range(0, 200_000, 1000):
        counts: dict[bytes, int] = {bytes(str(start + i), "ascii"): 1 for i in range(1000)}
        summary.add(counts | {heavy: 100})
        assert len(summary.counts) <= SIZE
    exact = 200 * 100
    assert max(summary.counts, key=summary.counts.__getitem__) == heavy
    assert exact - summary.error <= summary.counts[heavy] <= exact
    assert summary.error <= (200_000 + exact) / (SIZE + 1)


def test_counts_slide_over_a_minute() -> None:
    now = [0.0]
    talkers = Talkers(lambda: now[0])
    talkers.note([record(1)] * 100)
    assert [count for dummy, count in talkers.sources(5)] == [100]
    now[0] = WINDOW * 1.5
    talkers.note([record(2)] * 10)
    assert [count for dummy, count in talkers.sources(5)] == [50, 10]
    assert [count for dummy, count in talkers.ports(5)] == [60]
    now[0] = WINDOW * 4
    assert talkers.sources(5) == []


def test_of_a_large_batch_a_sample_is_taken() -> None:
    talkers = Talkers()
    alike = bytes(HEADER) + record(1)
    talkers.sample(len(record(1)), 1000, memoryview(alike * 1000))
    ((dummy, count),) = talkers.sources(5)
    assert 900 <= count <= 1100
    talkers.sample(len(record(1)), 1, memoryview(alike))
    assert talkers.sources(5)[0][1] == count + 1
    talkers.note([b"short", record(1, kind=abi.EVENT_BAN), b""])
    assert talkers.sources(5)[0][1] == count + 1


def test_scans_are_bounded_and_the_newest_first() -> None:
    talkers = Talkers()
    for number in range(1000):
        talkers.note_scan(bytes(12) + number.to_bytes(4, "big"), "syn", 5, "ban")
    assert len(talkers.scans(1000)) == 64
    assert int.from_bytes(talkers.scans(1)[0].address, "big") == 999


def test_a_scanner_is_shown_once() -> None:
    talkers = Talkers()
    for address, ports in ((b"a" * 16, 5), (b"b" * 16, 6), (b"a" * 16, 7)):
        talkers.note_scan(address, "syn", ports, "ban")
    assert [(scan.address[:1], scan.ports) for scan in talkers.scans(10)] == [(b"a", 7), (b"b", 6)]
