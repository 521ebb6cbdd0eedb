# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cost of one packet in the kernel: our lists and bans, xdp-filter, and hashes."""

from __future__ import annotations

import socket
import statistics
import struct
from collections.abc import Sequence
from typing import NamedTuple

from kernel import packets
from kernel.hosting import OWN, Namespace, Site, packet, source_text
from kernel.hosting import UNLISTED as UNLISTED_SOURCE

from bench import addresses
from bench.addresses import IPV4, IPV6_CLUSTERED
from bench.objects import Object
from bench.place import Place
from bench.rivals import XdpFilter
from bench.rounds import Case
from bench.runs import Run, Varied
from packetwatch_core._active.loaded import Loaded
from packetwatch_core._bans.bans import Bans
from packetwatch_core._declared.nexts import Next
from packetwatch_core._dispatcher.builder import build
from packetwatch_core._dispatcher.extension import load_extension
from packetwatch_core._dispatcher.member import Member
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.programs import Program

MILLION = 1_000_000
PREFIXES, ALLOWED, BANS = 10_000, 1_000, 10_000
# First number and count. Lists begin with 1: number 0 is 0.0.0.0, which ipset refuses.
LISTED = (1, MILLION)
UNLISTED = (1 << 31, (1 << 31) - 1)
REPEAT = 200_000
ARRAY_PAGE = 65536
PASS, DROP = 2, 1
# Where our program calls the next one, and a next program.
CALL = (
    "if (pw_unlikely(!header || header->features & PW_F_NEXT))\n"
    "\t\tnexts_call(context, context->ingress_ifindex % PW_NEXT_SLOTS);"
)
CALLED = """#include <uapi/linux/bpf.h>
int next(struct xdp_md *context) { return XDP_PASS; }
"""
# A second program in a dispatcher: mov r0, XDP_PASS; exit
PASSES = bytes.fromhex("b7000000020000009500000000000000")
DISPATCHERS = ("dispatcher: one member", "dispatcher: two members")


SERVED = 443
# What two hosts with Linux send on a connection: two fillers and the timestamps (RFC 7323).
TIMESTAMPS = bytes.fromhex("0101080a") + bytes(8)


def frame4(
    source: str, flags: int = packets.ACK, port: int = SERVED, options: bytes = TIMESTAMPS
) -> bytes:
    """Return a segment to a port of the host; with ACK it looks like one of an established connection."""
    return packets.ethernet(
        packets.IPV4, packets.ipv4(source, OWN, packets.tcp(40000, port, flags, options))
    )


def _strangers4(port: int, options: bytes) -> list[bytes]:
    """Return segments of several sources: whether the lists' filter decides for one depends on the other entries."""
    sources = addresses.hosts4(range(UNLISTED[0], UNLISTED[0] + 32))
    return [frame4(source, port=port, options=options) for source in sources]


ACK4 = frame4("198.51.100.200")
STRANGERS4 = _strangers4(SERVED, TIMESTAMPS)
BARE4 = _strangers4(SERVED, b"")
UNEXPECTED4 = _strangers4(7, b"")
ACK6 = packets.syn6("2001:db8::1", SERVED, "2001:db8::2", packets.ACK)
DENIED4 = frame4(addresses.hosts4([77])[0])


class Target(NamedTuple):
    """A program under test, the interface of its packets, and the generator that varies their sources."""

    program: Program
    ifindex: int
    home: Namespace
    varied: Varied


class Lookups:
    """Collects cases by name; each gives one figure in nanoseconds per packet."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.cases: dict[str, Case] = {}
        self._home = place.wire().host
        self._objects = self._object(True)
        self._varied = Varied(self._objects)

    def _object(self, frags: bool, **sizes: int) -> Object:
        found = Object(self.place.programs, frags, **sizes)
        self.place.open.callback(found.close)
        return found

    # Targets

    def site(self, deny: Sequence[str], allow: Sequence[str] = (), lists: int = 1) -> Site:
        """Return our filter with these lists, each split into several drop-ins."""
        site = self.place.site()
        with site.wire.host.entered():
            for number in range(lists):
                texts = "\n".join(deny[number::lists]), "\n".join(allow[number::lists])
                site.lists(*texts, name=f"list{number}", force=True)
        return site

    def ours(self, site: Site, interface: str = "pw0") -> Target:
        with site.wire.host.entered():
            ifindex = socket.if_nametoindex(interface)
            return Target(site.program(interface), ifindex, site.wire.host, self._varied)

    def bare(self, verdict: int) -> Target:
        """Return the baseline: a program that only returns this verdict."""
        program = self._objects.program("drop" if verdict == DROP else "pass")
        return Target(program, 0, self._home, self._varied)

    def xdp_filter(self) -> Target:
        rival = XdpFilter(self.place.wire())
        return Target(rival.program, rival.ifindex, rival.wire.host, self._varied)

    def hash(self, program: str, name: str, keys: bytes, size: int) -> Target:
        """Return a program that only looks up a hash with these keys."""
        count = len(keys) // size
        objects = self._object(False, **{name: count})
        objects.map(name).update_many(keys, struct.pack("=I", 1) * count)
        return Target(objects.program(program), 0, self._home, Varied(objects))

    def array(self, pages: int) -> Target:
        """Return a program that only reads at random in an array of `ARRAY_PAGE`-byte pages."""
        objects = self._object(False, array=pages)
        varied = Varied(objects, pages=pages)
        return Target(objects.program("read_array"), 0, self._home, varied)

    # Cases

    def same(self, name: str, target: Target, frame: bytes, verdict: int) -> None:
        """Add a case in which all packets come from one source."""
        self.several(name, target, [frame], verdict)

    def several(self, name: str, target: Target, frames: Sequence[bytes], verdict: int) -> None:
        """Add a case in which many packets come from one source, then from the next one."""
        runs = [Run(target.program, frame, target.ifindex, target.home) for frame in frames]
        for run in runs:
            self._check(name, run, verdict)
        repeat = REPEAT // len(runs)
        self.cases[name] = lambda: statistics.fmean(run.cost(repeat) for run in runs)

    def random(
        self, name: str, target: Target, numbers: tuple[int, int], verdict: int, layout: int = IPV4
    ) -> None:
        """Add a case in which each packet comes from another source."""
        frame = ACK4 if layout == IPV4 else ACK6
        prepare = target.varied.prepare(target.program, numbers, layout)
        run = Run(target.varied.program, frame, target.ifindex, target.home)
        prepare()
        self._check(name, run, verdict)

        def case() -> float:
            prepare()
            return run.cost(REPEAT)

        self.cases[name] = case

    def _check(self, name: str, run: Run, verdict: int) -> None:
        found = run.verdict()
        if found != verdict:
            raise AssertionError(f"{name}: verdict {found}, expected {verdict}")


def add_ipv4(lookups: Lookups) -> None:
    """Add cases with the ten thousand hosts of xdp-filter, then with a million and all features."""
    rival = lookups.xdp_filter()
    ten = lookups.ours(lookups.site(addresses.hosts4(range(1, XdpFilter.ENTRIES + 1))))
    lookups.same("bare drop", lookups.bare(DROP), ACK4, DROP)
    lookups.same("bare pass", lookups.bare(PASS), ACK4, PASS)
    lookups.same("denied, 10k list", ten, DENIED4, DROP)
    lookups.same("denied, xdp-filter 10k", rival, DENIED4, DROP)
    lookups.several("established, xdp-filter 10k", rival, STRANGERS4, PASS)

    deny = addresses.hosts4(range(1, MILLION + 1)) + addresses.prefixes4(PREFIXES)
    allow = addresses.hosts4(range(UNLISTED[0] - ALLOWED, UNLISTED[0]))
    site = lookups.site(deny, allow)
    ban_some(site, BANS)
    full = lookups.ours(site)
    lookups.several("established, everything on", full, STRANGERS4, PASS)
    with full.home.entered():
        service = socket.create_server(("", SERVED))
    lookups.place.open.callback(service.close)
    lookups.several("established without options", full, BARE4, PASS)
    lookups.several("ACK to a closed port", full, UNEXPECTED4, PASS)
    sixteen = lookups.ours(lookups.site(deny, allow, lists=16))
    keys = b"".join(addresses.address4(n).to_bytes(4, "big") for n in range(1, MILLION + 1))
    table = lookups.hash("lookup4", "hash4", keys, 4)
    for kind, sources, verdict in (("denied", LISTED, DROP), ("unlisted", UNLISTED, PASS)):
        lookups.random(f"random {kind}", full, sources, verdict)
        lookups.random(f"random {kind}, 16 lists", sixteen, sources, verdict)
        lookups.random(f"random {kind}, floor", lookups.bare(verdict), sources, verdict)
        lookups.random(f"random {kind}, hash", table, sources, verdict)
    array = lookups.array(area_pages(site))
    lookups.random("random array read", array, UNLISTED, PASS)


def add_next(lookups: Lookups) -> None:
    """Add cases with a next program, with none, and with a program that cannot have one.

    Nothing about the packet counts for detection, so it takes the shortest way.
    """
    deny = addresses.hosts4(range(1, XdpFilter.ENTRIES + 1))
    deaf = source_text((CALL, "return XDP_PASS;"))
    for name, source, following in (
        ("next: none", None, None),
        ("next: a program without the call", deaf, None),
        ("next: one that passes", None, Next(source=CALLED)),
    ):
        site = lookups.site(deny)
        with site.wire.host.entered():
            site.host.attach("pw0", source=source, following=following)
        lookups.same(name, lookups.ours(site), packet(UNLISTED_SOURCE), PASS)


def add_dispatcher(lookups: Lookups) -> None:
    """Add cases with the same packet in libxdp's dispatcher: with our program alone, and with a second one after it.

    Raises `Unsupported` if this machine can have no dispatcher.
    """
    site, stack = (
        lookups.site(addresses.hosts4(range(1, XdpFilter.ENTRIES + 1))),
        lookups.place.open,
    )
    with site.wire.host.entered():
        site.host.attach("pw0", "dispatcher")
        ours = lookups.ours(site)
        extension = stack.enter_context(Loaded(site.host.pins)).extension
        if extension is None:
            raise AssertionError("the extension of a member is not loaded")
        second = stack.enter_context(load_extension(PASSES, "passes"))
        members = [
            Member(info.id, info.name, info.tag, info.loaded, 10, 1 << PASS, has_frags=True)
            for info in (extension.info(), second.info())
        ]
        for count, name in enumerate(DISPATCHERS, 1):
            built = build(members[:count])
            stack.callback(built.close)
            target = ours._replace(program=built.program)
            lookups.same(name, target, packet(UNLISTED_SOURCE), PASS)


def add_ipv6(lookups: Lookups, layout: int) -> None:
    """Add cases with a million hosts, uniform or in clusters."""
    name = "IPv6 clustered" if layout == IPV6_CLUSTERED else "IPv6 uniform"
    numbers = range(1, MILLION + 1)
    ours = lookups.ours(lookups.site(addresses.hosts6(numbers, layout)))
    keys = b"".join(addresses.address6(n, layout).to_bytes(16, "big") for n in numbers)
    table = lookups.hash("lookup6", "hash6", keys, 16)
    for kind, sources, verdict in (("denied", LISTED, DROP), ("unlisted", UNLISTED, PASS)):
        lookups.random(f"{name}, {kind}", ours, sources, verdict, layout)
        lookups.random(f"{name}, {kind}, floor", lookups.bare(verdict), sources, verdict, layout)
        lookups.random(f"{name}, {kind}, hash", table, sources, verdict, layout)


def ban_some(site: Site, count: int) -> None:
    """Ban sources manually that no case uses."""
    bans = Bans.open(site.host.pins)
    for number in range(count):
        bans.add(f"172.16.{number >> 8 & 255}.{number & 255}", 86400)


def area_pages(site: Site) -> int:
    """Return the size of the compiled IPv4 lists, in pages of the array of `Lookups.array`."""
    with site.wire.host.entered(), Loaded(site.host.pins) as loaded, loaded.generation() as current:
        pages = current.header["v6_page"] - current.header["v4_page"]
        return int(pages * abi.PAGE // ARRAY_PAGE)
