# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests with real brokers cannot bring about: a command that comes again, full memories, plug-ins."""

from __future__ import annotations

import http.server
import json
import re
import shlex
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packetwatch_bus import desk as desks
from packetwatch_bus.desk import Desk
from packetwatch_bus.rest import Rest

from packetwatch_core._base.errors import InvalidInput, problems_of
from packetwatch_core._node.broker import Passwords, definitions, verbs_of
from packetwatch_core._node.inventory import check_node
from packetwatch_fleet.bus.interface import Command
from packetwatch_fleet.bus.plugins import open_bus

PAGE = (Path(__file__).resolve().parents[2] / "docs/bus.md").read_text()


class Api(http.server.BaseHTTPRequestHandler):
    """Answers each request with the next revision."""

    asked: list[str]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        body = b"{}"
        self.send_response(201)
        self.send_header("ETag", f'"{len(self.server.asked)}"')  # type: ignore[attr-defined]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "local"

    def log_message(self, *dummy: Any) -> None:
        """Log nothing."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Any]:
    with socketserver.UnixStreamServer(str(tmp_path / "api.sock"), Api) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def desk(api: Any) -> Desk:
    return Desk(Rest(api.server_address), {"ann": "pw_x"}, "bus")


def command(name: str, *, verb: str = "ban", is_again: bool = False) -> Command:
    body = {"v": 1, "id": name, "address": "203.0.113.9", "seconds": 60, "made": time.time()}
    return Command("ann", verb, json.dumps(body).encode(), is_again, None)


def test_what_the_broker_delivers_again_gets_the_first_answer(desk: Desk, api: Any) -> None:
    first = desk.handle(command("a"))
    assert first["status"] == 201 and first["revision"] == 1
    assert desk.handle(command("a", is_again=True)) == first
    assert desk.handle(command("a"))["status"] == 409
    # Nobody has handled this one before.
    assert desk.handle(command("b", is_again=True))["revision"] == 2
    assert api.asked == ["/v1/bans/203.0.113.9"] * 2


def test_an_unknown_verb_is_refused(desk: Desk, api: Any) -> None:
    found = desk.handle(command("a", verb="wipe"))
    assert found["status"] == 400 and "'wipe' is unknown" in found["error"]
    assert api.asked == []


def test_ids_are_forgotten_after_a_minute(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "_MAX_IDS", 2)
    assert [desk.handle(command(name))["status"] for name in "abc"] == [201, 201, 503]
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert desk.handle(command("a"))["status"] == 201


def test_a_plug_in_is_a_bus(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def open_bus(settings):\n    return settings['PW_BUS_X']\n")
    assert open_bus("mine", {"PW_BUS_X": "y"}, str(tmp_path)) == "y"  # type: ignore[comparison-overlap]
    with pytest.raises(InvalidInput, match="PW_BUS is 'other': write rabbitmq, "):
        open_bus("other", {}, str(tmp_path))


@pytest.mark.parametrize(
    ("hosts", "subscribers", "operators", "words"),
    [
        (["a"], ["a"], {}, "'a' is the name of a host and of a subscriber"),
        (["a"], [], {"a": ["ban"]}, "'a' is the name of a host and of an operator"),
        (["packetwatch-bus"], [], {}, "is the name of the account of the fleet and of a host"),
        ([], [], {"a": ["wipe"]}, "the operator 'a' may send wipe"),
        ([], [], {"a": []}, "the operator 'a' may send nothing"),
    ],
)
def test_names_of_accounts(
    hosts: list[str], subscribers: list[str], operators: dict[str, list[str]], words: str
) -> None:
    pairs = {name: ("x", verbs) for name, verbs in operators.items()}
    given = Passwords("x", dict.fromkeys(hosts, "x"), dict.fromkeys(subscribers, "x"), pairs)
    with pytest.raises(InvalidInput, match=words):
        definitions(given)


def test_a_role_that_is_unknown() -> None:
    with pytest.raises(
        InvalidInput, match="the operator 'a' has the role 'root': write one of read, ban"
    ):
        verbs_of("root", "a")


def test_the_definitions_have_no_password_and_do_not_change() -> None:
    given = Passwords("secret-bus", {"web1.example": "secret"}, {}, {})
    found = definitions(given)
    assert "secret" not in json.dumps(found) and found == definitions(given)
    [topic] = found["topic_permissions"]
    assert topic["write"] == r"^web1\.example\.[a-z_]+$"


ENFORCER = "fleet_node_enforcer_metrics_port (for b)"
BUS = {"fleet_node_bus_metrics_listen": "127.0.0.1:9481"}
SERVER = {"endpoints": ["mq1=192.0.2.11:5671", "[2001:db8::1]:5671"], "ca": "ca.pem"}


def test_settings_of_a_node_that_are_right() -> None:
    host = {"packetwatch_metrics_listen": "127.0.0.1:9477", "packetwatch_bus": "none"}
    check_node(BUS | {ENFORCER: "127.0.0.1:9482"}, host, {})
    check_node({"fleet_node_bus_metrics_listen": ""}, {}, SERVER | {"account": "pw", "vhost": "/"})


@pytest.mark.parametrize(
    ("metrics", "host", "external", "words"),
    [
        (
            BUS | {ENFORCER: "127.0.0.1:9481"},
            {},
            {},
            f"{ENFORCER} is '127.0.0.1:9481', whose port ",
        ),
        (
            {ENFORCER: "0.0.0.0:9480"},
            {"packetwatch_bus": "rabbitmq", "packetwatch_bus_metrics_listen": "127.0.0.1:9480"},
            {},
            f"{ENFORCER} is '0.0.0.0:9480', whose port packetwatch_bus_metrics_listen has too",
        ),
        ({"fleet_node_bus_metrics_listen": "9481"}, {}, {}, "write ADDRESS:PORT"),
        ({}, {}, SERVER | {"endpoints": ["mq.example:5671"]}, "write NAME=ADDRESS:PORT"),
        ({}, {}, SERVER | {"account": "a b"}, "fleet_node_rabbitmq_external.account is 'a b'"),
        ({}, {}, SERVER | {"vhost": "a b"}, "fleet_node_rabbitmq_external.vhost is 'a b'"),
    ],
)
def test_settings_of_a_node_that_are_wrong(
    metrics: dict[str, str], host: dict[str, Any], external: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_node(metrics, host, external)
    [problem] = problems_of(caught.value)
    assert words in problem


def block(kind: str) -> str:
    """The one example of a kind on docs/bus.md."""
    [found] = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_a_server_of_the_operators_gets_what_the_role_declares() -> None:
    operators = {"ann": ("x", verbs_of("ban", "ann"))}
    wanted = definitions(Passwords("x", {"web1": "x"}, {"siem": "x"}, operators))
    shown = json.loads(block("json"))
    assert shown == {name: wanted[name] for name in shown}
    words = shlex.split(block("bash").replace("\\\n", " "))
    calls = [one.split() for one in " ".join(words).split("rabbitmqctl ")]
    assert sorted(one[3:] for one in calls if one[:1] == ["set_permissions"]) == sorted(
        [row["user"], row["configure"], row["write"], row["read"]] for row in wanted["permissions"]
    )
    assert sorted(one[3:] for one in calls if one[:1] == ["set_topic_permissions"]) == sorted(
        [row["user"], row["exchange"], row["write"], row["read"]]
        for row in wanted["topic_permissions"]
    )
    # Whatever the page does not show, it makes by commands.
    assert wanted.keys() - shown.keys() == {"users", "permissions", "topic_permissions"}
