# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that comes from outside gives a value or an error of ours, in bounded time and memory.

`PARSERS` is the table of everything that reads such data. Each gets thousands of damaged inputs, made of good
ones, and large inputs that are meant to take long.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import re
import resource
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packetwatch_bus import desk

from packetwatch_agent import events, scrape
from packetwatch_agent import settings as agent_settings
from packetwatch_agent.control import wire, words
from packetwatch_agent.control.cli import parser as command_line
from packetwatch_core._active import kept
from packetwatch_core._active.generation import Areas, Records
from packetwatch_core._active.kept import Kept
from packetwatch_core._active.lists import COUNTS, read_known
from packetwatch_core._bans import recorded, saved, story
from packetwatch_core._base import address, clock, duration
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._change.panic import Flag
from packetwatch_core._change.pending import Record
from packetwatch_core._declared import bulk, edits, entries, nexts, policy, store
from packetwatch_core._declared import fleet as fleet_lists
from packetwatch_core._declared.store import Store
from packetwatch_core._dispatcher import place
from packetwatch_core._feeds import convert, lines, parse, published, records, spare, unpack
from packetwatch_core._feeds.copies import Ages
from packetwatch_core._feeds.parse import Format, read_feed
from packetwatch_core._feeds.width import BOUNDS
from packetwatch_core._health.status import Status
from packetwatch_core._host import heal
from packetwatch_core._kernel import abi, netlink, pins, source
from packetwatch_core._kernel.bytecode import Bytecode, Compiler
from packetwatch_core._network import endpoints, listeners, peers, protect, stack
from packetwatch_core._network import fleet as fleet_settings
from packetwatch_core._network import settings as host_settings
from packetwatch_core._network.endpoints import Endpoint
from packetwatch_core._node import keys, rules
from packetwatch_core._node.never import Never, read_always
from packetwatch_core._preflight import interfaces, values
from packetwatch_core._tables.area import Area
from packetwatch_core._tables.ranges import Prefixes
from packetwatch_core._tables.tables import compile_tables
from packetwatch_fleet import observed, pages
from packetwatch_fleet.bus.wire import Wire
from packetwatch_fleet.fold import Board
from packetwatch_fleet.reports import Reports
from packetwatch_fleet.sources import Sources
from packetwatch_fleet.store import gateway
from packetwatch_fleet.store.cluster import Cluster
from packetwatch_fleet.store.dates import Clock as FleetClock
from packetwatch_fleet.store.folder import Folder
from packetwatch_fleet.store.gateway import Frames, Session, change_of, objects
from packetwatch_fleet.store.http import Http, parse_date
from packetwatch_fleet.store.interface import Unavailable
from packetwatch_fleet.store.link import Link
from packetwatch_fleet.store.waits import Waiting, finish

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES, CHANGES = 50, 40
SECONDS = 5
MEMORY = 512 << 20
LARGE = 1 << 18

Read = Callable[[bytes, Path], object]


class Parser(NamedTuple):
    """Something that reads data from outside.

    read: reads the bytes; gets a folder to put files into. good: inputs that it accepts. near: others that
    are nearly right. errors: what it
    may raise. covers: functions of the library and the agent, which the test of completeness finds.
    """

    read: Read
    good: tuple[bytes, ...]
    covers: tuple[Any, ...] = ()
    near: tuple[bytes, ...] = ()
    errors: tuple[type[BaseException], ...] = (PacketwatchError,)


def text_of(read: Callable[[str], object]) -> Read:
    """Reads a text, as a decoded line or option is one."""
    return lambda data, folder: read(data.decode("utf-8", "replace"))


def file_of(read: Callable[[str], object]) -> Read:
    """Reads a file."""

    def reads(data: bytes, folder: Path) -> object:
        path = folder / "input"
        path.write_bytes(data)
        return read(str(path))

    return reads


def in_place(name: str, read: Callable[[Path], object]) -> Read:
    """Reads a file that has a fixed place in a folder."""

    def reads(data: bytes, folder: Path) -> object:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(folder)

    return reads


# Feeds


def feed(name: str, **options: str) -> Read:
    kind = Format(name, **options)
    rules = parse.Rules(max_bad=2, bounds=BOUNDS["deny"])
    return lambda data, folder: read_feed(data, kind, "x", rules)


PLAIN = b"# list\n11.22.33.0/24\n12.34.56.7 ; comment\n2a01:db8::/32\n2a01:db8:1::1 // x\n"
CSV = b'first_seen,cidr,score\n2026-01-01,"11.22.33.0/24",9\n2026-01-02,12.34.56.7,"a, b"\n'
NUMBERED = b'# x\n"2026","12.34.56.7"\n2026,2a01:db8::/32\n'
RANGES = b"from,to\n11.22.33.0-11.22.33.255\n12.34.56.7 255.255.255.0\n2a01:db8::,2a01:db8::ff,x\n"
IPSET = b"create a hash:net family inet\nadd a 11.22.33.0/24 timeout 5\nadd a 12.34.56.7\n"
NDJSON = (
    b'{"cidr":"11.22.33.0/24","sblid":"SBL1","rir":"x"}\n{"cidr":"12.34.56.0/24"}\n'
    b'{"type":"metadata","timestamp":1764400000,"records":2,"size":100}\n'
)
DOCUMENT = (
    b'{"prefixes":[{"ip_prefix":"11.22.33.0/24","x":[1,null]},{"ip_prefix":"12.34.56.0/24"}]}'
)
CHOSEN = b'{"values":[{"name":"A.B","properties":{"p":["11.22.33.0/24"]}},{"name":"C"}]}'


def packed(kind: str) -> bytes:
    import bz2
    import gzip
    import io
    import lzma
    import zipfile

    if kind == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("list.txt", PLAIN * 20)
        return file.getvalue()
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
    }
    return packers[kind](PLAIN * 20)


def options_of_a_feed(data: bytes, folder: Path) -> object:
    given = json_or_skip(data)
    names = ("checksum", "timeout", "max_bytes", "max_age", "widest", "widest_sum", "preset", "url")
    plain = dict.fromkeys(names) | {"name": "x", "path": "/x", "list": "deny", "max_bad": 0}
    kinds = {
        "name": str,
        "url": str,
        "checksum": str,
        "column": str,
        "delimiter": str,
        "format": str,
    }
    options = {
        key: value
        for key, value in (given if isinstance(given, dict) else {}).items()
        if key in kinds and isinstance(value, kinds[key])
    }
    return convert.read_options(plain | options)


def answer_of_a_server(data: bytes, folder: Path) -> object:
    modified, dummy, length = data.decode("latin-1").partition("\n")
    published._check_length(100, {"Content-Length": length})
    published.check_age(published._read_time(modified), 3600, "x")
    return None


def kept_answer(data: bytes, folder: Path) -> object:
    params = {"url": "x", "headers": {}, "cache": str(folder), "interval": 3600, "max_bytes": 9999}
    there = published._Kept(params)
    Path(there._path).write_bytes(data)
    found = there.read()
    if found:
        with contextlib.suppress(PacketwatchError):
            published.check_age(found.modified, 3600, "x")
    return found


# Root's own notes and records


CHANGE = {
    "status": "pending",
    "number": 7,
    "token": "t",
    "owner": "me",
    "interfaces": {"eth0": "native"},
    "loaded": True,
    "deadline": 100.5,
    "since": 1764400000.0,
    "ends": 1764400060.0,
    "ended": 0,
    "lifts": False,
    "ended_by": "",
}
NOTE = {
    "number": 7,
    "interfaces": {"eth0": {"program": 1, "mode": "native", "attached": True}},
    "whole": True,
    "digest": "00",
    "counts": {"deny": 1},
    "declared": "x",
    "edited": False,
    "feeds": {"a": {"fetched": 1.0, "published": None}},
    "distrusted": ["x"],
    "apply": {"time": 1.0, "success": True, "why": ""},
    "heal": {"recent": [1.0], "success": 1, "failure": 0},
}


def change(folder: Path) -> object:
    found = Record(str(folder)).read()
    return found and (
        found.describe(),
        found.left,
        found.end("confirmed"),
        found.interfaces.items(),
    )


def status(path: str) -> object:
    there = Status(path)
    there.of_lists()
    there.is_edited()
    "".join(there.distrusted())
    heal._recent(there)
    return heal._note(there, heal.Repair(["x"], []))


def make_known(path: str) -> object:
    found = read_known(path, AREAS)
    return found and (sum(found.counts.values()), found.counts["deny"], sum(found.shape))


AREAS = Areas.of(compile_tables(Prefixes(), Prefixes()), bytes(32), 0, 0)
KNOWN = [AREAS.lists.hex(), AREAS.next_expiry, dict.fromkeys(COUNTS, 3), [1, 0, 2, 1], ["ab", "cd"]]


def ages(path: str) -> object:
    state = store.State(deny={"feed-a": "203.0.113.0/24\n"})
    found = Ages(path)
    found.note([{"name": "a", "digest": "", "fetched": None, "published": None}], state, 5.0)
    times = found.of(state)
    return {name: 5.0 - each.fetched + (each.published or 0) for name, each in times.items()}


def image() -> bytes:
    code = Bytecode(bytes(16), ((0, "bans"),), bytes(32))
    header = abi.HEADER.unpack(bytes(abi.HEADER.size))
    made = Kept(
        *(
            7,
            {"eth0": "auto"},
            {"eth0": "/sys/fs/bpf/x"},
            {"PW_PROTECT": ""},
            {"counts": {}},
            None,
            False,
            header,
        ),
        *(Records(bytes(8), {"eth0": bytes(8)}), Area(bytes(64), b"x"), Area(b"", b""), code, "k"),
    )
    return b"".join(kept.pack(made))


def signed_image(data: bytes, folder: Path) -> object:
    """An image whose checksum is right: of another version, or made by a program with an error."""
    first, dummy, body = data.partition(b"\n")
    size = first.rpartition(b" ")[2]
    head = body[: int(size)] if size.isdigit() and len(size) < 10 else body
    seal = kept._digest(head).encode()
    found = kept.unpack(b"%s%s %d\n%s" % (kept._MAGIC, seal, len(head), body))
    return found.number, found.next_expiry, found.interfaces.items(), found.settings.items()


def cached(data: bytes, folder: Path) -> object:
    compiler = Compiler(lambda argv, stdin: (1, "", ""), str(folder))
    os.chmod(folder, 0o700)
    path = compiler._path("x")
    body = data.rpartition(b"\n")[0]
    loads, dummy, code = body.partition(b"\n")
    two = loads + b"\n", code + b"\n"
    Path(path).write_bytes(b"".join(two) + compiler._check(compiler.key("x"), *two))
    Path(path).chmod(0o600)
    found = compiler.cached("x")
    return found and found.resolved({"bans": 3})


# What is declared


def drop_in(data: bytes, folder: Path) -> object:
    text = data.decode("utf-8", "replace")
    bulk.parse_drop_in(text, "x")
    for entry in entries.parse_list(text, "x"):
        entry.text.encode()
    return bulk.read_prefixes(text, "x", 1.8e9, True, "deny")


def items(data: bytes, folder: Path) -> object:
    given = json_or_skip(data)
    edits.list_text(given, "packetwatch_deny")
    return entries.merge_inputs({"packetwatch_deny": given})


def options_of_a_policy(data: bytes, folder: Path) -> object:
    given = json_or_skip(data)
    return policy.fields_from_options(given if isinstance(given, dict) else {"scan_ports": given})


def state(name: str, content: str = "") -> Read:
    """Reads a confirmed state of which one file has the bytes."""

    def reads(folder: Path) -> object:
        root = folder / "etc"
        for each in ("allow.d", "deny.d", "next.d", "policy.d"):
            (root / "7" / each).mkdir(parents=True, exist_ok=True)
        for each in ("interfaces",):
            (root / "7" / each).touch()
        if not (root / "current").is_symlink():
            (root / "current").symlink_to("7")
        there = Store(str(root))
        return there.read_current(), there.took_back()

    return in_place(f"etc/7/{name}", reads)


def panic(folder: Path) -> object:
    found = Flag(str(folder)).read()
    return found and found.describe()


# The kernel and files of the system


class Channel:
    """A netlink socket that answers with these bytes, then with the end of a dump."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._answers: list[bytes] = []

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *dummy: object) -> None:
        return None

    def bind(self, dummy: object) -> None:
        return None

    settimeout = bind

    def send(self, request: bytes) -> None:
        (sequence,) = struct.unpack_from("=I", request, 8)
        self._answers = [self._data, struct.pack("=IHHII", 16, 3, 0, sequence, 0)]

    def recv(self, dummy: int) -> bytes:
        if not self._answers:
            raise TimeoutError("timed out")
        return self._answers.pop(0)


def dumped(read: Callable[[], object]) -> Read:
    """Reads the answer to the first request over netlink."""

    def reads(data: bytes, folder: Path) -> object:
        with mock.patch.object(socket, "socket", return_value=Channel(data)):
            return read()

    return reads


def message(kind: int, header: bytes, *attributes: tuple[int, bytes], sequence: int = 1) -> bytes:
    body = header
    for name, value in attributes:
        body += struct.pack("=HH", 4 + len(value), name) + value
        body += bytes(-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 2, sequence, 0) + body


LINKS = message(
    16,
    struct.pack("=BxHiII", 0, 1, 2, 3, 0),
    *((3, b"eth0\0"), (10, bytes(4)), (18, struct.pack("=HH4s", 8, 1, b"vrf\0"))),
    (43, struct.pack("=HHB3x", 5, 2, 1)),
)
ADDRESSES = message(
    20, struct.pack("=BBBBI", 2, 24, 0, 0, 2), (1, bytes(4)), (2, bytes(4)), (8, bytes(4))
)
ROUTES = message(
    24,
    struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0),
    *((4, bytes(4)), (5, bytes(4)), (9, struct.pack("=HBBi", 16, 0, 0, 2) + bytes(8))),
)


def tcp_table(folder: Path) -> object:
    root = str(folder)
    return peers.ssh_clients({22}, root), peers.tcp_peers(root)


def network_stack(folder: Path) -> object:
    """Read a host that has the file in the folder, and whose other files are as usual."""
    ports = folder / "sys/ipv4/ip_local_port_range"
    if not ports.exists():
        ports.parent.mkdir(parents=True)
        ports.write_text("32768\t60999\n")
    return stack.read_stack(str(folder / "sys"), str(folder / "net"))


TCP = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
    b"   0: 0100007F:0016 0200000A:D431 01 00000000:00000000 00:00000000 00000000     0\n"
    b"   1: 00000000000000000000000001000000:0016 00000000000000000000000001000000:D431 01 0\n"
)


def accounts(folder: Path) -> object:
    pins._USERS, before = str(folder / "passwd"), pins._USERS
    try:
        return pins._agent()
    finally:
        pins._USERS = before


def journal(data: bytes, folder: Path) -> object:
    text = data.decode("utf-8", "replace")
    prefix = address.parse_prefix("203.0.113.7")
    return story.story(lambda argv, stdin: (0, text, ""), prefix, 1.0)


# Requests and arguments


def request(data: bytes, folder: Path) -> object:
    found = wire.parse_request(data)
    wire.text_of(found, "address", "")
    wire.texts_of(found, "addresses")
    wire.flag_of(found, "force")
    return wire.seconds_of(found, "seconds")


def bans_file(path: str) -> object:
    clocks = saved._clocks()
    with open(path, "rb") as file:
        saved._object(file.readline(saved.MAX_LINE))
        return [saved._ban_in(line, clocks) for line in saved._lines(file)]


COMMAND_LINE = command_line()


def arguments(data: bytes, folder: Path) -> object:
    given = data.decode("utf-8", "replace").split("\n")
    with contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):
        options = COMMAND_LINE.parse_args(given)
    until = getattr(options, "expires", None)
    return until and entries.expires_at(words.time_from(until))


def time_of_an_argument(text: str) -> object:
    words.seconds_from(text)
    return entries.expires_at(words.time_from(text))


def settings_of_the_agent(data: bytes, folder: Path) -> object:
    pairs = (line.partition("=") for line in data.decode("utf-8", "replace").split("\n"))
    return agent_settings.read({key: value for key, dummy, value in pairs})


def variables(data: bytes, folder: Path) -> object:
    given = json_or_skip(data)
    declared = values.read_variables(given if isinstance(given, dict) else {"x": given})
    problems: list[str] = []
    wanted = given.get("packetwatch_interfaces") if isinstance(given, dict) else given
    if isinstance(wanted, list):
        interfaces.read_interfaces(wanted, problems)
    return declared


class Skip(PacketwatchError):
    """Ansible refuses such a value before the library sees it."""


def json_or_skip(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Skip("not a value of YAML") from None


FLEET_LISTS = (
    b'{"v":1,"lists":{"web":{"allow":[{"address":"192.0.2.1"}],"deny":[{"address":"203.0.113.0/24",'
    b'"comment":"x","expires":"2026-12-01T00:00:00Z"},{"address":"2001:db8::/32","expires":1796083200}]}}}'
)

FLEET_SETTINGS = (
    fleet_settings.parse_action,
    fleet_settings.parse_lists,
    fleet_settings.parse_longest,
    fleet_settings.parse_most,
)

GATE = Endpoint("gate", "127.0.0.1", 2378)
BANS_OF_FLEET = (
    b'{"v":1,"bans":[["192.0.2.1",2000,900,"quorum","answer",3],["2001:db8::7",2e3,9,"r","syn",0]]}'
)
HEADER = b'"header":{"cluster_id":"14841639068965178418","revision":"7"}'
PAIR = b'{"key":"L2E=","mod_revision":"6","value":"eA=="}'
LISTING = b'{%b,"kvs":[%b],"more":false,"count":"1"}' % (HEADER, PAIR)
EVENTS = (
    b'{"result":{%b,"created":true}}\n{"result":{%b,"events":[{"kv":%b},{"type":"DELETE","kv":%b}]}}\n'
    % (HEADER, HEADER, PAIR, PAIR)
)
HEAD_OF_ANSWER = b"HTTP/1.1 200 OK\r\nDate: Sun, 29 Nov 2026 15:10:15 GMT\r\n"


class Answering:
    """A link whose other end has sent these bytes, and then ended the connection."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def send(self, data: bytes, until: float) -> Waiting[None]:
        yield from ()

    def receive(self, until: float) -> Waiting[bytes]:
        yield from ()
        data, self._data = self._data[:65536], self._data[65536:]
        if not data:
            raise Unavailable("it has ended the connection")
        return data


def at_a_gate(work: Callable[[Session], Waiting[object]]) -> Read:
    """Reads what a gate answers, as work on a session."""

    def reads(data: bytes, folder: Path) -> object:
        session = Session(GATE, None, FleetClock())
        session.close()
        session._http = Http(cast(Link, Answering(data)), "gate")
        return finish(work(session))

    return reads


def watched(session: Session) -> Waiting[object]:
    """Take the frames of a watch, up to the end of the connection."""
    yield from session.open("/v3/watch", b"", "")
    frames = Frames()
    found: list[object] = []
    try:
        while True:
            for frame in frames.feed((yield from session.piece(0))):
                found += map(change_of, objects(session.frame(frame), "events"))
    except Unavailable as error:
        if not found or "ended" not in str(error):
            raise
    return found


def in_chunks(data: bytes) -> bytes:
    """Return an answer in chunks without an end."""
    head = HEAD_OF_ANSWER + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n" % (len(data), data)


def folded(data: bytes, folder: Path) -> object:
    """Fold a page of bans and a page of lifts; what is wrong only counts."""
    board = Board()
    board.put(f"{keys.BANS}e1/10-000", data)
    board.put(f"{keys.LIFTS}10-000", data)
    return list(board.bans(1000))


def reported(data: bytes, folder: Path) -> object:
    """Take an item of the agent's stream; what is wrong only counts."""
    try:
        item = json.loads(data)
    except (ValueError, RecursionError):
        return None
    reports = Reports(Sources())
    reports.take(item, 1.0)
    return reports.bans(1.0, 0.0), reports.seen(1.0, 0.0)


def of_a_host(data: bytes, folder: Path) -> object:
    """Read a report of each kind; one that is refused counts."""
    found: list[object] = []
    for read in (
        lambda: list(observed.read_seen(data).pairs),
        lambda: observed.read_bans(data, Sources()),
        lambda: observed.read_addresses(data),
    ):
        with contextlib.suppress(pages.Refused):
            found.append(read())
    never = Never()
    never.put(f"{keys.HOSTS}web1/status", data)
    never.put(f"{keys.LISTS}office", data)
    return found, never.refused("192.0.2.1")


def in_a_folder(data: bytes, folder: Path) -> object:
    store = folder / "store"
    store.mkdir(exist_ok=True)
    (store / "key").write_bytes(data)
    return Folder(str(store)).read("/")


def framed(data: bytes, folder: Path) -> object:
    """Read what a broker sends, until there is no whole frame."""
    wire = Wire()
    wire.feed(data)
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(wire.read_frame())
    return found


PARSERS: dict[str, Parser] = {
    "frames of a broker": Parser(
        framed,
        (b"\x08\x00\x00\x00\x00\x00\x00\xce", b"\x01\x00\x01\x00\x00\x00\x02ab\xce\x08"),
        (Wire.read_frame,),
        near=(b"\x08\x00\x00\x00\x00\x00\x00\xcf", b"\x01\x00\x01\xff\xff\xff\xff"),
    ),
    "command by a broker": Parser(
        lambda data, folder: desk.read_order(desk.read_fields(data)),
        (
            b'{"v":1,"id":"a","address":"203.0.113.9","seconds":600,"reason":"x","made":1000.5}',
            b'{"v":1,"id":"a","address":"2001:db8::/32","made":1000}',
        ),
        near=(
            b'{"v":1,"id":"a","address":"203.0.113.9","made":1e999}',
            b'{"v":1,"id":"a","address":"203.0.113.9","made":NaN}',
            b'{"v":true,"id":"a","address":"203.0.113.9","made":1}',
            b"[" * 3000,
        ),
    ),
    "page of the fleet": Parser(
        folded,
        (BANS_OF_FLEET, b'{"v":1,"lifts":[["192.0.2.1",900,1000]]}'),
        (pages.parse_page, pages.parse_lifts, pages.read_object),
    ),
    "report of a host": Parser(
        of_a_host,
        (
            b'{"v":1,"n":7,"t":1000.5,"lost":0,"p":"ywBxBwii","p6":"IAENuAAAAAAIog=="}',
            b'{"v":1,"t":1000.5,"bans":[["203.0.113.7",1600,1000,[21,22],"syn"]]}',
            b'{"v":1,"t":1000.5,"addresses":["192.0.2.1","2001:db8::1"]}',
        ),
        (observed.read_seen, observed.read_bans, observed.read_addresses),
    ),
    "line of a recording": Parser(
        lambda data, folder: recorded.parse(data),
        (
            b'<1>{"@timestamp":"2026-11-29T18:00:00.123456Z","event.action":"probe","source.ip":"203.0.113.7"}',
        ),
        (recorded.parse, recorded.parse_time),
    ),
    "place in a dispatcher": Parser(
        text_of(place.read_place), (b"dispatcher:50:pass", b"dispatcher"), (place.read_place,)
    ),
    "rules of an enforcer": Parser(
        file_of(rules.read_rules),
        (
            b'{"v":1,"rules":{"sweep":{"action":"enforce","hosts":5,"window":"10m"},"mine":{"x":1.5}}}',
        ),
        (rules.read_rules, rules.parse_rules, rules.parse_enforcers),
    ),
    "what nobody bans": Parser(
        file_of(read_always),
        (b"# a comment\n192.0.2.11 an address of a node\n2001:db8::/32 protected\n",),
        (read_always,),
    ),
    "item of the agent's stream": Parser(
        reported,
        (
            b'{"ban":["203.0.113.7",[21,22,23],600.0,"syn"]}',
            b'{"probe":["203.0.113.7",2222]}',
            b'{"end":["203.0.113.7","2001:db8::/64"]}',
        ),
    ),
    "listing of a store": Parser(
        at_a_gate(lambda session: Cluster([GATE]).snapshot(session, ["/"])),
        (
            HEAD_OF_ANSWER + b"Content-Length: %d\r\n\r\n%b" % (len(LISTING), LISTING),
            in_chunks(LISTING) + b"0\r\nTrailer: x\r\n\r\n",
        ),
        (gateway.decode,),
    ),
    "watch of a store": Parser(at_a_gate(watched), (in_chunks(EVENTS),)),
    "date of an answer": Parser(
        text_of(parse_date), (b"Sun, 29 Nov 2026 15:10:15 GMT",), (parse_date,)
    ),
    "file of a folder of the fleet": Parser(in_a_folder, (b"7 0\n{}",), (Folder.read,)),
    "endpoints of a store": Parser(
        text_of(lambda text: endpoints.parse_endpoints(text, "X")),
        (b"fleet1=192.0.2.11:2378,[2001:db8::11]:2378",),
        (endpoints.parse_endpoints,),
    ),
    "names in a store": Parser(
        text_of(lambda text: endpoints.parse_labels(text, "X")),
        (b"e1, api",),
        (endpoints.parse_label, endpoints.parse_labels),
    ),
    "settings of the fleet": Parser(
        text_of(
            lambda text: [
                read(word, "x")
                for read, word in zip(FLEET_SETTINGS, text.split("\n"), strict=False)
            ]
        ),
        (b"enforce\nboth\n7d\n10000", b"off\nnone\n3600\n1"),
        FLEET_SETTINGS,
    ),
    "lists of the fleet": Parser(
        file_of(lambda path: fleet_lists.parse(fleet_lists.read_file(path), ("allow", "deny"))),
        (FLEET_LISTS,),
        (fleet_lists.parse, fleet_lists.read_file),
    ),
    "feed plain": Parser(feed("plain"), (PLAIN,), (lines.read_lines, lines.read_words, read_feed)),
    "feed hosts": Parser(feed("hosts"), (b"11.22.33.44 bad.example\n2a01:db8::1 y # z\n",)),
    "feed csv by name": Parser(feed("csv", column="cidr"), (CSV,)),
    "feed csv by number": Parser(feed("csv", column="2"), (NUMBERED, CSV)),
    "feed csv with blanks": Parser(feed("csv", column="1", delimiter=" "), (PLAIN,)),
    "feed ranges": Parser(feed("ranges"), (RANGES,)),
    "feed ipset": Parser(feed("ipset"), (IPSET, PLAIN)),
    "feed json lines": Parser(feed("json", column="cidr"), (NDJSON,), (records.read_records,)),
    "feed json document": Parser(feed("json", column="prefixes[].ip_prefix"), (DOCUMENT,)),
    "feed json choice": Parser(feed("json", column="values[name=A.B].properties.p[]"), (CHOSEN,)),
    "packed feed": Parser(
        lambda data, folder: unpack.unpack(data, 1 << 16),
        tuple(packed(kind) for kind in ("gzip", "bzip2", "xz", "zip")),
        (unpack.unpack,),
    ),
    "path into json": Parser(
        text_of(records.parse_paths), (b"cidr", b"a[].b, c[n=x.y].d[]"), (records.parse_paths,)
    ),
    "options of a feed": Parser(
        options_of_a_feed,
        (
            b'{"url":"https://x","format":"csv","column":"2","delimiter":";","checksum":"sha256:'
            + b"0" * 64
            + b'"}',
        ),
        (convert.read_options,),
    ),
    "answer of a server": Parser(
        answer_of_a_server,
        (formatdate(time.time() - 60, usegmt=True).encode() + b"\n100",),
        near=(b"Sat, 29 Nov 2025 07:00:00 -0000\n", b"Sat, 29 Nov 2036 07:00:00 +0100\n"),
    ),
    "kept answer of a server": Parser(
        kept_answer, (b"[1764400000.5, 1764400000]\n" + PLAIN,), (published._Kept.read,)
    ),
    "list file": Parser(
        drop_in,
        (
            b"# list\n203.0.113.0/24 expires=2027-01-01T00:00:00Z # x (packetwatch_deny[3])\n"
            b"198.51.100.7\n2001:db8::/32 # y\n2001:db8:1::1\n",
        ),
        (
            *(bulk.parse_drop_in, bulk.read_prefixes, entries.parse_list, entries.parse_line),
            *(entries.parse_words, edits.read_list),
        ),
    ),
    "prefix": Parser(
        text_of(address.parse_prefix),
        (b"203.0.113.0/24", b"2001:db8::/32"),
        (address.parse_prefix, address.parse_address),
        (b"203.0.113.0/255.255.255.0", b"001.2.3.4", b"1.2.3.0/08", b"fe80::1%eth0", b"[::1]"),
    ),
    "entries of a variable": Parser(
        items,
        (
            b'["203.0.113.0/24",{"address":"2001:db8::1","expires":"2027-01-01T00:00:00Z","state":"absent"}]',
        ),
    ),
    "policy file": Parser(
        text_of(lambda text: policy.parse_policy(policy.read_policy(text, "x"), "x")),
        (
            b"PW_ACTION=enforce\nPW_SCAN_PORTS=5\nPW_PUBLISHED_PORTS=80,9000-9010\nPW_BAN_TIME=10m\n",
        ),
        (policy.read_policy, policy.parse_policy),
    ),
    "options of a policy": Parser(
        options_of_a_policy,
        (b'{"scan_ports":5,"scan_window":"1m","ban_time":600.5,"published_ports":["80",443]}',),
    ),
    "file of policy.d": Parser(
        state("policy.d/eth0.conf"), (b"PW_SCAN_PORTS=5\n",), (store.read_policies,)
    ),
    "file of interfaces": Parser(
        state("interfaces"), (b"eth0 auto\nbr-lan native # x\n",), (store.read_interfaces,)
    ),
    "list of a state": Parser(
        state("deny.d/local.list"),
        (PLAIN,),
        (Store.read, Store.read_current, Store.read_allowed, Store.read_former),
    ),
    "list of a feed in a state": Parser(state("deny.d/feed-a.list"), (PLAIN,)),
    "program of a state": Parser(
        state("program.c"), (b"int packetwatch(void *x) { return 2; }\n",)
    ),
    "pin of a next program": Parser(
        state("next.d/eth0.path"), (b"/sys/fs/bpf/balancer\n",), (nexts.read_next,)
    ),
    "source of a next program": Parser(
        state("next.d/eth0.c"), (b"int next(void *x) { return 2; }\n",)
    ),
    "number of a rollback": Parser(state("took_back"), (b"6\n",)),
    "settings of a state": Parser(state("settings"), (b"PW_PROTECT=\n",), (Store.read_settings,)),
    "settings": Parser(
        file_of(host_settings.read_settings),
        (
            b'PW_LIST_MEMORY="64"\nPW_PROTECT=192.0.2.1,2001:db8::/32\nPW_PROTECT_AUTO=1\nPW_SHARED_PREFIXES=\n',
        ),
        (
            *(host_settings.read_settings, host_settings.read_values, host_settings.parse_values),
            *(host_settings.parse_switch, host_settings.parse_list_memory),
            *(protect.parse_declared, protect.parse_shared),
        ),
    ),
    "settings of the agent": Parser(
        settings_of_the_agent,
        (
            b"PW_METRICS_LISTEN=127.0.0.1:9477\nPW_HEARTBEAT_URL=http://x:80/y\nPW_HEARTBEAT_INTERVAL=60\n",
        ),
        (agent_settings.read, agent_settings.read_as),
    ),
    "address of metrics": Parser(
        text_of(lambda text: endpoints.parse_listen(text, "x")),
        (b"127.0.0.1:9477", b"[::1]:9477"),
        (endpoints.parse_listen,),
    ),
    "virtual host of a broker": Parser(
        text_of(lambda text: endpoints.parse_vhost(text, "x")),
        (b"packetwatch", b"/"),
        (endpoints.parse_vhost,),
    ),
    "URL of heartbeats": Parser(
        text_of(lambda text: endpoints.parse_url(text, "x")),
        (b"https://x.example:443/y?z", b"http://[::1]/"),
        (endpoints.parse_url,),
    ),
    "duration": Parser(
        text_of(
            lambda text: (
                duration.parse_duration(text, "x", 0, 9e9),
                endpoints.parse_interval(text, "x"),
            )
        ),
        (b"60", b"1h30m", b"120"),
        (duration.parse_duration, duration.read_duration, endpoints.parse_interval),
    ),
    "variables of the role": Parser(
        variables,
        (
            b'{"packetwatch_interfaces":["eth0",{"name":"eth1","mode":"native","scan_ports":3}],'
            b'"packetwatch_deny":["203.0.113.0/24"],"packetwatch_list_memory":64,"packetwatch_scan_grace":"2m",'
            b'"packetwatch_feeds":[{"name":"a","url":"https://x.example/"}],"packetwatch_self_heal":true}',
        ),
        (values.read_variables, interfaces.read_interfaces),
    ),
    "change.json": Parser(
        in_place("change.json", change), (json.dumps(CHANGE).encode(),), (Record.read,)
    ),
    "status.json": Parser(file_of(status), (json.dumps(NOTE).encode(),), (Status.read,)),
    "tables.json": Parser(file_of(make_known), (json.dumps(KNOWN).encode(),), (read_known,)),
    "ages of feeds": Parser(
        file_of(ages),
        (
            b'{"a":{"x":[1.0,null],"6a2b64ee1ba2d3d3cd6e2a4d1b8b0b5f6b3d1f9f2c3f7c9a5e8d7b6c5a4f3e2d":[2,3.5]}}',
        ),
    ),
    "note of spared networks": Parser(
        file_of(spare.read_note),
        (
            b"lists 00\nconnected 192.0.2.0/24\nleft_out feed-a 2 203.0.113.0/24\nbroken feed-b line 1\n",
        ),
        (spare.read_note,),
    ),
    "kept time": Parser(file_of(clock.read_clock), (b"1764400000\n",), (clock.read_clock,)),
    "panic": Parser(in_place("panic", panic), (b'{"owner":"me"}', b""), (Flag.read,)),
    "boot image": Parser(lambda data, folder: kept.unpack(data), (image(),), (kept.unpack,)),
    "boot image with a right checksum": Parser(signed_image, (image(),)),
    "cached bytecode": Parser(cached, (b"1:bans\n" + b"18110000" * 8 + b"\nx\n",)),
    "source of a program": Parser(
        file_of(lambda path: source.reads_ours(source.read_source(path))),
        (b"#define PW_FORMAT 3\nint packetwatch(void *x) { return 2; }\n",),
        (source.read_source,),
    ),
    "links of the kernel": Parser(dumped(netlink.links), (LINKS,)),
    "addresses of the kernel": Parser(
        dumped(netlink.addresses), (ADDRESSES,), (protect.read_network,)
    ),
    "routes of the kernel": Parser(dumped(netlink.routes), (ROUTES,)),
    "listening sockets": Parser(
        dumped(listeners.read_ports),
        (message(20, struct.pack("=BBBBH2x16s52x", 2, 10, 0, 0, 5632, b""), sequence=2),),
        (listeners.read_ports,),
    ),
    "connections in /proc": Parser(in_place("proc/self/net/tcp", tcp_table), (TCP,)),
    "IPv6 connections in /proc": Parser(in_place("proc/self/net/tcp6", tcp_table), (TCP,)),
    "raw sockets in /proc": Parser(
        in_place("net/raw", network_stack),
        (b"  sl  local_address\n   1: 00000000:0001 00000000:0000 07\n",),
        (stack.read_stack,),
    ),
    "ports of the kernel": Parser(
        in_place("sys/ipv4/ip_local_port_range", network_stack), (b"32768\t60999\n",)
    ),
    "resolvers": Parser(
        in_place("etc/resolv.conf", lambda root: peers.resolvers(str(root))),
        (b"nameserver 192.0.2.1\nnameserver fe80::1%eth0\n",),
    ),
    "time servers": Parser(
        in_place("etc/systemd/timesyncd.conf", lambda root: peers.time_servers(str(root))),
        (b"[Time]\nNTP=192.0.2.1 2001:db8::1 x.example\n",),
    ),
    "configuration of sshd": Parser(
        in_place("etc/ssh/sshd_config", lambda root: peers.ssh_ports(str(root))),
        (b"Port 22\nListenAddress [2001:db8::1]:2222\nListenAddress x:22\nUsePAM yes\n",),
    ),
    "users": Parser(
        in_place("passwd", accounts),
        (b"root:x:0:0::/root:/bin/sh\npacketwatch-agent:x:990:991::/:/bin/false\n",),
    ),
    "journal": Parser(
        journal,
        (
            b'{"event.action":"ban","packetwatch.ports":[1,2],"source.ip":"203.0.113.7"}\n'
            b'{"event.action":"audit","packetwatch.command":"ban","packetwatch.arguments":["address=203.0.113.7"]}\n'
            b"Invoked with address=203.0.113.7 duration=5 reason=x state=present\n",
        ),
    ),
    "saved bans": Parser(
        file_of(bans_file),
        (
            b'{"format":1,"boot":"x","map":1}\n'
            b'{"source":"203.0.113.7","origin":"manual","since":1.5,"expires":9.5,"ports":0,"dropped":0}\n',
        ),
    ),
    "request for metrics": Parser(
        lambda data, folder: scrape.answer(data, lambda: "x 1\n"),
        (b"GET /metrics?x HTTP/1.1\r\nHost: x\r\n\r\n",),
        (scrape._Client.read,),
    ),
    "record of the ring": Parser(
        lambda data, folder: events.decode(data),
        (bytes(abi.EVENT_SHORT), bytes(range(256))),
        (events.decode,),
    ),
    "control request": Parser(
        request,
        (b'{"command":"ban","address":"203.0.113.7","seconds":60,"force":true,"addresses":["x"]}',),
        (wire.parse_request,),
    ),
    "arguments of packetwatchctl": Parser(
        arguments,
        (
            b"ban\n203.0.113.7\n--for\n10m\n--reason\nx",
            b"deny\n203.0.113.0/24\n--expires\n2h",
            b"top\n--most\n5\n--interval\n2",
            b"watch\n--count\n3",
        ),
        errors=(PacketwatchError, SystemExit),
    ),
    "time of an argument": Parser(
        text_of(time_of_an_argument), (b"12h", b"90", b"1w2d"), near=(b"2027-01-01T00:00:00Z",)
    ),
}

# What has such a name and reads nothing from outside.
INSIDE = {
    "versions.Versions.unpack": "the archive is checked against the digests that the controller has sent",
    "_module.read_terms": "options that Ansible has checked",
    "abi.Layout.unpack": "records of maps, whose size the kernel checks",
    "active.read_active": "maps of the kernel",
    "bans.Bans.read": "records of maps",
    "chain.read_chains": "programs of the kernel",
    "chain.Dispatchers.read": "programs of the kernel, and their pins",
    "channel.Channel.read": "bytes, of which the control server makes requests",
    "counters.read_counters": "maps of the kernel",
    "counters.read_pinned": "maps of the kernel",
    "drop_ins.read_text": "its callers have rows",
    "etcd.Etcd.read": "Cluster.snapshot, which has a row",
    "interface.Store.read": "has no code",
    "files.parse_json": "its callers have rows",
    "files.read_json": "its callers have rows",
    "keeper.Keeper.read_soon": "sets a timer",
    "number.read_whole": "its callers have rows",
    "protect.read_network_in_steps": "read_network, which has a row, does all its steps",
    "reader.read_ranges": "maps of the kernel",
    "reader.read_runs": "maps of the kernel",
    "ring.RingBuffer.read": "the kernel's ring: its records have a row",
    "whole.read_whole": "options that Ansible has checked; entries and policies have rows",
}

SCANNED = re.compile(r"(?:read|parse|unpack|decode)(?:_\w+)?")


# Damage


TOKENS = (
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b"\x0b",
        b"\x85",
        b"\xe2\x80\xa8",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
    ),
    *(
        b"9" * 5000,
        b"-1",
        b"1e999",
        b"NaN",
        b"-Infinity",
        b"0x10",
        b"1_000",
        b"\xc2\xb2",
        b"\xd9\xa3",
    ),
    *(b"1" * 20, b"18446744073709551616", b"00000000", b"4294967296", b"0", b""),
    *(
        b"[" * 3000,
        b'{"a":' * 3000,
        b'"',
        b"'",
        b"\\",
        b"{",
        b"}",
        b"]",
        b":",
        b",",
        b"=",
        b"/",
        b"#",
        b"%",
    ),
    *(b"null", b"true", b"[]", b"{}", b'""', b" ", b"\t", b"-", b";", b"..", b"::", b"A" * 5000),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1e308,
        float("nan"),
        float("inf"),
        10**400,
        "",
        "x",
        "9" * 5000,
        "203.0.113.9",
    ),
    *([], {}, [[]], [None], {"a": []}, ["x"], [1], {"x": 1}, 2**63, -(2**63), 0.5, "\ud800", "\0"),
)
NUMBER = re.compile(rb"[0-9]+")


def damage(data: bytes, chance: random.Random) -> bytes:
    """The data with one to four changes."""
    for dummy in range(chance.choice((1, 1, 2, 4))):
        data = chance.choice(DAMAGES)(data, chance)
    return data


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for dummy in range(chance.randint(1, 4)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def insert(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(TOKENS) + data[at:]


def replace(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(TOKENS) + data[at + chance.randint(1, 8) :]


def repeat(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    piece = data[at : at + chance.randint(1, 40)]
    return data[:at] + piece * chance.choice((2, 3, 50)) + data[at:]


def remove(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[at + chance.randint(1, 20) :]


def number(data: bytes, chance: random.Random) -> bytes:
    found = list(NUMBER.finditer(data))
    if not found:
        return insert(data, chance)
    one = chance.choice(found)
    return data[: one.start()] + chance.choice(TOKENS) + data[one.end() :]


def member(data: bytes, chance: random.Random) -> bytes:
    """JSON with another value, or value of another type, somewhere; a line of it if it has several."""
    rows = data.split(b"\n")
    at = chance.randrange(len(rows))
    try:
        value = json.loads(rows[at])
    except (ValueError, RecursionError):
        return replace(data, chance)
    rows[at] = json.dumps(_with_other(value, chance)).encode()
    return b"\n".join(rows)


def _with_other(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict | list) and value and chance.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = chance.choice(keys)
        if isinstance(value, dict) and chance.random() < 0.15:
            return {name: one for name, one in value.items() if name != key}
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        copy[key] = _with_other(value[key], chance)
        return copy
    return chance.choice(VALUES)


DAMAGES = (cut, flip, insert, replace, repeat, remove, number, member, member)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory: thousands of files are written."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture
def bounded() -> Iterator[None]:
    """No more memory than the process has now and `MEMORY`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(parser: Parser, data: bytes, folder: Path) -> None:
    """Read the data: a value, or an error of ours, soon."""
    began = time.process_time()
    with contextlib.suppress(*parser.errors):
        parser.read(data, folder)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("name", PARSERS)
def test_good_data_is_read(name: str, tmp_path: Path) -> None:
    for data in PARSERS[name].good:
        PARSERS[name].read(data, tmp_path)


DIGITS = b"9" * 5000
# Each of these was a traceback once, or hung.
FOUND = (
    ("feed csv by name", b"first\rseen,cidr\n2026,11.22.33.0/24\n"),
    ("feed csv by name", b"\r\n"),
    ("feed csv by number", b'"a\rb,11.22.33.0/24\n'),
    ("prefix", b"203.0.113.0/" + DIGITS),
    ("prefix", b"2001:db8::/" + DIGITS),
    ("address of metrics", b"127.0.0.1:" + DIGITS),
    ("policy file", b"PW_SCAN_PORTS=" + DIGITS),
    ("settings", b"PW_LIST_MEMORY=" + DIGITS),
    ("configuration of sshd", b"Port " + DIGITS),
    ("number of a rollback", b"six\n"),
    ("answer of a server", b"\n" + DIGITS),
    ("source of a program", b"#define PW_FORMAT " + DIGITS),
    ("users", b"packetwatch-agent:x:" + DIGITS + b":1::/:/bin/false\n"),
    ("users", b"packetwatch-agent:x\n"),
    ("change.json", json.dumps(CHANGE | {"deadline": "soon"}).encode()),
    ("change.json", json.dumps(CHANGE | {"interfaces": ["eth0"]}).encode()),
    ("change.json", json.dumps(CHANGE | {"since": 1e300}).encode()),
    ("change.json", b"[" * 100_000),
    ("status.json", json.dumps(NOTE | {"heal": {"recent": ["x"], "success": "y"}}).encode()),
    ("status.json", json.dumps(NOTE | {"heal": []}).encode()),
    ("tables.json", json.dumps([*KNOWN[:2], {"deny": "x"}, *KNOWN[3:]]).encode()),
    ("ages of feeds", b'{"a":{"x":["soon",null]}}'),
    ("time of an argument", b"999999999w" * 100),
    ("control request", b'{"command":"ban","seconds":1' + b"0" * 400 + b"}"),
    ("saved bans", b"{}\n" + b"[" * 100_000 + b"\n"),
    ("journal", b'{"event.action":"ban","packetwatch.ports":7}\n'),
    ("connections in /proc", b"0: x:0016 y:1 01 0\n1: 0100007F:0016 02:D431 01 0\n"),
)


@pytest.mark.parametrize(("name", "data"), FOUND, ids=lambda value: str(value)[:30])
def test_what_was_a_traceback_once(name: str, data: bytes, tmp_path: Path) -> None:
    outcome(PARSERS[name], data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_damaged_data_is_a_value_or_an_error_of_ours(
    name: str, folder: Path, bounded: None
) -> None:
    parser = PARSERS[name]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**64 - 1))
    def check(seed: int) -> None:
        chance = random.Random(seed)
        good = chance.choice(parser.good + parser.near)
        for dummy in range(CHANGES):
            outcome(parser, damage(good, chance), folder)

    check()


LONG: dict[str, Callable[[bytes], bytes]] = {
    "one line": lambda good: good.replace(b"\n", b" ") * (LARGE // len(good) + 1),
    "many lines": lambda good: (good.rstrip(b"\n") + b"\n") * (LARGE // len(good) + 1),
    "nested arrays": lambda good: b"[" * LARGE,
    "nested objects": lambda good: b'{"a":' * (LARGE // 5),
    "digits": lambda good: b"9" * LARGE,
    "blanks": lambda good: good[: len(good) // 2] + b" " * LARGE + good[len(good) // 2 :],
    "an open quote": lambda good: b'"' + b"a,\n" * (LARGE // 3),
    "zeros": lambda good: bytes(LARGE),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_large_data_takes_bounded_time_and_memory(name: str, folder: Path, bounded: None) -> None:
    parser = PARSERS[name]
    for make in LONG.values():
        outcome(parser, make(parser.good[0]), folder)


def test_no_parser_is_missing_in_the_table() -> None:
    named = {
        f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        for parser in PARSERS.values()
        for function in parser.covers
    }
    found = set()
    for folder in (
        *("plugins/module_utils", "roles/packetwatch/files/agent/packetwatch_agent"),
        "roles/packetwatch/files/fleet/packetwatch_fleet",
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for owner, function in _functions(ast.parse(path.read_text())):
                if SCANNED.fullmatch(function):
                    found.add(f"{path.stem}.{owner}{function}")
    missing = found - named - set(INSIDE)
    assert not missing, (
        f"{missing}: add a row to PARSERS, or say in INSIDE why it reads nothing from outside"
    )
    assert set(INSIDE) <= found - named, "INSIDE names what is gone or has a row"


def _functions(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The functions of a module, with the class that has them."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node.name
        elif isinstance(node, ast.ClassDef):
            yield from (
                (f"{node.name}.", each.name)
                for each in node.body
                if isinstance(each, ast.FunctionDef)
            )
