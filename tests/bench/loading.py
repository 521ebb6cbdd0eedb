# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A million addresses from a text file until they are active, and the kernel memory that they need.

Times are processor seconds of the process that does the work, from its start to its end.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kernel.hosting import CLEAN, Site, Wire, install_library

from bench import addresses
from bench.addresses import IPV6
from bench.place import Place
from bench.rivals import command, ipset_text, nft_text
from bench.rounds import Case
from packetwatch_core._active.build import build
from packetwatch_core._active.generation import Areas, activate, capacity_for, make_slot
from packetwatch_core._declared.bulk import read_prefixes
from packetwatch_core._declared.policy import resolve_policies
from packetwatch_core._kernel.bytecode import PYTHON
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._tables.tables import compile_tables

MILLION = 1_000_000
MIB = 1 << 20


def cpu_seconds(argv: Sequence[str], stdin: Path | None = None) -> float:
    """Return user plus system time of a command, which must succeed."""
    with open(stdin or os.devnull, "rb") as source:
        process = subprocess.Popen(argv, stdin=source, stdout=subprocess.DEVNULL, env=CLEAN)
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise OSError(f"{' '.join(argv)} failed")
    return usage.ru_utime + usage.ru_stime


class Ours:
    """A host that gets one list after another, each different from the one before."""

    def __init__(self, place: Place) -> None:
        self._site: Site = place.site()
        self._folder = place.folder / "library"
        if not self._folder.exists():
            install_library(self._folder)

    def case(self, what: str, *texts: Path) -> Case:
        """Return a case: seconds for an action of `apply.py` with the next of these lists."""
        turns = itertools.cycle(texts)
        script = str(Path(__file__).with_name("apply.py"))

        def case() -> float:
            text = str(next(turns))
            argv = [PYTHON, script, str(self._folder), what, text, *self._site.paths]
            with self._site.wire.host.entered():
                return cpu_seconds(argv)

        return case


class Loading:
    """Collects cases by name; their figures are seconds, or MiB for memory."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.seconds: dict[str, Case] = {}
        self.memory: dict[str, Case] = {}
        self.wire: Wire = place.wire()

    def file(self, name: str, text: str) -> Path:
        path = self.place.folder / name
        path.write_text(text, encoding="ascii")
        return path

    def lists(self, name: str, lines: Sequence[Sequence[str]]) -> list[Path]:
        return [
            self.file(f"{name}{number}", "".join(f"{line}\n" for line in each))
            for number, each in enumerate(lines)
        ]

    def rival(self, argv: Sequence[str], text: Path, undo: Sequence[Sequence[str]]) -> Case:
        """Return a case: seconds that a tool needs for its file; its work is undone afterwards."""

        def case() -> float:
            with self.wire.host.entered():
                seconds = cpu_seconds(argv, text)
                for each in undo:
                    command(*each)
            return seconds

        return case


def add_loading(loading: Loading) -> None:
    """Add cases with IPv4 in random order and sorted, with IPv6, and with half of each."""
    one, two = (addresses.hosts4(range(first, first + MILLION)) for first in (1, 1 + MILLION))
    ordered = [
        [addresses.text4(n) for n in sorted(map(addresses.address4, range(f, f + MILLION)))]
        for f in (1, 1 + MILLION)
    ]
    six = [addresses.hosts6(range(f, f + MILLION), IPV6) for f in (1, 1 + MILLION)]
    half = MILLION // 2
    mixed = [_shuffled(four[:half] + other[:half]) for four, other in zip((one, two), six)]
    kinds = {
        "IPv4": [one, two],
        "IPv4, sorted": ordered,
        "IPv6": six,
        "half IPv4, half IPv6": mixed,
    }
    for name, lines in kinds.items():
        ours = Ours(loading.place)
        texts = loading.lists(name.replace(" ", ""), lines)
        loading.seconds[f"load {name}"] = ours.case("change", *texts)

    add_unchanged(loading, texts[0])
    four = loading.file("ipset4", ipset_text("bench4", one))
    six_ = loading.file("ipset6", ipset_text("bench6", six[0], "inet6"))
    both = ipset_text("bench4", one[:half]) + ipset_text("bench6", six[0][:half], "inet6")
    restore, destroy = ("ipset", "restore"), [("ipset", "destroy")]
    loading.seconds["load IPv4, ipset"] = loading.rival(restore, four, destroy)
    loading.seconds["load IPv6, ipset"] = loading.rival(restore, six_, destroy)
    loading.seconds["load half IPv4, half IPv6, ipset"] = loading.rival(
        restore, loading.file("ipset46", both), destroy
    )
    nft = loading.file("nft4", nft_text("load", one))
    undo = [("nft", "delete", "table", "netdev", "load")]
    loading.seconds["load IPv4, nft"] = loading.rival(("nft", "-f", "-"), nft, undo)
    image_case(loading, one)
    loading.memory["kernel memory, ipset 1M"] = lambda: loading_memory(loading.wire, four)


def add_unchanged(loading: Loading, text: Path) -> None:
    """Add cases for a host on which this list is already active."""
    ours = Ours(loading.place)
    ours.case("change", text)()
    loading.seconds["nothing to load"] = ours.case("keep", text)
    loading.seconds["tell everything"] = ours.case("tell", text)


def image_case(loading: Loading, hosts: list[str]) -> None:
    """Add a case for the kernel's part: write the pages, freeze the map, replace the pointer."""
    prefixes = read_prefixes("\n".join(hosts), "bench", 0, True, "deny")
    nothing = read_prefixes("", "bench", 0, True, "allow")
    areas = Areas.of(compile_tables(nothing, prefixes), bytes(32), 0, 0)
    image = build(areas, resolve_policies({}), {}, bytes(32))
    capacity = capacity_for(image.pages)
    slot = make_slot(capacity)
    loading.place.open.callback(slot.close)

    def seconds() -> float:
        started = time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID)
        activate(slot, image, capacity)
        return (time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID) - started) / 1e9

    def memory() -> float:
        def fill() -> Callable[[], None]:
            fresh = make_slot(capacity)
            activate(fresh, image, capacity)
            return fresh.close

        return _grown(fill)

    loading.seconds["load IPv4, kernel part"] = seconds
    loading.memory["kernel memory, 1M"] = memory


def add_small(loading: Loading) -> None:
    """Add a case for the memory of ten entries, from the kernel's account of the generation's map."""
    site = loading.place.site()
    with site.wire.host.entered():
        site.lists("\n".join(addresses.hosts4(range(1, 9))) + "\n2001:db8::/32\n2001:db8:1::1\n")
        number = site.generation_id()

    def memory() -> float:
        with Map.by_id(number) as found:
            return _locked(found) / MIB

    loading.memory["kernel memory, ten entries"] = memory


def loading_memory(wire: Wire, text: Path) -> float:
    """Return the MiB that an ipset needs."""

    def fill() -> Callable[[], None]:
        with wire.host.entered():
            cpu_seconds(("ipset", "restore"), text)
        return lambda: _in(wire, "ipset", "destroy")

    return _grown(fill)


def _in(wire: Wire, *argv: str) -> None:
    with wire.host.entered():
        command(*argv)


def _grown(fill: Callable[[], Callable[[], None]]) -> float:
    """Return the MiB by which the kernel's memory grows; undo it."""
    before = _kernel_bytes()
    undo = fill()
    grown = _kernel_bytes() - before
    undo()
    return grown / MIB


def _kernel_bytes() -> int:
    """Return slab, vmalloc and per-CPU memory, once it does not change any more."""
    time.sleep(0.3)
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    return 1024 * sum(fields[name] for name in ("SUnreclaim", "VmallocUsed", "Percpu"))


def _locked(found: Map) -> int:
    lines = Path(f"/proc/self/fdinfo/{found.fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("memlock:"))


def _shuffled(lines: list[str]) -> list[str]:
    random.Random(46).shuffle(lines)
    return lines
