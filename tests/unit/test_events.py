# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records → lines."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from unit.fake_maps import mapped

from packetwatch_agent.control import audit
from packetwatch_agent.control.rights import Peer
from packetwatch_agent.events import Episode, decode
from packetwatch_agent.lines import Lines
from packetwatch_core._bans.bans import Ban, Source
from packetwatch_core._kernel import abi

ROOT = Path(__file__).resolve().parents[2]
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
def lines() -> Lines:
    return Lines("host.example", lambda index: {2: "eth0"}.get(index, ""))


def record(**values: Any) -> bytes:
    fields = {
        "time": time.monotonic_ns(),
        "sequence": 12,
        "ifindex": 2,
        "type": abi.EVENT_CONNECTION,
        "family": 4,
        "saddr": mapped("203.0.113.7"),
        "daddr": mapped("192.0.2.1"),
        "sport": 40000,
        "dport": 443,
    }
    return abi.EVENT.pack(**(fields | values))


def scan_record(**values: Any) -> bytes:
    fields = {
        "type": abi.EVENT_BAN,
        "plen": 32,
        "count": 3,
        "listed": 3,
        "ports": (23, 22, 25),
        "expires": time.monotonic_ns() + 600 * 10**9,
    }
    return record(**(fields | values))


def read(line: str) -> dict[str, Any]:
    assert "\n" not in line
    fields: dict[str, Any] = json.loads(line)
    assert MOMENT.fullmatch(fields["@timestamp"])
    return fields


def connection(lines: Lines, data: bytes) -> dict[str, Any]:
    event = decode(data)
    assert event is not None
    return read(lines.connection(event))


def scan(lines: Lines, data: bytes) -> dict[str, Any]:
    event = decode(data)
    assert event is not None
    return read(lines.scan(event))


def test_connection(lines: Lines) -> None:
    fields = connection(lines, record()[: abi.EVENT_SHORT])
    del fields["@timestamp"]
    assert fields == {
        "ecs.version": "8.17.0",
        "event.action": "connection",
        "event.kind": "event",
        "event.category": ["network"],
        "event.type": ["connection", "start"],
        "event.sequence": 12,
        "source.ip": "203.0.113.7",
        "source.port": 40000,
        "destination.ip": "192.0.2.1",
        "destination.port": 443,
        "network.type": "ipv4",
        "network.transport": "tcp",
        "host.name": "host.example",
        "observer.ingress.interface.name": "eth0",
    }


def test_connection_ipv6(lines: Lines) -> None:
    fields = connection(lines, record(family=6, saddr=V6, daddr=V6))
    assert fields["source.ip"] == "2001:db8::7"
    assert fields["network.type"] == "ipv6"


def test_time_is_the_event_s(lines: Lines) -> None:
    fields = connection(lines, record(time=time.monotonic_ns() - 100 * 10**9))
    there = time.strptime(fields["@timestamp"][:19], "%Y-%m-%dT%H:%M:%S")
    back = time.time() - time.mktime(there) + time.timezone
    assert 95 < back % 3600 < 105


def test_unknown_interface_is_left_out(lines: Lines) -> None:
    assert "observer.ingress.interface.name" not in connection(
        Lines("host", lambda index: ""), record(ifindex=9)
    )


def test_opaque_connection_has_no_ports(lines: Lines) -> None:
    fields = connection(lines, record(flags=abi.EVENT_OPAQUE, sport=0, dport=0))
    assert "source.port" not in fields
    assert "destination.port" not in fields
    assert fields["packetwatch.opaque"] is True


def test_ban(lines: Lines) -> None:
    fields = scan(lines, scan_record())
    assert fields["event.action"] == "ban"
    assert fields["event.kind"] == "alert"
    assert fields["event.category"] == ["intrusion_detection"]
    assert fields["event.type"] == ["denied"]
    assert fields["packetwatch.prefix"] == "203.0.113.7/32"
    assert fields["packetwatch.ports"] == [22, 23, 25]
    assert fields["packetwatch.ports_count"] == 3
    assert fields["packetwatch.origin"] == "scan"
    assert fields["packetwatch.reason"] == "scan"
    assert MOMENT.fullmatch(fields["packetwatch.expires"])
    assert "packetwatch.overflow" not in fields


def test_ban_of_an_ipv6_network(lines: Lines) -> None:
    fields = scan(lines, scan_record(family=6, saddr=V6, plen=64))
    assert fields["source.ip"] == "2001:db8::7"
    assert fields["packetwatch.prefix"] == "2001:db8::/64"


def test_short_ban(lines: Lines) -> None:
    assert scan(lines, scan_record(flags=abi.EVENT_IN_OVERFLOW))["packetwatch.overflow"] is True


@pytest.mark.parametrize(
    ("flag", "reason"),
    [(abi.EVENT_MONITOR, "monitor"), (abi.EVENT_PROTECTED, "protected")],
)
def test_scan_without_a_ban_is_not_called_one(lines: Lines, flag: int, reason: str) -> None:
    fields = scan(lines, scan_record(flags=flag))
    assert fields["event.action"] == "scan"
    assert fields["event.type"] == ["info"]
    assert fields["packetwatch.reason"] == reason
    assert "packetwatch.expires" not in fields


def ban_of(**values: Any) -> Ban:
    now = time.monotonic_ns()
    fields: dict[str, Any] = {
        "table": "bans",
        "source": Source(128, mapped("203.0.113.7")),
        "since": now,
        "expires": now + 10**9,
        "dropped": 4,
        "slot": 0,
        "ifindex": 2,
        "ports": 0,
        "origin": abi.ORIGIN_MANUAL,
        "flags": 0,
    }
    return Ban(**(fields | values))


def test_manual_ban(lines: Lines) -> None:
    fields = read(lines.ban(ban_of(expires=0), "manual"))
    assert fields["event.action"] == "ban"
    assert fields["event.kind"] == "event"
    assert fields["packetwatch.origin"] == "manual"
    assert "packetwatch.expires" not in fields


def test_expiry_and_lift(lines: Lines) -> None:
    fields = read(lines.expiry(ban_of(origin=abi.ORIGIN_SCAN, ports=5)))
    assert fields["event.action"] == "expiry"
    assert fields["packetwatch.dropped"] == 4
    assert fields["packetwatch.ports_count"] == 5
    fields = read(lines.lift(ban_of(source=Source(64, V6[:8] + bytes(8))), "protected"))
    assert fields["event.action"] == "lift"
    assert fields["source.ip"] == "2001:db8::"
    assert fields["packetwatch.prefix"] == "2001:db8::/64"
    assert fields["packetwatch.reason"] == "protected"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        record()[: abi.EVENT_SHORT - 1],
        record(type=0),
        record(type=200),
        record(family=0),
        record(family=5),
        scan_record(plen=33),
        scan_record(listed=65535),
        scan_record(listed=64)[: abi.EVENT_SHORT + 8],
        b"\xff" * 200,
    ],
    # Without fixed ids the names would hold times, and each worker would collect other names.
    ids=range(11),
)
def test_foreign_records_are_none(data: bytes) -> None:
    assert decode(data) is None


def test_longer_records_of_a_newer_program_are_read(lines: Lines) -> None:
    assert connection(lines, record() + bytes(64))["source.port"] == 40000


def test_more_sources_than_are_remembered(lines: Lines) -> None:
    for number in range(10000):
        source = mapped("10.0.0.0")[:12] + (0x0A000000 + number).to_bytes(4, "big")
        text = connection(lines, record(saddr=source))["source.ip"]
        assert text == socket.inet_ntoa(source[12:])
    assert all(len(texts.known) <= 4097 for texts in lines._texts.values())


def episode_of(data: bytes) -> Episode:
    event = decode(data)
    assert event is not None
    return Episode(event, 60)


@pytest.mark.parametrize(
    ("kind", "transport"),
    [("syn", "tcp"), ("stealth", "tcp"), ("ack", "tcp"), ("udp", "udp"), ("sctp", "sctp")],
)
def test_kind_of_a_scan_and_its_transport(lines: Lines, kind: str, transport: str) -> None:
    fields = scan(lines, scan_record(flags=abi.kind_flags(kind) | abi.EVENT_PROTECTED))
    assert (fields["packetwatch.kind"], fields["network.transport"]) == (kind, transport)
    assert fields["packetwatch.reason"] == "protected"


def test_a_scan_of_protocols_has_no_transport(lines: Lines) -> None:
    fields = scan(lines, scan_record(flags=abi.kind_flags("proto"), sport=0, dport=0))
    assert "network.transport" not in fields


def test_a_kind_of_a_newer_version_is_a_number(lines: Lines) -> None:
    assert scan(lines, scan_record(flags=0x70))["packetwatch.kind"] == "7"


def test_every_field_is_documented(lines: Lines) -> None:
    text = (ROOT / "docs/events.md").read_text()
    sections = dict(section.split("\n", 1) for section in text.split("\n## "))
    tables = sections["Fields"] + sections["Audit"] + sections["Messages of the agent"]
    documented = set(re.findall(r"^\| `([^`]+)`", tables, re.M))
    opaque = abi.EVENT_OPAQUE | abi.EVENT_IN_OVERFLOW
    written = (
        set(connection(lines, record(flags=abi.EVENT_OPAQUE)))
        | set(scan(lines, scan_record(flags=opaque)))
        | set(read(lines.expiry(ban_of(ports=3))))
        | set(read(lines.ban(ban_of(), "fleet", "e1/quorum")))
        | set(scan(Lines("host", str, with_community_id=True), scan_record()))
        | set(read(lines.episode(episode_of(scan_record()))))
        | set(read(lines.episode(episode_of(record(type=abi.EVENT_WOULD_DROP)))))
        | set(read(audit.line("web1", Peer(5, 0, frozenset()), "ban", ["a"], reason="r")))
    )
    assert written <= documented
    from_agent = {"log.level", "log.logger", "message"}
    assert {name for name in documented if "*" not in name} == written | from_agent
