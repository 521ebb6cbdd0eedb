# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cost of one packet in the kernel: lists, bans, detection, beside xdp-filter and hashes."""

from __future__ import annotations

import socket
from collections.abc import Callable

from bench import addresses
from bench.addresses import IPV4, IPV6, IPV6_CLUSTERED
from bench.objects import Object
from bench.place import Place
from bench.rivals import XdpFilter, hash_of
from bench.rounds import Case
from bench.runs import Run, Varied
from kernel import packets
from kernel.hosting import OWN, Namespace, Site

from packetwatch_core._bans import Bans
from packetwatch_core._info import BAN_MAPS
from packetwatch_core._libbpf import Map
from packetwatch_core._prog import Program

MILLION = 1_000_000
PREFIXES, ALLOWED, BANS = 10_000, 1_000, 10_000
UNLISTED = (1 << 31, (1 << 31) - 1)  # numbers of which none is on a list
REPEAT = 200_000
PASS, DROP = 2, 1
ACK4 = packets.syn4("198.51.100.200", 443, OWN, packets.ACK)


def frame4(number: int, flags: int = packets.ACK) -> bytes:
    return packets.syn4(addresses.text4(addresses.address4(number)), 443, OWN, flags)


FRAME6 = packets.syn6("2001:db8::1", 443, "2001:db8::2", packets.ACK)


class Lookups:
    """Cases by name; each is one figure in nanoseconds a packet."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.cases: dict[str, Case] = {}
        self._plain = Object(place.programs, False, hash4=MILLION, hash6=MILLION, array=256)
        self._frags = Object(place.programs, True)
        for opened in (self._plain, self._frags):
            place.open.callback(opened.close)
        self._vary = Varied(self._plain)
        self._vary_frags = Varied(self._frags)
        self._home = place.wire().host

    def site(self, deny: list[str], allow: list[str] | None = None, lists: int = 1) -> Site:
        """Our filter with these lists, dealt out to so many names."""
        site = self.place.site()
        with site.wire.host.entered():
            for number in range(lists):
                text = "\n".join(deny[number::lists])
                site.lists(text, "\n".join(allow or ()) if not number else "", name=f"list{number}", force=True)
        return site

    # One source, again and again

    def same(self, name: str, site: Site | None, frame: bytes, expected: int) -> None:
        """A case of our program, or of the bare one with the same verdict."""
        program, ifindex, home = self._under_test(site, expected)
        self._add(name, Run(program, frame, ifindex, home), expected)

    def same_of(self, name: str, rival: XdpFilter, frame: bytes, expected: int) -> None:
        run = Run(rival.program, frame, rival.ifindex, rival.wire.host)
        self._add(name, run, expected)

    # Random sources

    def random(
        self, name: str, site: Site | None, numbers: tuple[int, int], expected: int, layout: int = IPV4
    ) -> None:
        """A case of our program, or of the bare one behind the same generator."""
        program, ifindex, home = self._under_test(site, expected)
        frame = ACK4 if layout == IPV4 else FRAME6
        run, prepare = self._vary_frags.run(program, frame, ifindex, home, numbers, layout=layout)
        self._add(name, run, expected, prepare)

    def random_plain(
        self, name: str, program: str, numbers: tuple[int, int], expected: int, layout: int = IPV4,
        **settings: int,
    ) -> None:
        """A case of one of the bench's own programs."""
        frame = ACK4 if layout == IPV4 else FRAME6
        run, prepare = self._vary.run(
            self._plain.program(program), frame, 0, self._home, numbers, layout=layout, **settings
        )
        self._add(name, run, expected, prepare)

    def map(self, name: str) -> Map:
        return self._plain.map(name)

    def _under_test(self, site: Site | None, expected: int) -> tuple[Program, int, Namespace]:
        if site is None:
            return self._frags.program("drop" if expected == DROP else "pass"), 0, self._home
        with site.wire.host.entered():
            return site.program(), socket.if_nametoindex("pw0"), site.wire.host

    def _add(
        self, name: str, run: Run, expected: int, prepare: Callable[[], None] | None = None
    ) -> None:
        if prepare:
            prepare()
        verdict = run.verdict()
        if verdict != expected:
            raise AssertionError(f"{name}: verdict {verdict}, expected {expected}")

        def case() -> float:
            if prepare:
                prepare()
            return run.cost(REPEAT)

        self.cases[name] = case


def ban_some(site: Site, count: int) -> None:
    """Ban sources by hand that nobody else uses."""
    bans = Bans(site.host.pins.open_run_maps(BAN_MAPS))
    for number in range(count):
        bans.add(f"172.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 86400)


def fill4(lookups: Lookups) -> None:
    """IPv4: xdp-filter's ten thousand, then a million."""
    ten = lookups.site(addresses.hosts4(range(XdpFilter.ENTRIES)))
    rival = XdpFilter(lookups.place.wire())
    lookups.same("bare drop", None, ACK4, DROP)
    lookups.same("bare pass", None, ACK4, PASS)
    lookups.same("denied, 10k list", ten, frame4(77), DROP)
    lookups.same_of("denied, xdp-filter 10k", rival, frame4(77), DROP)
    lookups.same_of("established, xdp-filter 10k", rival, ACK4, PASS)

    hosts = addresses.hosts4(range(MILLION))
    deny = hosts + addresses.prefixes4(PREFIXES)
    allow = addresses.hosts4(range(UNLISTED[0] - ALLOWED, UNLISTED[0]))
    full = lookups.site(deny, allow)
    sixteen = lookups.site(deny, allow, lists=16)
    with full.wire.host.entered():
        ban_some(full, BANS)
    lookups.same("established, everything on", full, ACK4, PASS)
    denied = (0, MILLION)
    for name, site in (("", full), (", 16 lists", sixteen)):
        lookups.random(f"random denied{name}", site, denied, DROP)
        lookups.random(f"random unlisted{name}", site, UNLISTED, PASS)
    lookups.random("floor of random denied", None, denied, DROP)
    lookups.random("floor of random unlisted", None, UNLISTED, PASS)

    numbers = range(MILLION)
    keys = b"".join(addresses.address4(number).to_bytes(4, "big") for number in numbers)
    hash_of(lookups.map("hash4"), keys, 4)
    pages = len(full.host.info({"lists"})) and 140
    lookups.random_plain("hash, random denied", "lookup4", denied, DROP)
    lookups.random_plain("hash, random unlisted", "lookup4", UNLISTED, PASS)
    lookups.random_plain("array, one random read", "read_array", UNLISTED, PASS, pages=pages)
