# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events of a host on RabbitMQ 3.10 and 4.0: what arrives, what is counted, and what faults do to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet.broker import PAGE, PORT, RELEASES, VHOST, WORK, Broker, Process, running_broker
from fleet.bus_client import Attempt
from fleet.bus_host import Publishing, read_metrics
from fleet.following import settings
from fleet.servers import FleetNodes, fleet_nodes
from kernel.controlling import READERS, Controlled, controlled
from kernel.hosting import OWN
from kernel.packets import syn4

from packetwatch_core._node.broker import Passwords

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
]

# docs/bus.md
MAX_MEMORY = 30 * 1024
MAX_MESSAGES = 20_000
# Both processes, if a page that they share counts once.
MAX_BOTH = 40 * 1024
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
            check_memory(publishing)
        finally:
            publishing.close()


def check(host: Publishing) -> tuple[int, int]:
    """Wait until nothing waits, check that each event was counted once; return how many were confirmed and dropped."""
    made, confirmed, dropped = host.settle()
    assert made == host.said == confirmed + dropped
    assert host.bus.resident() <= MAX_MEMORY
    return confirmed, dropped


def check_memory(host: Publishing) -> None:
    """The most that the process has needed since it was started, whatever became of the broker."""
    peak = host.bus.resident("VmHWM")
    print(f"at most {peak} kB, now {host.bus.resident()} kB")
    assert peak <= MAX_MEMORY


def flood(host: Publishing, seconds: float) -> None:
    """Log a thousand events a second."""
    host.say(int(seconds * 1000), pause=0.05)


def arrived(host: Publishing) -> set[int]:
    """The numbers of the events that the subscriber has."""
    return {event["event.sequence"] for dummy, event in host.received()}


def test_a_start_is_no_trouble(host: Publishing) -> None:
    assert [line for line in host.bus.lines() if line["log.level"] != "info"] == []


def test_erlangs_own_ports_are_open_to_the_node_alone(host: Publishing) -> None:
    node = host.broker.node
    with node.namespace.entered():
        argv = ["ss", "-Hltn", "( sport = :4369 or sport = :25672 or sport = :5671 )"]
        found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    listeners = {row.split()[3] for row in found.splitlines()}
    assert {"127.0.0.1:4369", "127.0.0.1:25672", f"{node.address}:5671"} <= listeners
    assert listeners <= {
        *("127.0.0.1:4369", "[::1]:4369", "127.0.0.1:25672", f"{node.address}:5671")
    }


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
    host.subscribe()
    confirmed, dropped = check(host)
    had = arrived(host)
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
    # The subscriber has what was confirmed, and nothing that was dropped.
    host.until(lambda: len(arrived(host) - had) >= after[0] - confirmed)
    assert len(arrived(host) - had) == after[0] - confirmed


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_an_alarm_of_the_broker_fills_the_queue_and_no_more(host: Publishing, kind: str) -> None:
    host.subscribe()
    confirmed, dropped = check(host)
    had = arrived(host)
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
    host.until(lambda: len(arrived(host) - had) >= after[0] - confirmed)
    assert len(arrived(host) - had) == after[0] - confirmed


def test_a_subscriber_that_does_not_read_costs_no_event(host: Publishing) -> None:
    host.subscribe()
    confirmed, dropped = check(host)
    os.kill(host.subscriber.process.pid, signal.SIGSTOP)
    try:
        # Few at once: neither the queue nor what the agent keeps for a slow follower is full, however slow this machine is.
        for dummy in range(100):
            host.say(300)
            host.until(lambda: host.metric("made_total") == host.said)
        assert check(host) == (confirmed + 30_000, dropped)
    finally:
        os.kill(host.subscriber.process.pid, signal.SIGCONT)


# One account declares a queue that nobody reads, another one publishes; prints how many messages are there and the first one.
_FILL = """
import amqp, sys
def connect(user, password):
    tls = {{"ca_certs": "{work}/config/hosts-ca.pem", "server_hostname": "{name}", "cert_reqs": 2}}
    return amqp.Connection("{address}:{port}", user, password, login_method="PLAIN", virtual_host="{vhost}", ssl=tls)
with connect("siem", "{siem}") as reader, connect("host-a", "{host}") as writer:
    queue, channel = reader.channel(), writer.channel()
    queue.queue_declare("events.siem.full", auto_delete=False)
    queue.queue_bind("events.siem.full", "packetwatch.events", "#")
    for number in range({count}):
        channel.basic_publish(amqp.Message(str(number)), "packetwatch.events", "host-a.ban")
    # The answer to this comes after all of them.
    channel.confirm_select()
    channel.close()
    found = queue.queue_declare("events.siem.full", passive=True)
    print(found.message_count, queue.basic_get("events.siem.full", no_ack=True).body, flush=True)
    queue.queue_delete("events.siem.full")
"""


def test_a_queue_that_nobody_reads_has_a_limit(host: Publishing) -> None:
    confirmed, dropped = check(host)
    broker = host.broker
    script = _FILL.format(
        work=WORK,
        name=broker.node.name,
        address=broker.node.address,
        port=PORT,
        vhost=VHOST,
        siem=broker.passwords.subscribers["siem"],
        host=broker.passwords.hosts["host-a"],
        count=MAX_MESSAGES + 50,
    )
    filling = Process(broker, "filling", ["-c", script], {})
    assert filling.process.wait(60) == 0, filling.log.read_text()
    # The oldest ones made room.
    assert filling.log.read_text().split() == [str(MAX_MESSAGES), "50"]
    assert check(host) == (confirmed, dropped)


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


def test_what_both_processes_of_a_host_need(host: Publishing) -> None:
    broker = host.broker
    variables = settings(broker.nodes, "host-a")
    for name in ("CA", "CERTIFICATE", "PASSWORD_FILE"):
        path = Path(variables[f"PW_FLEET_{name}"])
        (broker.folder / "config" / path.name).write_bytes(path.read_bytes())
        variables[f"PW_FLEET_{name}"] = f"{WORK}/config/{path.name}"
    variables |= {
        "PW_CONTROL_SOCKET": host.socket,
        "PW_FLEET_CONTROL_SOCKET": f"{WORK}/run/fleet.sock",
        "PW_FLEET_STATE_DIR": f"{WORK}/run",
    }
    fleet = Process(broker, "fleet", ["-m", "packetwatch_fleet.host"], variables)
    try:
        host.until(
            lambda: read_metrics(broker.nodes.lan, 9478).get("packetwatch_fleet_connected"), 30
        )
        check(host)
        whole, files = (
            [one.resident(key) for one in (host.bus, fleet)] for key in ("VmRSS", "RssFile")
        )
        together = len(host.bus.frames() | fleet.frames()) * PAGE // 1024
        print(
            f"bus and fleet process: RSS {whole} kB, of these {files} kB of files; together {together} kB"
        )
        assert together <= MAX_BOTH
    finally:
        fleet.kill()


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


KILLED = "the broker is killed"
Act = Callable[[Broker, Process], object]
FAULTS: dict[str, tuple[Act, Act]] = {
    "the process is stuck": (
        lambda _broker, bus: os.kill(bus.process.pid, signal.SIGSTOP),
        lambda _broker, bus: os.kill(bus.process.pid, signal.SIGCONT),
    ),
    "the broker lacks memory": (
        lambda broker, _bus: broker.memory_alarm(True),
        lambda broker, _bus: broker.memory_alarm(False),
    ),
    "the link is down": (
        lambda broker, _bus: broker.unplug(),
        lambda broker, _bus: broker.plug(),
    ),
    KILLED: (lambda broker, _bus: broker.kill(), lambda broker, _bus: broker.start()),
}


def scan(filtered: Controlled, scanner: str) -> float:
    """Scan a host and return after how many seconds the kernel has banned the scanner; the agent has logged it, too."""
    with filtered.site.wire.host.entered(), filtered.site.program() as program:
        device = socket.if_nametoindex("pw0")
        began = time.monotonic()
        for port in range(2001, 2010):
            program.test_run(syn4(scanner, port, OWN), device)
        assert scanner in filtered.banned()
        spent = time.monotonic() - began
    filtered.wait(
        lambda: any(
            f'"{scanner}"' in line and '"packetwatch.origin":"scan"' in line
            for line in filtered.log.read_text().splitlines()
        )
    )
    return spent


def arrives(host: Publishing, source: str) -> None:
    host.until(lambda: ("host-b.ban", source) in banned(host), 60)


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
            },
            wire,
            before=f"mkdir -p {{tree}}/mnt/agent; mount --bind {filtered.folder}/run {{tree}}/mnt/agent",
            # The right to read is enough.
            python=["setpriv", "--reuid=62007", f"--regid={READERS}", "--clear-groups", "python3"],
        )
        try:
            ready = ("connected", "agent_connected")
            host.until(lambda: [read_metrics(wire).get(name) for name in ready] == [1, 1], 60)
            filtered.ctl("ban", "203.0.113.5")
            arrives(host, "203.0.113.5")
            for number, (fault, (begin, end)) in enumerate(FAULTS.items()):
                scanner = f"203.0.113.{77 + number}"
                begin(broker, bus)
                spent = scan(filtered, scanner)
                print(f"banned after {spent * 1000:.0f} ms while {fault}")
                assert filtered.ctl("ban", f"203.0.113.{6 + number}").status == 0
                end(broker, bus)
                if fault != KILLED:
                    # A broker begins empty, so what was published before its subscriber came is lost.
                    arrives(host, scanner)
        finally:
            bus.kill()
    host.until(lambda: host.metric("connected"))


def banned(host: Publishing) -> set[tuple[str, str]]:
    """The topics and sources of events of the real host."""
    return {(topic, event.get("source.ip", "")) for topic, event in host.received()}


def test_a_stop_sends_what_waits(host: Publishing) -> None:
    confirmed, dropped = check(host)
    host.say(50)
    # They wait in the process, not in the agent.
    host.until(lambda: host.metric("made_total") == host.said)
    check_memory(host)
    assert host.bus.stop() == 0
    made = host.said
    [last] = [line["message"] for line in host.bus.lines() if "of " in line["message"][:3]]
    assert last == (
        f"of {made} events, the bus has confirmed {confirmed + 50}, and {dropped} were dropped"
    )
    host.bus.start()
    host.said = 0
    host.until(lambda: host.metric("connected"))
