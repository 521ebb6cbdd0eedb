# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cost of a SYN in the kernel: detection and event, and handing an event to user space."""

from __future__ import annotations

from kernel import packets
from kernel.hosting import Site

from bench.lookups import ACK4, PASS, Lookups, Target, ban_some, frame4
from bench.place import processors
from bench.rivals import Detector
from bench.rounds import Case
from bench.runs import Run
from packetwatch_core._active.build import build
from packetwatch_core._active.loaded import Loaded
from packetwatch_core._declared.policy import resolve_policies
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._kernel.ring import RingBuffer

TOTAL, AT_ONCE = 100_000, 5_000
BANS = 10_000
SYN4 = frame4("198.51.100.200", packets.SYN, 9999)


def add_syns(lookups: Lookups, cases: dict[str, Case]) -> None:
    """Add cases for a tracked source's SYNs to a closed port; also without event, and without detection."""
    site = lookups.site(["198.18.0.0/15"])
    with site.wire.host.entered():
        for name, keys in (("pw1", {"action": "off"}), ("pw2", {"log_connections": "none"})):
            site.wire.add(name)
            site.host.attach(name)
            site.policy(name, **keys)
        unlimited(site)
    ban_some(site, BANS)
    ring = site.host.pins.open_run_maps(("events",))["events"]
    cases["SYN, detection and event"] = drained(lookups.ours(site), ring)
    cases["SYN, detection off"] = drained(lookups.ours(site, "pw1"), ring)
    cases["SYN, no event"] = drained(lookups.ours(site, "pw2"), ring)


def add_detector(lookups: Lookups, cases: dict[str, Case]) -> None:
    """Add the same case with bcc's perf buffer, whose reader waits on another processor."""
    rival = Detector(lookups.place.wire(), processors()[1])
    lookups.place.open.callback(rival.close)
    for name, frame in (("perf buffer, SYN", SYN4), ("perf buffer, no event", ACK4)):
        run = Run(rival.program, frame, rival.ifindex, rival.wire.host)
        cases[name] = lambda run=run: run.cost(10_000, 200)  # type: ignore[misc]


def unlimited(site: Site) -> None:
    """Let every SYN make an event: the default limits would suppress nearly all of them."""
    policies = resolve_policies(site.host.store.read_current()[1].policy)
    with Loaded(site.host.pins) as loaded:
        with loaded.generation() as current:
            areas, code = current.areas(), current.header["bytecode"]
        image = build(areas, policies, loaded.ifindexes, code)
        fields = abi.HEADER.unpack(image.first)
        fields |= {"event_interval_ns": 0, "source_interval_ns": 0}
        head = abi.HEADER.pack(**fields)
        image = image._replace(first=head + image.first[len(head) :])
        loaded.replace(image, _never)  # type: ignore[arg-type]


def _never() -> None:
    raise AssertionError("the program must not be loaded anew")


def drained(target: Target, events: Map) -> Case:
    """Return a case: send as many SYNs as fit into the ring, empty it, and repeat."""
    run = Run(target.program, SYN4, target.ifindex, target.home)
    ring = RingBuffer(events)
    if run.verdict() != PASS:
        raise AssertionError("a SYN was dropped")

    def case() -> float:
        costs = []
        for _dummy in range(TOTAL // AT_ONCE):
            costs.append(run.cost(AT_ONCE, 50))
            while ring.read(AT_ONCE):
                ring.release()
        return sum(costs) / len(costs)

    return case
