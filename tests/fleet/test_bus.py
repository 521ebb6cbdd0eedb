# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events of a host on RabbitMQ 3.10 and 4.0: what arrives, what is counted, and what faults do to it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet.broker import RELEASES, Process, running_broker
from fleet.bus_client import Attempt
from fleet.bus_host import Publishing
from fleet.servers import FleetNodes, fleet_nodes
from kernel.controlling import READERS, controlled
from kernel.hosting import OWN, Namespace
from kernel.packets import syn4
from lab.prometheus import get, parse

from packetwatch_core._node.broker import Passwords

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
]

# docs/bus.md
MAX_MEMORY = 30 * 1024
MAX_RECONNECT = 10.0
QUEUE = 2000
# Seconds by which a machine with other work may be late.
_SLACK = 20.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[FleetNodes]:
    with fleet_nodes("3.4", 1) as nodes:
        yield nodes


@pytest.fixture(scope="module", params=RELEASES)
def host(nodes: FleetNodes, request: pytest.FixtureRequest) -> Iterator[Publishing]:
    def passwords() -> Passwords:
        return Passwords(
            "bus-secret",
            {"host-a": "a-secret", "host-b": "b-secret"},
            {"siem": "siem-secret"},
            {"ann": ("ann-secret", ["ban"])},
        )

    with running_broker(nodes, request.param, passwords) as broker:
        publishing = Publishing(broker)
        try:
            yield publishing
            peak = publishing.bus.resident("VmHWM")
            print(f"at most {peak} kB, now {publishing.bus.resident()} kB")
            assert peak <= MAX_MEMORY
        finally:
            publishing.close()


def check(host: Publishing) -> tuple[int, int]:
    """Wait until nothing waits, check that each event was counted once; return how many were confirmed and dropped."""
    made, confirmed, dropped = host.settle()
    assert made == host.said == confirmed + dropped
    assert host.bus.resident() <= MAX_MEMORY
    return confirmed, dropped


def flood(host: Publishing, seconds: float) -> None:
    """Log a thousand events a second."""
    host.say(int(seconds * 1000), pause=0.05)


def test_events_arrive_in_batches_and_are_confirmed(host: Publishing) -> None:
    host.say(1000)
    host.say(50, "scan")
    host.say(70, "connection")
    assert check(host) == (1050, 0)
    host.until(lambda: len(host.received()) == 1050)
    found = host.received()
    assert {topic for topic, dummy in found} == {"host-a.ban", "host-a.scan"}
    assert {event["event.action"] for dummy, event in found} == {"ban", "scan"}
    numbers = [event["event.sequence"] for dummy, event in found]
    assert sorted(numbers) == list(range(1, 1051))


def test_a_broker_that_is_killed_costs_events_only_beyond_the_queue(host: Publishing) -> None:
    confirmed, dropped = check(host)
    host.broker.kill()
    host.until(lambda: not host.metric("connected"))
    # What the queue holds is not lost.
    host.say(QUEUE - 200)
    assert host.counts()[2] == dropped
    flood(host, 3)
    # What does not wait is lost at once, and a batch that is not full yet is still taken from the queue.
    host.until(lambda: host.metric("made_total") == host.said)
    host.until(lambda: host.metric("waiting") <= QUEUE)
    lost = host.counts()[2] - dropped
    assert 3200 - 1000 <= lost <= 3200
    host.broker.start()
    spent = host.until(lambda: host.metric("connected"))
    print(f"connected {spent:.1f} s after the broker listens")
    assert spent <= MAX_RECONNECT + _SLACK
    after = check(host)
    assert after == (confirmed + QUEUE - 200 + 3000 - lost, dropped + lost)
    # It is logged every ten seconds.
    host.until(lambda: "events were not published" in host.bus.log.read_text())


def test_a_link_that_is_down_is_noticed(host: Publishing) -> None:
    confirmed, dropped = check(host)
    host.broker.unplug()
    flood(host, 1)
    spent = host.until(lambda: not host.metric("connected"))
    print(f"noticed after {spent + 1:.1f} s")
    flood(host, 3)
    host.until(lambda: host.counts()[2] > dropped)
    host.broker.plug()
    spent = host.until(lambda: host.metric("connected"))
    print(f"connected {spent:.1f} s after the link is up")
    assert spent <= MAX_RECONNECT + _SLACK
    after = check(host)
    assert sum(after) == confirmed + dropped + 4000


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_an_alarm_of_the_broker_fills_the_queue_and_no_more(host: Publishing, kind: str) -> None:
    confirmed, dropped = check(host)
    alarm = getattr(host.broker, f"{kind}_alarm")
    alarm(True)
    try:
        flood(host, 3)
        host.until(lambda: host.counts()[2] > dropped)
        assert host.metrics()["waiting"] <= QUEUE + 100
        host.until(
            lambda: any("lacks memory or disk" in line["message"] for line in host.bus.lines())
        )
    finally:
        alarm(False)
    after = check(host)
    assert after[0] >= confirmed + QUEUE - 200 and sum(after) == confirmed + dropped + 3000


def test_a_subscriber_that_does_not_read_costs_no_event(host: Publishing) -> None:
    host.subscribe()
    confirmed, dropped = check(host)
    os.kill(host.subscriber.process.pid, signal.SIGSTOP)
    try:
        # As many at once as wait in the queue, however slow this machine is.
        for dummy in range(20):
            host.say(QUEUE - 500)
            check(host)
        assert check(host) == (confirmed + 20 * (QUEUE - 500), dropped)
    finally:
        os.kill(host.subscriber.process.pid, signal.SIGCONT)


def test_a_process_that_is_stuck_keeps_the_agent_from_nothing(host: Publishing) -> None:
    confirmed, dropped = check(host)
    host.delay = 0.0
    os.kill(host.bus.process.pid, signal.SIGSTOP)
    try:
        host.say(20_000, pause=0.005)
    finally:
        os.kill(host.bus.process.pid, signal.SIGCONT)
    print(f"the agent was late by {host.delay:.2f} s")
    assert host.delay < _SLACK
    after = check(host)
    assert after[1] > dropped and sum(after) == confirmed + dropped + 20_000


def test_the_process_uses_little_while_nothing_happens(host: Publishing) -> None:
    check(host)
    before = host.bus.cpu()
    time.sleep(2)
    assert (host.bus.cpu() - before) / 2 < 0.03


def published(user: str, exchange: str, key: str, **fields: object) -> Attempt:
    step = {"exchange": exchange, "routing_key": key, "body": "x", "wants": False, **fields}
    return Attempt(user, [("send", step)])


def test_the_account_of_a_host_can_publish_its_own_events_and_nothing_else(
    host: Publishing,
) -> None:
    confirmed, dropped = check(host)
    events, commands = "packetwatch.events", "packetwatch.commands"
    refused = ("AccessRefused", 403)
    table = [
        (published("host-a", events, "host-a.ban"), ("ok", [])),
        (published("host-a", events, "host-b.ban"), refused),
        (published("host-a", events, "host-a"), refused),
        (published("host-a", events, "host-a.evil.ban"), refused),
        (published("host-a", events, "host-ab.ban"), refused),
        (published("host-a", events, "x.host-a.ban"), refused),
        (published("host-a", commands, "ban"), refused),
        (published("host-a", "", "packetwatch-commands"), refused),
        (published("host-a", "", "events.siem"), refused),
        (published("host-a", "amq.topic", "host-a.ban"), refused),
        (published("host-a", events, "host-a.ban", user_id="host-b"), ("PreconditionFailed", 406)),
        (doing("host-a", "basic_get", queue="events.siem"), refused),
        (doing("host-a", "basic_get", queue="packetwatch-commands"), refused),
        (doing("host-a", "basic_consume", queue="events.siem"), refused),
        (doing("host-a", "queue_declare", queue="events.host-a"), refused),
        (doing("host-a", "queue_declare", queue=""), refused),
        (doing("host-a", "queue_purge", queue="events.siem"), refused),
        (doing("host-a", "queue_delete", queue="events.siem"), refused),
        (
            doing("host-a", "queue_bind", queue="events.siem", exchange=events, routing_key="#"),
            refused,
        ),
        (doing("host-a", "exchange_declare", exchange="host-a", type="topic"), refused),
        (doing("host-a", "exchange_delete", exchange=events), refused),
        (published("siem", events, "host-a.ban"), refused),
        (doing("siem", "queue_declare", queue="events.other"), refused),
        (doing("siem", "basic_get", queue="packetwatch-commands"), refused),
        (published("ann", events, "host-a.ban"), refused),
        (Attempt("host-a", [], "wrong"), refused),
        (Attempt("guest", [], "guest"), refused),
    ]
    found = host.client.attempt(*(one for one, dummy in table))
    wrong = [
        (one, result)
        for (one, wanted), result in zip(table, found, strict=True)
        if result != wanted
    ]
    assert not wrong
    # The one that is permitted was the host's own.
    assert check(host) == (confirmed, dropped)


def doing(user: str, method: str, **arguments: object) -> Attempt:
    return Attempt(user, [(method, arguments)])


def test_events_that_the_broker_refuses_count_as_dropped(host: Publishing) -> None:
    confirmed, dropped = check(host)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    name = "events.siem.full"
    declared = doing("siem", "queue_declare", queue=name, arguments=full, auto_delete=False)
    bound = doing("siem", "queue_bind", queue=name, exchange="packetwatch.events", routing_key="#")
    assert [one for one, dummy in host.client.attempt(declared, bound)] == ["ok", "ok"]
    host.say(500)
    after = check(host)
    assert sum(after) == confirmed + dropped + 500 and after[1] > dropped
    assert host.client.attempt(doing("siem", "queue_delete", queue=name))[0][0] == "ok"


def test_bans_of_a_real_host_do_not_wait_for_the_bus(
    host: Publishing, bytecode_cache: Path
) -> None:
    host.subscribe()
    broker = host.broker
    with controlled(bytecode_cache) as filtered:
        wire = filtered.site.wire.host
        broker.nodes.attach(wire)
        bus = Process(
            broker,
            "real",
            ["-m", "packetwatch_fleet.bus"],
            broker.settings("host-b", broker.passwords.hosts["host-b"])
            | {
                "PW_FLEET_HOST": "host-b",
                "PW_CONTROL_SOCKET": "/mnt/agent/control.sock",
                "PW_BUS_METRICS_LISTEN": "127.0.0.1:9480",
            },
            wire,
            before=f"mkdir -p {{tree}}/mnt/agent; mount --bind {filtered.folder}/run {{tree}}/mnt/agent",
            # The right to read is enough.
            python=["setpriv", "--reuid=62007", f"--regid={READERS}", "--clear-groups", "python3"],
        )
        try:
            # What the agent logs before is not published.
            host.until(lambda: is_publishing(wire))
            filtered.ctl("ban", "203.0.113.5")
            host.until(lambda: ("host-b.ban", "203.0.113.5") in banned(host))
            os.kill(bus.process.pid, signal.SIGSTOP)
            with wire.entered(), filtered.site.program() as program:
                device = socket.if_nametoindex("pw0")
                began = time.monotonic()
                for port in range(2001, 2010):
                    program.test_run(syn4("203.0.113.77", port, OWN), device)
                assert "203.0.113.77" in filtered.banned()
                spent = time.monotonic() - began
            print(f"banned after {spent * 1000:.0f} ms beside a bus that is stuck")
            assert filtered.ctl("ban", "203.0.113.6").status == 0
            filtered.wait(lambda: '"packetwatch.origin":"scan"' in filtered.log.read_text())
            os.kill(bus.process.pid, signal.SIGCONT)
            host.until(lambda: ("host-b.ban", "203.0.113.77") in banned(host))
        finally:
            bus.kill()


def is_publishing(namespace: Namespace) -> bool:
    """Whether the process in a namespace has both its agent and the broker."""
    try:
        page = parse(get(namespace.path, "127.0.0.1", 9480, "/metrics"))
    except OSError:
        return False
    return all(page[f"packetwatch_fleet_bus_{part}connected"] for part in ("", "agent_"))


def banned(host: Publishing) -> set[tuple[str, str]]:
    """The topics and sources of events of the real host."""
    return {(topic, event.get("source.ip", "")) for topic, event in host.received()}


def test_a_stop_sends_what_waits(host: Publishing) -> None:
    confirmed, dropped = check(host)
    host.say(50)
    assert host.bus.stop() == 0
    made = host.said
    [last] = [line["message"] for line in host.bus.lines() if "of " in line["message"][:3]]
    assert last == (
        f"of {made} events, the bus has confirmed {confirmed + 50}, and {dropped} were dropped"
    )
    host.bus.start()
    host.said = 0
    host.until(lambda: host.metric("connected"))
