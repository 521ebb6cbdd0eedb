# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client of the broker that does one thing after the other, each on a connection of its own, and says how it ended."""

from __future__ import annotations

import json
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
                    connection.drain_events(timeout=arguments.pop("patience", 10))
            else:
                getattr(channel, name)(**arguments)
    return [json.loads(answer.body) for answer in answers]
for one in given["attempts"]:
    try:
        print(json.dumps(["ok", attempt(one)]), flush=True)
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


def attempt(broker: Broker, *attempts: Attempt) -> list[tuple[str, Any]]:
    """Do all of them; return for each `ok` and its answers, or the name of the exception and the server's code."""
    known = passwords_of(broker)
    given = {
        "address": f"{broker.node.address}:{PORT}",
        "ca": f"{WORK}/config/hosts-ca.pem",
        "name": broker.node.name,
        "vhost": VHOST,
        "attempts": [
            {
                "user": one.user,
                "password": one.password or known.get(one.user, ""),
                "steps": one.steps,
            }
            for one in attempts
        ],
    }
    process = Process(broker, "client", ["-c", _CLIENT, json.dumps(given)], {})
    assert process.process.wait(120) == 0, process.log.read_text()
    lines = [line for line in process.log.read_text().splitlines() if line.startswith("[")]
    process.log.unlink()
    assert len(lines) == len(attempts), lines
    return [tuple(json.loads(line)) for line in lines]
