# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that publishes: the agent's socket with its real log, the process beside it, and a subscriber."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from typing import Any

from fleet.broker import PORT, VHOST, WORK, Broker, Process
from fleet.bus_client import Client
from fleet.host_process import PATIENCE
from kernel.hosting import Namespace

PUBLISHED = ("scan", "ban")
_AGENT = """
import os, sys
from packetwatch_agent.control.watch import Watch
from packetwatch_agent.loop import Loop
from packetwatch_agent.output import Output
from packetwatch_agent.part import Part, Parts
from packetwatch_agent.presence import Presence
from packetwatch_agent.service import Service
from packetwatch_agent.settings import read

class Speaker(Part):
    def __init__(self, output):
        self._output, self._data, self._said = output, b"", 0
    def start(self, loop):
        self._loop = loop
        loop.watch(0, self._hear)
    def _hear(self):
        self._data += os.read(0, 65536)
        *lines, self._data = self._data.split(b"\\n")
        for line in lines:
            action, count, size, pause = line.decode().split()
            self._say(action, int(count), int(size), float(pause))
    def _say(self, action, count, size, pause):
        number = min(50, count)
        self._output.write([
            f'{{"event.action":"{action}","event.sequence":{self._said + one},"message":"{"x" * size}"}}'
            for one in range(1, number + 1)
        ])
        self._said += number
        if count > number:
            self._loop.after(pause, lambda: self._say(action, count - number, size, pause))
        else:
            print(self._said, flush=True)

output = Output(fd=os.open("/dev/null", os.O_WRONLY))
loop = Loop()
parts = Parts(Speaker(output), Watch(output))
Service(loop, parts, Presence(loop, read(os.environ), output, parts), output).run()
"""
# As docs/bus.md has it, with the options of this place.
_SUBSCRIBER = """
import sys, amqp
tls = {{"ca_certs": "{work}/config/hosts-ca.pem", "server_hostname": "{name}", "cert_reqs": 2}}
with amqp.Connection("{address}:{port}", "siem", "{password}", login_method="PLAIN", virtual_host="{vhost}", ssl=tls) as connection:
    channel = connection.channel()
    channel.queue_declare("events.siem", durable=True, auto_delete=False)
    channel.queue_bind("events.siem", "packetwatch.events", "#")
    def show(message):
        for line in message.body.splitlines():
            print(message.delivery_info["routing_key"], line)
        sys.stdout.flush()
        message.channel.basic_ack(message.delivery_tag)
    channel.basic_consume("events.siem", callback=show)
    print("ready", flush=True)
    while True:
        connection.drain_events()
"""


def read_metrics(namespace: Namespace, port: int = 9480) -> dict[str, float]:
    """The metrics of a process, without the beginning of the bus's names; none if it does not answer."""
    with namespace.entered(), contextlib.suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        pairs = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name.removeprefix("packetwatch_fleet_bus_"): float(value) for name, value in pairs}
    return {}


class Publishing:
    """The host `host-a`."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        run = broker.folder / "run"
        run.mkdir()
        self.socket = f"{WORK}/run/agent.sock"
        self.said = self._logged = 0
        """Events that the agent has logged, without those that are not published, and all."""
        self.delay = 0.0
        """Seconds by which the agent was late."""
        self.agent = Process(
            broker,
            "agent",
            ["-c", _AGENT],
            {"PW_CONTROL_SOCKET": self.socket, "PW_METRICS_LISTEN": ""},
        )
        self._wait((run / "agent.sock").exists, self.agent)
        self.bus = Process(
            broker,
            "bus",
            ["-m", "packetwatch_fleet.bus"],
            broker.settings("host-a", broker.passwords.hosts["host-a"])
            | {
                "PW_FLEET_HOST": "host-a",
                "PW_CONTROL_SOCKET": self.socket,
                "PW_BUS_METRICS_LISTEN": "127.0.0.1:9480",
            },
        )
        self.subscriber = Process(
            broker,
            "subscriber",
            [
                "-c",
                _SUBSCRIBER.format(
                    work=WORK,
                    name=broker.node.name,
                    address=broker.node.address,
                    port=PORT,
                    password=broker.passwords.subscribers["siem"],
                    vhost=VHOST,
                ),
            ],
            {},
            # A broker ends a connection that takes nothing for 15 seconds, and with it the queue.
            broker.node.namespace,
        )
        self._ready = 0
        self._await_subscriber()
        self.client = Client(broker)
        self.until(lambda: self.metric("connected") and self.metric("agent_connected"))

    def close(self) -> None:
        for process in (self.bus, self.subscriber, self.agent, self.client.process):
            process.kill()

    def subscribe(self) -> None:
        """Let the subscriber read, who ends when the broker does."""
        if self.subscriber.process.poll() is not None:
            self.subscriber.start()
            self._await_subscriber()

    def _await_subscriber(self) -> None:
        self._ready += 1
        log = self.subscriber.log
        self._wait(
            lambda: log.read_text().splitlines().count("ready") == self._ready, self.subscriber
        )

    def say(self, count: int, action: str = "ban", pause: float = 0.01) -> None:
        """Let the agent log so many events, 50 at a time, with pauses of so many seconds."""
        assert self.agent.process.stdin
        self.agent.process.stdin.write(f"{action} {count} 300 {pause}\n".encode())
        self.agent.process.stdin.flush()
        self._logged += count
        self.said += count * (action in PUBLISHED)
        # The agent is never kept waiting, whatever becomes of its events.
        seconds = count / 50 * pause
        spent = self._wait(
            lambda: self.agent.log.read_text().split()[-1:] == [str(self._logged)],
            self.agent,
            PATIENCE + seconds,
        )
        self.delay = max(self.delay, spent - seconds)

    def metrics(self) -> dict[str, float]:
        return read_metrics(self.broker.nodes.lan)

    def metric(self, name: str) -> float:
        return self.metrics().get(name, 0.0)

    def counts(self) -> tuple[int, int, int]:
        """Made, confirmed, dropped."""
        found = self.metrics()
        names = ("made_total", 'events_total{result="confirmed"}', 'events_total{result="dropped"}')
        made, confirmed, dropped = (int(found[name]) for name in names)
        return made, confirmed, dropped

    def settle(self, seconds: float = PATIENCE) -> tuple[int, int, int]:
        """Wait until nothing waits; return made, confirmed, dropped."""
        self.until(
            lambda: self.metric("made_total") >= self.said and not self.metrics()["waiting"],
            seconds,
        )
        return self.counts()

    def received(self) -> list[tuple[str, dict[str, Any]]]:
        """What the subscriber has got of hosts: topic and event. What tests have published themselves is no event."""
        whole = self.subscriber.log.read_text().rpartition("\n")[0]
        pairs = [line.split(" ", 1) for line in whole.splitlines() if " " in line]
        return [
            (topic, json.loads(text))
            for topic, text in pairs
            if topic.startswith("host") and text.startswith("{")
        ]

    def until(self, holds: Any, seconds: float = PATIENCE) -> float:
        return self._wait(holds, self.bus, seconds)

    def _wait(self, holds: Any, process: Process, seconds: float = PATIENCE) -> float:
        began = time.monotonic()
        while not holds():
            assert time.monotonic() < began + seconds, process.log.read_text()[-3000:]
            assert process.process.poll() is None, process.log.read_text()[-3000:]
            time.sleep(0.05)
        return time.monotonic() - began
