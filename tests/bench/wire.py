# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packets over a veth pair, from end to end: packets per second of one processor.

The packets are live frames of a BPF_PROG_TEST_RUN, redirected into the pair. So they meet native XDP like
a driver's packets; from a packet socket they would come as finished skbs, without XDP's advantage.
Generator and receiver share one processor; its time is measured, in this thread and in its
ksoftirqd.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from kernel import packets
from kernel.hosting import HOST_MAC, OWN, PEER_MAC, Site, Wire

from bench import addresses
from bench.objects import Object, Settings
from bench.place import Place, processors
from bench.rivals import Detector, Recipe, XdpFilter, ipset_denies, nft_denies
from bench.rounds import Case
from packetwatch_core._kernel.libbpf import call
from packetwatch_core._kernel.programs import XDP_NATIVE, Link, XdpContext, _TestRunOpts
from packetwatch_core._kernel.ring import RingBuffer

_LIVE_FRAMES = 1 << 1
_BATCH = 64
PORT = 9999
# So many SYNs that the burst of log lines does not matter.
DROPS, SYNS = 200_000, 400_000
TEN, HUNDRED = (1, 10_000), (1, 100_000)  # number 0 is 0.0.0.0, which ipset refuses
# A million sources in 100.0.0.0/8, most of them new; the stack takes none of them for a martian.
UNLISTED = {"first": 1 << 31, "count": 1 << 30, "keep": 0x00FFFFFF, "set": 100 << 24}


def _sum(data: bytes) -> int:
    return sum(struct.unpack(f"={len(data) // 2}H", data))


def template() -> tuple[bytes, int, int]:
    """Return a SYN frame without a source, and the checksums of its IP and TCP headers."""
    segment = packets.tcp(40000, PORT)
    datagram = packets.ipv4("0.0.0.0", OWN, segment)
    frame = packets.ethernet(packets.IPV4, datagram, target=HOST_MAC, source=PEER_MAC)
    header = datagram[:10] + bytes(2) + datagram[12:20]
    pseudo = bytes(4) + socket.inet_aton(OWN) + struct.pack("!HH", packets.TCP, len(segment))
    return frame, _sum(header), _sum(pseudo + segment)


class Receiver:
    """One end of a pair, and the generator at the other."""

    def __init__(self, wire: Wire, programs: Object, passes: bool) -> None:
        self.wire = wire
        self._passes = passes
        self._program = programs.program("send")
        self._settings = Settings(programs.map("settings"), addresses.TOPS)
        self._frame, self._ip_sum, self._tcp_sum = template()
        with wire.peer.entered():
            self._peer = socket.if_nametoindex("peer-pw0")
        self._context = XdpContext(data_end=len(self._frame))
        opts = _TestRunOpts(sz=ctypes.sizeof(_TestRunOpts), flags=_LIVE_FRAMES, batch_size=_BATCH)
        opts.data_in, opts.data_size_in = self._frame, len(self._frame)
        opts.ctx_in = ctypes.addressof(self._context)
        opts.ctx_size_in = ctypes.sizeof(self._context)
        self._opts = opts

    def rate(self, packets_: int, **sources: int) -> float:
        """Return packets per second of processor time; all must have had the expected verdict."""
        self._settings.set(
            ifindex=self._peer, ip_sum=self._ip_sum, tcp_sum=self._tcp_sum, **sources
        )
        self._send(packets_ // 20)
        before = self._segments()
        seconds = self._send(packets_)
        arrived = self._segments() - before
        expected = packets_ if self._passes else 0
        if abs(arrived - expected) > packets_ // 50:
            raise AssertionError(
                f"{arrived} of {packets_} packets reached TCP, expected {expected}"
            )
        return packets_ / seconds

    def _send(self, count: int) -> float:
        """Return the processor seconds for sending and receiving `count` packets."""
        self._opts.repeat = count
        self._opts.data_size_out = self._opts.ctx_size_out = 0
        with self.wire.peer.entered():
            before = _settled()
            call("bpf_prog_test_run_opts", self._program.fd, ctypes.byref(self._opts), what="send")
            return (_settled() - before) / 1e9

    def _segments(self) -> int:
        """Return the number of TCP segments that have reached the stack."""
        with self.wire.host.entered():
            lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(values[names.index("InSegs")])


def _settled() -> int:
    """Return the processor time of this thread and its ksoftirqd, once that is idle."""
    path = f"/proc/{_softirq_thread()}/schedstat"
    former = -1
    while True:
        used = int(Path(path).read_text().split()[0])
        if used == former:
            return used + time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID)
        former = used
        time.sleep(0.001)


_threads: dict[int, int] = {}


def _softirq_thread() -> int:
    cpu = processors()[0]
    if cpu not in _threads:
        for path in Path("/proc").glob("[0-9]*/comm"):
            if path.read_text() == f"ksoftirqd/{cpu}\n":
                _threads[cpu] = int(path.parent.name)
    return _threads[cpu]


class Wires:
    """Collects cases by name; each gives one figure in packets per second."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.drops: dict[str, Case] = {}
        self.syns: dict[str, Case] = {}
        self.programs = Object(place.programs, True)
        place.open.callback(self.programs.close)

    def drop(self, name: str, wire: Wire, numbers: tuple[int, int]) -> None:
        receiver = Receiver(wire, self.programs, False)
        first, count = numbers
        self.drops[name] = lambda: receiver.rate(DROPS, first=first, count=count)

    def syn(self, name: str, wire: Wire, prepare: Callable[[], None] | None = None) -> None:
        receiver = Receiver(wire, self.programs, True)

        def case() -> float:
            if prepare:
                prepare()
            return receiver.rate(SYNS, **UNLISTED)

        self.syns[name] = case

    def bare(self, program: str) -> Wire:
        """Return a wire whose host has one of the bench's own programs."""
        wire = self.place.wire()
        with wire.host.entered():
            ifindex = socket.if_nametoindex("pw0")
            link = Link.create(self.programs.program(program), ifindex, XDP_NATIVE)
        self.place.open.callback(link.close)
        return wire

    def ours(self, numbers: tuple[int, int]) -> Site:
        site = self.place.site()
        first, count = numbers
        with site.wire.host.entered():
            site.lists("\n".join(addresses.hosts4(range(first, first + count))), force=True)
        return site


def drops(wires: Wires) -> None:
    """Add cases with random denied sources."""
    place = wires.place
    hosts = addresses.hosts4(range(1, HUNDRED[1] + 1))
    bare = wires.bare("drop")
    wires.drop("XDP drop-all", bare, TEN)
    wires.drop("XDP drop-all, 100k sources", bare, HUNDRED)
    wires.drop("drops, 10k list", wires.ours(TEN).wire, TEN)
    wires.drop("drops, xdp-filter 10k", XdpFilter(place.wire()).wire, TEN)
    wires.drop("drops, 100k list", wires.ours(HUNDRED).wire, HUNDRED)
    by_nft, by_ipset = place.wire(), place.wire()
    nft_denies(by_nft, hosts)
    ipset_denies(by_ipset, hosts)
    wires.drop("drops, nft set 100k", by_nft, HUNDRED)
    wires.drop("drops, ipset 100k", by_ipset, HUNDRED)


def syns(wires: Wires) -> None:
    """Add cases with SYNs from new sources to a closed port, which the kernel answers."""
    place = wires.place
    wires.syn("SYNs, XDP pass-all", wires.bare("pass"))
    ours = wires.ours(TEN)
    place.open.callback(_reader(ours, processors()[1]))
    wires.syn("SYNs, detection on", ours.wire)
    detector = Detector(place.wire(), processors()[1])
    place.open.callback(detector.close)
    wires.syn("SYNs, bcc perf buffer", detector.wire)
    recipe = Recipe(place.wire())
    wires.syn("SYNs, nftables recipe", recipe.wire, recipe.forget)


def _reader(site: Site, cpu: int) -> Callable[[], None]:
    """Read events like the agent, every 5 ms, on another processor; return what stops it."""
    events = site.host.pins.open_run_maps(("events",))["events"]
    child = os.fork()
    if not child:
        try:
            os.sched_setaffinity(0, {cpu})
            ring = RingBuffer(events)
            while os.getppid() != 1:
                while ring.read(4096):
                    ring.release()
                time.sleep(0.005)
        finally:
            os._exit(1)  # skip the parent's cleanup

    def end() -> None:
        os.kill(child, 9)
        os.waitpid(child, 0)

    return end
