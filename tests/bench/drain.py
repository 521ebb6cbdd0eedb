# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How fast events are read from the ring: by the agent, by a callback of bcc, by a callback of libbpf.

All read the same records in one process, in changing order, and count them by type. The process runs on
the system's Python, which the agent uses and which alone has bcc. The figure is the CPU time of the
reading thread. Lines go to /dev/null.
"""

from __future__ import annotations

import collections
import ctypes
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from packetwatch_core._kernel import abi

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
RECORDS = 12_800  # of 80 bytes in a ring of 1 MiB
RING = 1 << 20
BATCH = 1024
HOST = "web1.example.net"
SOURCES = {"1,000 sources": 1000, "a source each": RECORDS}

TYPE = abi.EVENT.offset("type")
FLOW = abi.EVENT.reader("time", "sequence", "saddr", "daddr", "sport", "dport")
C_TYPES = {"Q": "u64 {}", "I": "u32 {}", "H": "u16 {}", "B": "u8 {}", "16s": "u8 {}[16]"}
PROGRAM = """
struct event {
    %s
};
BPF_RINGBUF_OUTPUT(events, 256);
int never(void *context) {
    struct event event = {};
    events.ringbuf_output(&event, sizeof(event), 0);
    return 0;
}
"""


def rates(rounds: int) -> dict[str, list[float]]:
    """Return events per second of each round, by "CONSUMER, counted" or "CONSUMER, written, SOURCES"."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "packetwatch_core").symlink_to(ROOT / "plugins/module_utils")
        parts = (folder, str(ROOT / "roles/packetwatch/files/agent"), str(ROOT / "tests"))
        done = subprocess.run(
            [PYTHON, "-s", __file__, str(rounds)],
            env=os.environ | {"PYTHONPATH": ":".join(parts), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            check=True,
        )
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


# In the child process


class Sink:
    """Writes lines to /dev/null in batches."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/null", os.O_WRONLY)
        self.lines: list[str] = []

    def flush(self) -> None:
        os.write(self._fd, ("\n".join(self.lines) + "\n").encode())
        self.lines = []


class Writer:
    """Writes a connection's line as a callback would: one record, with cached addresses."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._texts: dict[bytes, str] = {}
        self._offset = time.time_ns() - time.monotonic_ns()
        self._second = 0
        self._text = ""

    def write(
        self, moment: int, sequence: int, saddr: bytes, daddr: bytes, sport: int, dport: int
    ) -> None:
        second, rest = divmod(moment + self._offset, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self._sink.lines.append(
            f'{{"@timestamp":"{self._text}.{rest // 1000:06d}Z","ecs.version":"8.17.0"'
            ',"event.action":"connection","event.kind":"event","event.category":["network"]'
            f',"event.type":["connection","start"],"event.sequence":{sequence}'
            f',"source.ip":"{self._address(saddr)}","source.port":{sport}'
            f',"destination.ip":"{self._address(daddr)}","destination.port":{dport}'
            f',"network.type":"ipv4","network.transport":"tcp","host.name":"{HOST}"'
            ',"observer.ingress.interface.name":"eth0"}'
        )
        if len(self._sink.lines) >= BATCH:
            self._sink.flush()

    def _address(self, address: bytes) -> str:
        text = self._texts.get(address)
        if text is None:
            if len(self._texts) >= 4096:
                self._texts.clear()
            text = self._texts[address] = socket.inet_ntoa(address[12:])
        return text


class Ring:
    """A ring, its feeder, and its consumers."""

    def __init__(self, ring_map: Any, drain: Callable[[], int], callback: Any = None) -> None:
        from kernel.feeder import Feeder

        self.callback = callback  # keeps it alive: C holds no reference

        self._feeder = Feeder(ring_map, abi.EVENT_SHORT)
        self._drain = drain

    def rate(self, records: list[bytes]) -> float:
        """Return the events drained per second of CPU time."""
        for at in range(0, len(records), 16):
            self._feeder._many.test_run(b"".join(records[at : at + 16]))
        began = time.thread_time_ns()
        count = self._drain()
        spent = time.thread_time_ns() - began
        assert count == len(records), (count, len(records))
        return count / spent * 1e9


def agent(written: bool) -> Ring:
    """Return a ring that the agent's own code reads."""
    from packetwatch_agent.confirmed import Confirmed
    from packetwatch_agent.control.talkers import Talkers
    from packetwatch_agent.episodes import Episodes
    from packetwatch_agent.lines import Lines
    from packetwatch_agent.loop import IDLE
    from packetwatch_agent.output import Output
    from packetwatch_agent.quota import Quota
    from packetwatch_agent.stream import Stream
    from packetwatch_core._kernel.libbpf import RINGBUF, Map
    from packetwatch_core._kernel.ring import RingBuffer

    ring_map = Map.create(RINGBUF, "events", 0, 0, RING)
    lines = Lines(HOST, {1: "eth0"}.__getitem__)
    quota = Quota()
    stream = Stream(
        RingBuffer(ring_map),
        lines,
        Output(os.open("/dev/null", os.O_WRONLY), HOST),
        Episodes(lines, Confirmed("/nowhere"), str, quota),
        Talkers(),
        quota,
        lambda event: event,
        lambda ifindex: written,
    )

    def drain() -> int:
        before = stream.records["connection"]
        while stream.poll() != IDLE:
            pass
        return stream.records["connection"] - before

    return Ring(ring_map, drain)


def libbpf_callback(written: bool) -> Ring:
    """Return a ring read by ring_buffer__consume with a callback in Python."""
    from packetwatch_core._kernel.libbpf import RINGBUF, Map, library

    sink = Sink()
    write = Writer(sink).write
    count = 0
    types = collections.Counter[bytes]()
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

    def counted(context: int, data: int, size: int) -> int:
        nonlocal count
        count += 1
        types[ctypes.string_at(data + TYPE, 1)] += 1
        return 0

    def told(context: int, data: int, size: int) -> int:
        nonlocal count
        count += 1
        write(*FLOW.unpack(ctypes.string_at(data, FLOW.size)))
        return 0

    callback = kind(told if written else counted)
    ring_map = Map.create(RINGBUF, "events", 0, 0, RING)
    libbpf = library()
    libbpf.ring_buffer__new.restype = ctypes.c_void_p
    libbpf.ring_buffer__consume.argtypes = [ctypes.c_void_p]
    manager = libbpf.ring_buffer__new(ring_map.fd, callback, None, None)

    def drain() -> int:
        nonlocal count
        count = 0
        libbpf.ring_buffer__consume(manager)
        if sink.lines:
            sink.flush()
        return count

    return Ring(ring_map, drain, callback)


def bcc_callback(written: bool) -> Ring:
    """Return a ring read by bcc's open_ring_buffer with a callback in Python."""
    from bcc import BPF

    from packetwatch_core._kernel.libbpf import Map

    sink = Sink()
    write = Writer(sink).write
    count = 0
    types = collections.Counter[int]()
    short = [(name, code) for name, code in abi.EVENT.fields if name != "ports"]
    fields = "\n    ".join(f"{C_TYPES[code].format(name)};" for name, code in short)
    program = BPF(text=PROGRAM % fields)
    table = program["events"]

    def counted(context: Any, data: Any, size: int) -> None:
        nonlocal count
        count += 1
        types[table.event(data).type] += 1

    def told(context: Any, data: Any, size: int) -> None:
        nonlocal count
        count += 1
        event = table.event(data)
        write(
            event.time,
            event.sequence,
            bytes(event.saddr),
            bytes(event.daddr),
            event.sport,
            event.dport,
        )

    table.open_ring_buffer(told if written else counted)

    def drain() -> int:
        nonlocal count
        count = 0
        program.ring_buffer_consume()
        if sink.lines:
            sink.flush()
        return count

    return Ring(Map(os.dup(table.map_fd)), drain)


def _records(sources: int) -> list[bytes]:
    order = random.Random(1)
    begin = time.monotonic_ns()
    prefix = bytes(10) + b"\xff\xff"
    own = prefix + bytes((192, 0, 2, 1))
    addresses = [prefix + order.randbytes(4) for dummy in range(sources)]
    return [
        abi.EVENT.pack(
            time=begin + number * 1000,
            sequence=number + 1,
            ifindex=1,
            type=abi.EVENT_CONNECTION,
            family=4,
            saddr=addresses[number % sources],
            daddr=own,
            sport=order.randrange(1024, 65536),
            dport=order.choice((22, 80, 443)),
        )[: abi.EVENT_SHORT]
        for number in range(RECORDS)
    ]


def _rates(rounds: int) -> dict[str, list[float]]:
    consumers = {"agent": agent, "bcc callback": bcc_callback, "libbpf callback": libbpf_callback}
    feeds = {name: _records(count) for name, count in SOURCES.items()}
    cases: dict[str, Callable[[], float]] = {}
    for consumer, make in consumers.items():
        counting, writing = make(False), make(True)
        cases[f"{consumer}, counted"] = partial(counting.rate, feeds["1,000 sources"])
        for name, records in feeds.items():
            cases[f"{consumer}, written, {name}"] = partial(writing.rate, records)
    found: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    order = random.Random(2)
    for number in range(rounds + 1):
        order.shuffle(names)
        for name in names:
            rate = cases[name]()
            if number:  # the first round is a warm-up
                found[name].append(rate)
    return found


if __name__ == "__main__":
    json.dump(_rates(int(sys.argv[1])), sys.stdout)
