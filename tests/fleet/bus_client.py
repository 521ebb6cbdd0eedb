# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client of the broker that does one thing after the other, each on a connection of its own, and says how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from fleet.broker import PORT, VHOST, WORK, Broker, Process

_CLIENT = """
import json, sys, amqp
given = json.loads(sys.argv[1])
tls = {"ca_certs": given["ca"], "server_hostname": given["name"], "cert_reqs": 2}
def attempt(one):
    answers = []
    with amqp.Connection(given["address"], one["user"], one["password"], login_method="PLAIN",
                         virtual_host=given["vhost"], ssl=tls, confirm_publish=True) as connection:
        channel = connection.channel()
        for name, arguments in one["steps"]:
            if name == "send":
                wants = arguments.pop("wants", True)
                body = arguments.pop("body")
                where = {key: arguments.pop(key) for key in ("exchange", "routing_key")}
                if wants:
                    channel.basic_consume("amq.rabbitmq.reply-to", no_ack=True, callback=answers.append)
                    arguments["reply_to"] = "amq.rabbitmq.reply-to"
                channel.basic_publish(amqp.Message(body, **arguments), **where)
                while wants and not answers:
                    connection.drain_events(timeout=arguments.pop("patience", 60))
            else:
                getattr(channel, name)(**arguments)
    return [json.loads(answer.body) for answer in answers]
for line in sys.stdin:
    try:
        print(json.dumps(["ok", attempt(json.loads(line))]), flush=True)
    except Exception as error:
        print(json.dumps([type(error).__name__, getattr(error, "reply_code", 0) or 0]), flush=True)
"""


class Attempt(NamedTuple):
    """user: with its own password, unless there is another one. steps: methods of a channel with their arguments."""

    user: str
    steps: Sequence[tuple[str, dict[str, Any]]]
    password: str = ""


def passwords_of(broker: Broker) -> dict[str, str]:
    known = broker.passwords
    operators = {name: password for name, (password, dummy) in known.operators.items()}
    return {**known.hosts, **known.subscribers, **operators}


class Client:
    """The process that does it. It stays, because its start takes longer than an attempt."""

    def __init__(self, broker: Broker) -> None:
        self._known = passwords_of(broker)
        given = {
            "address": f"{broker.node.address}:{PORT}",
            "ca": f"{WORK}/config/hosts-ca.pem",
            "name": broker.node.name,
            "vhost": VHOST,
        }
        self.process = Process(broker, "client", ["-c", _CLIENT, json.dumps(given)], {})
        self._count = 0

    def attempt(self, *attempts: Attempt) -> list[tuple[str, Any]]:
        """Do all of them; return for each `ok` and its answers, or the name of the exception and the server's code."""
        assert self.process.process.stdin
        for one in attempts:
            password = one.password or self._known.get(one.user, "")
            whole = {"user": one.user, "password": password, "steps": one.steps}
            self.process.process.stdin.write(json.dumps(whole).encode() + b"\n")
        self.process.process.stdin.flush()
        first, self._count = self._count, self._count + len(attempts)
        deadline = time.monotonic() + 120
        while len(lines := self._lines()) < self._count:
            assert time.monotonic() < deadline, self.process.log.read_text()
            assert self.process.process.poll() is None, self.process.log.read_text()
            time.sleep(0.01)
        return [tuple(json.loads(line)) for line in lines[first:]]

    def _lines(self) -> list[str]:
        whole = self.process.log.read_text().rpartition("\n")[0]
        return [line for line in whole.splitlines() if line.startswith("[")]
