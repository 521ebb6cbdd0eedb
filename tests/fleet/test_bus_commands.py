# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands by RabbitMQ 3.10 and 4.0: each row of the table, what it answers, and what is in the store after it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from fleet.api import COLLECTION, Api, running_api
from fleet.broker import RELEASES, WORK, Broker, Process, running_broker
from fleet.bus_client import Attempt, Client, passwords_of
from fleet.bus_host import read_metrics
from fleet.host_process import PATIENCE, until
from fleet.servers import FleetNodes, fleet_nodes

from packetwatch_core._node.broker import BUS, COMMANDS, VERBS, Passwords

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
]

# By operator: the role of its token, and the verbs that the broker lets it send.
OPERATORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ann": ("admin", VERBS),
    "bob": ("ban", ("ban", "explain")),
    # The broker is more generous than the API.
    "carl": ("ban", VERBS),
    "nobody": ("", VERBS),
}
ADDRESS = "203.0.113.9"
# docs/bus.md
MAX_RECONNECT = 10.0


class Desk(NamedTuple):
    """A node with all that commands need."""

    broker: Broker
    api: Api
    process: Process
    client: Client

    def send(self, user: str, verb: str, body: Any, **fields: Any) -> tuple[str, Any]:
        """Send a command and return how it ended; with `wants`: not waiting for an answer."""
        text = body if isinstance(body, str) else json.dumps(body)
        step = {"exchange": COMMANDS, "routing_key": verb, "body": text, "user_id": user, **fields}
        given = {name: value for name, value in step.items() if value is not None}
        [found] = self.client.attempt(Attempt(user, [("send", given)]))
        return found

    def state(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Banned sources, and entries of the list of commands."""
        bans = [one["source"] for one in self.api.call("GET", "/v1/bans").body["bans"]]
        found = self.api.call("GET", "/v1/lists/bus")
        assert found.status in (200, 404), found
        lists = found.body if found.status == 200 else {}
        entries = [
            (kind, one["address"]) for kind in ("allow", "deny") for one in lists.get(kind, ())
        ]
        return bans, entries

    def clear(self) -> None:
        bans, entries = self.state()
        for source in bans:
            self.api.call("DELETE", f"/v1/bans/{source}?hold=0")
        for kind, prefix in entries:
            self.api.call("DELETE", f"/v1/lists/bus/{kind}/{prefix}")

    def refusals(self, user: str) -> int:
        """How often the broker has logged that it refuses what an account sends."""
        lines = self.broker.log.read_text(errors="replace").splitlines()
        return sum(
            "Channel error on connection" in line and f"user: '{user}'" in line for line in lines
        )

    def logged(self) -> list[dict[str, Any]]:
        return [line for line in self.process.lines() if line.get("event.action") == "command"]

    def logged_since(self, count: int) -> list[dict[str, Any]]:
        """The lines after the first ones, of which there is at least one: a command is logged after its answer."""
        until(lambda: len(self.logged()) > count, shown=self.process.log.read_text)
        return self.logged()[count:]


def order(**fields: Any) -> dict[str, Any]:
    """A command; a field that is `...` is left out."""
    whole = {
        "v": 1,
        "id": str(uuid.uuid4()),
        "address": ADDRESS,
        "seconds": 600,
        "reason": "noise",
        "made": time.time(),
    } | fields
    return {name: value for name, value in whole.items() if value is not ...}


@pytest.fixture(scope="module")
def nodes() -> Iterator[FleetNodes]:
    with fleet_nodes("3.4", 1, fleet_node_api_rate=1000) as nodes:
        yield nodes


@pytest.fixture(scope="module", params=RELEASES)
def whole(nodes: FleetNodes, request: pytest.FixtureRequest) -> Iterator[Desk]:
    def passwords() -> Passwords:
        operators = {name: (f"{name}-secret", verbs) for name, (dummy, verbs) in OPERATORS.items()}
        return Passwords("bus-secret", {"host-a": "a-secret"}, {"siem": "s"}, operators)

    release = request.param
    with running_api(nodes, release) as api, running_broker(nodes, release, passwords) as broker:
        tokens = {
            name: api.add_token(f"bus-{name}", role)
            for name, (role, dummy) in OPERATORS.items()
            if role
        }
        (broker.folder / "config/tokens").write_text(json.dumps(tokens))
        process = taker(broker, "commands")
        try:
            client = Client(broker)
            yield Desk(broker, api, process, client)
            client.process.kill()
            print(f"{process.resident()} kB")
            assert process.resident() < 40 * 1024
        finally:
            process.kill()


def taker(broker: Broker, name: str, metrics: str = "") -> Process:
    """A process that takes commands, as that of a node does."""
    return Process(
        broker,
        name,
        ["-m", "packetwatch_bus"],
        broker.settings(BUS, "bus-secret")
        | {
            "PW_BUS_QUEUE": "packetwatch-commands",
            "PW_BUS_TOKENS": f"{WORK}/config/tokens",
            "PW_BUS_API": "/mnt/api/api.sock",
            "PW_BUS_METRICS_LISTEN": metrics,
        },
        broker.node.namespace,
        before=f"mkdir -p {{tree}}/mnt/api; mount --bind {broker.node.runtime} {{tree}}/mnt/api",
    )


@pytest.fixture
def desk(whole: Desk) -> Desk:
    whole.clear()
    return whole


class Row(NamedTuple):
    """answer: the status, or what the broker says. bans, entries: what is in the store afterwards."""

    name: str
    user: str
    verb: str
    body: Callable[[], Any]
    answer: int | str
    fields: Mapping[str, Any] = MappingProxyType({})
    bans: tuple[str, ...] = ()
    entries: tuple[tuple[str, str], ...] = ()


def old() -> Any:
    return order(made=time.time() - 31)


DENIED = (("deny", "203.0.113.0/24"),)
TABLE = [
    Row("ban", "ann", "ban", order, 201, bans=(ADDRESS,)),
    Row("ban by one who may", "bob", "ban", order, 201, bans=(ADDRESS,)),
    Row("deny", "ann", "deny", lambda: order(address="203.0.113.0/24"), 201, entries=DENIED),
    Row("allow", "ann", "allow", lambda: order(seconds=...), 201, entries=(("allow", ADDRESS),)),
    Row("remove what is not there", "ann", "remove", order, 204),
    Row("explain", "bob", "explain", order, 200),
    Row("no user_id", "ann", "ban", order, 401, {"user_id": None}),
    Row("forged user_id", "bob", "ban", order, "PreconditionFailed", {"user_id": "ann"}),
    Row("not permitted by the broker", "bob", "deny", order, "AccessRefused"),
    Row("not permitted by the API", "carl", "deny", order, 403),
    Row("no token", "nobody", "ban", order, 403),
    Row("a host", "host-a", "ban", order, "AccessRefused"),
    Row("not JSON", "ann", "ban", lambda: "{", 400),
    Row("not UTF-8 or NUL", "ann", "ban", lambda: "\x00\x01", 400),
    Row("no object", "ann", "ban", lambda: "[1]", 400),
    Row("nested too deeply", "ann", "ban", lambda: "[" * 4000, 400),
    Row("too long", "ann", "ban", lambda: order(reason="x" * 5000), 413),
    Row("no version", "ann", "ban", lambda: order(v=...), 400),
    Row("unknown version", "ann", "ban", lambda: order(v=2), 400),
    Row("version is true", "ann", "ban", lambda: order(v=True), 400),
    Row("unknown field", "ann", "ban", lambda: order(force=True), 400),
    Row("no id", "ann", "ban", lambda: order(id=...), 400),
    Row("id is a number", "ann", "ban", lambda: order(id=7), 400),
    Row("no address", "ann", "ban", lambda: order(address=...), 400),
    Row("not an address", "ann", "ban", lambda: order(address="../tokens"), 400),
    Row("a network is not banned", "ann", "ban", lambda: order(address="203.0.113.0/24"), 400),
    Row("seconds are a text", "ann", "ban", lambda: order(seconds="600"), 400),
    Row("no seconds", "ann", "ban", lambda: order(seconds=...), 400),
    Row("too old", "ann", "ban", old, 408),
    Row("from the future", "ann", "ban", lambda: order(made=time.time() + 60), 408),
    Row("no time", "ann", "ban", lambda: order(made=...), 400),
    Row("a node is never banned", "ann", "ban", lambda: order(address="10.79.0.11"), 409),
]


def test_a_start_is_no_trouble(desk: Desk) -> None:
    assert desk.send("ann", "explain", order())[1][0]["status"] == 200
    assert [line for line in desk.process.lines() if line["log.level"] != "info"] == []


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_a_command(desk: Desk, row: Row) -> None:
    before = len(desk.logged())
    refusals = desk.refusals(row.user)
    body = row.body()
    kind, answers = desk.send(row.user, row.verb, body, **row.fields)
    assert desk.state() == (list(row.bans), list(row.entries)), answers
    if isinstance(row.answer, str):
        assert kind == row.answer and len(desk.logged()) == before
        # The broker logs what it refuses, with the account.
        until(lambda: desk.refusals(row.user) == refusals + 1, shown=desk.broker.log.read_text)
        return
    assert kind == "ok"
    [answer] = answers
    assert answer["status"] == row.answer, answer
    [line] = desk.logged_since(before)
    assert line["http.response.status_code"] == row.answer and line["packetwatch.answered"]
    assert (line["event.outcome"] == "failure") == (row.answer >= 400) == ("error" in answer)
    if isinstance(body, dict) and isinstance(body.get("id"), str):
        assert row.answer == 413 or answer["id"] == body["id"] == line["packetwatch.id"]
    if row.verb != "explain" and row.answer < 300:
        assert answer["revision"] == line["packetwatch.revision"] > 0
        [audit] = desk.api.audit()[-1:]
        assert audit["user.name"] == f"bus-{row.user}"


def test_a_command_that_comes_twice_is_done_once(desk: Desk) -> None:
    first = order()
    assert desk.send("ann", "ban", first)[1][0]["status"] == 201
    revision = desk.api.call("GET", f"/v1/bans/{ADDRESS}").etag
    assert desk.send("ann", "ban", first)[1][0]["status"] == 409
    assert desk.send("ann", "remove", first)[1][0]["status"] == 409
    assert desk.api.call("GET", f"/v1/bans/{ADDRESS}").etag == revision
    # Nobody can use up the ids of another one.
    assert desk.send("bob", "ban", {**first, "address": "203.0.113.8"})[1][0]["status"] == 201


def test_one_of_the_nodes_at_a_server_takes_all_commands(desk: Desk) -> None:
    other = taker(desk.broker, "other", "127.0.0.1:9481")
    try:
        page = desk.broker.node.namespace, 9481
        until(lambda: bool(read_metrics(*page).get("connected")), shown=other.log.read_text)
        first = order()
        assert desk.send("ann", "ban", first)[1][0]["status"] == 201
        assert [desk.send("ann", "ban", first)[1][0]["status"] for dummy in range(4)] == [409] * 4
        desk.process.kill()
        assert desk.send("ann", "remove", order(seconds=...))[1][0]["status"] == 204
        assert desk.state() == ([], [])
    finally:
        other.kill()
        desk.process.kill()
        desk.process.start()


def test_the_order_of_arrival_counts(desk: Desk) -> None:
    ban, remove = order(made=time.time() - 5), order(seconds=...)
    assert desk.send("ann", "ban", ban)[1][0]["status"] == 201
    assert desk.send("ann", "remove", remove)[1][0]["status"] == 204
    assert desk.state() == ([], [])
    assert desk.send("ann", "remove", order(seconds=...))[1][0]["status"] == 204
    assert desk.send("ann", "ban", order(made=time.time() - 5))[1][0]["status"] == 201
    assert desk.state() == ([ADDRESS], [])


def test_commands_wait_for_a_process_that_is_away_but_not_for_long(desk: Desk) -> None:
    desk.process.kill()
    assert desk.send("ann", "ban", order(), wants=False) == ("ok", [])
    lost = order(address="203.0.113.7")
    assert desk.send("ann", "ban", lost, wants=False, expiration="100") == ("ok", [])
    time.sleep(0.5)
    assert desk.state() == ([], [])
    count = len(desk.logged())
    desk.process.start()
    [line] = desk.logged_since(count)
    assert desk.state()[0] == [ADDRESS]
    # Nobody waits for its answer any more, which is logged.
    assert line["http.response.status_code"] == 201
    assert not line["packetwatch.answered"]
    assert desk.send("ann", "explain", order())[1][0]["status"] == 200
    assert desk.state() == ([ADDRESS], [])


def test_a_command_that_a_process_got_and_did_not_do_is_done_by_the_next(desk: Desk) -> None:
    os.kill(desk.process.process.pid, signal.SIGSTOP)
    assert desk.send("ann", "ban", order(), wants=False) == ("ok", [])
    time.sleep(0.3)
    assert desk.state() == ([], [])
    desk.process.kill()
    desk.process.start()
    until(lambda: desk.state() == ([ADDRESS], []), shown=desk.process.log.read_text)


def test_commands_are_taken_again_when_the_broker_is_back(desk: Desk) -> None:
    desk.broker.kill()
    desk.broker.start()
    began = time.monotonic()
    # It waits in the queue until somebody takes it.
    kind, answers = desk.send("ann", "ban", order())
    spent = time.monotonic() - began
    print(f"answered {spent:.1f} s after the broker listens")
    assert spent <= MAX_RECONNECT
    assert (kind, [answer["status"] for answer in answers]) == ("ok", [201])
    assert desk.state() == ([ADDRESS], [])


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_command_beside_an_alarm_waits_for_its_end(desk: Desk, kind: str) -> None:
    alarm = getattr(desk.broker, f"{kind}_alarm")
    alarm(True)
    with ThreadPoolExecutor(1) as pool:
        try:
            sent = pool.submit(desk.send, "ann", "ban", order())
            time.sleep(2)
            assert desk.state() == ([], [])
        finally:
            alarm(False)
        ended, answers = sent.result(30)
    assert (ended, [answer["status"] for answer in answers]) == ("ok", [201])
    assert desk.state() == ([ADDRESS], [])


def test_an_answer_goes_only_to_who_asks(desk: Desk) -> None:
    count = len(desk.logged())
    body = order()
    step = {"wants": False, "reply_to": "packetwatch-commands"}
    assert desk.send("ann", "explain", body, **step) == ("ok", [])
    desk.logged_since(count)
    time.sleep(0.3)
    [line] = desk.logged()[count:]
    assert not line["packetwatch.answered"]


def test_without_the_api_a_command_fails_visibly(desk: Desk) -> None:
    desk.api.stop()
    try:
        [answer] = desk.send("ann", "ban", order())[1]
        assert answer["status"] == 503 and "the API does not answer" in answer["error"]
    finally:
        desk.api.start()
    assert desk.state() == ([], [])


def blocks(kind: str) -> list[str]:
    """The examples of docs/bus.md."""
    page = (COLLECTION / "docs/bus.md").read_text()
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_page_work(desk: Desk) -> None:
    broker = desk.broker
    known = passwords_of(broker)
    for account in ("siem", "ann"):
        folder = broker.folder / account
        folder.mkdir()
        (folder / "hosts-ca.pem").write_bytes(broker.nodes.ca.read_bytes())
        (folder / "password").write_text(f"{known[account]}\n")
        for text, name in zip(blocks("python"), ("subscribe.py", "command.py"), strict=True):
            (folder / name).write_text(text)

    def run(account: str, script: str) -> Process:
        script = script.replace("192.0.2.11", broker.node.address)
        script = script.replace("node1", broker.node.name)
        name = f"example-{account}"
        return Process(broker, name, ["-c", f"cd {WORK}/{account}\n{script}"], {}, python=["sh"])

    subscribe, command = blocks("sh")
    reader = run("siem", subscribe)
    event = '{"event.action":"ban","source.ip":"203.0.113.77"}\n'
    where = {"exchange": "packetwatch.events", "routing_key": "host-a.ban", "wants": False}
    fields = {"body": event, "content_encoding": "utf-8", **where}
    deadline = time.monotonic() + PATIENCE
    while reader.log.read_text().splitlines()[:1] != ['"source.ip":"203.0.113.77"']:
        assert time.monotonic() < deadline, reader.log.read_text()
        desk.client.attempt(Attempt("host-a", [("send", dict(fields))]))
        time.sleep(0.2)
    reader.kill()
    writer = run("ann", command)
    assert writer.process.wait(PATIENCE) == 0, writer.log.read_text()
    assert writer.log.read_text() == "banned\n" and desk.state() == ([ADDRESS], [])
