# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure, print the table, write bench.json and bench.svg; 1 if a ratio misses its goal."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import addresses, drain, events, loading, lookups, wire
from bench.figures import compare
from bench.place import Place, end_in_order, isolated, pinned, processors
from bench.plot import svg
from bench.report import document, table
from bench.rounds import Case, interleaved
from bench.rows import ROWS
from packetwatch_core._base.errors import Unsupported

Raw = dict[str, list[float]]
GRACE = 150


def packet_costs(place: Place, rounds: int) -> Raw:
    """Measure lists and SYNs, by test runs."""
    found = lookups.Lookups(place)
    lookups.add_ipv4(found)
    lookups.add_ipv6(found, addresses.IPV6)
    lookups.add_ipv6(found, addresses.IPV6_CLUSTERED)
    lookups.add_next(found)
    try:
        lookups.add_dispatcher(found)
    except Unsupported as error:
        place.impossible |= dict.fromkeys(lookups.DISPATCHERS, str(error))
    cases = found.cases
    events.add_syns(found, cases)
    events.add_detector(found, cases)
    return measured(cases, rounds, "cost of a packet")


def wires(place: Place, rounds: int) -> Raw:
    """Measure floods over veth."""
    found = wire.Wires(place)
    wire.drops(found)
    raw = measured(found.drops, rounds, "drops over veth")
    pairs = zip(raw["drops, nft set 100k"], raw["drops, ipset 100k"])
    raw["drops, best of nft and ipset"] = [max(pair) for pair in pairs]
    wire.syns(found)
    return raw | measured(found.syns, rounds, "SYNs over veth")


def lists(place: Place, rounds: int) -> Raw:
    """Measure loading and memory."""
    found = loading.Loading(place)
    loading.add_loading(found)
    loading.add_small(found)
    raw = measured(found.seconds, rounds, "loading lists")
    return raw | measured(found.memory, rounds, "kernel memory")


def readers(_place: Place, rounds: int) -> Raw:
    """Measure how the agent reads the ring, beside callbacks; this needs no place."""
    return drain.rates(rounds)


GROUPS: dict[str, tuple[Callable[[Place, int], Raw], int]] = {
    "packets": (packet_costs, 21),
    "wires": (wires, 11),
    "lists": (lists, 5),
    "readers": (readers, 15),
}


def measured(cases: dict[str, Case], rounds: int, what: str) -> Raw:
    """Return the figures of all cases, measured on one processor."""
    with pinned(processors()[0]):
        return interleaved(cases, rounds, what)


def about(place: Place) -> dict[str, Any]:
    """Return a description of the machine and the software that were measured."""
    site = place.site()
    with site.wire.host.entered(), site.program() as program:
        info = program.info()
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": models[0] if models else "unknown",
        "processors": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "verifier_instructions": info.verified,
        "program_bytes": info.code,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", default=Path("build"))
    parser.add_argument("--only", choices=GROUPS, action="append", help="measure only this part")
    parser.add_argument("--rounds", type=int, help="rounds of each part")
    options = parser.parse_args()
    if os.geteuid():
        print("bench: loads programs and makes namespaces: run it as root", file=sys.stderr)
        return 2
    started = time.monotonic()
    raw: Raw = {}
    with isolated() as place:
        facts = about(place)
        settle()
        for name in options.only or GROUPS:
            measure, rounds = GROUPS[name]
            raw |= measure(place, options.rounds or rounds)
    outcomes = [compare(row, raw) for row in ROWS if row.cases() <= raw.keys()]
    impossible = {
        row.name: reason
        for row in ROWS
        for case, reason in place.impossible.items()
        if case in row.cases()
    }
    facts["seconds"] = round(time.monotonic() - started)
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()))
    print(table(outcomes, impossible))
    options.output.mkdir(parents=True, exist_ok=True)
    about_all = facts | {"not_measured": impossible}
    (options.output / "bench.json").write_text(document(outcomes, raw, about_all))
    title = f"Ratio to reference, as a part of its goal (Linux {facts['kernel']})"
    (options.output / "bench.svg").write_text(svg(outcomes, title))
    missed = [outcome.row.name for outcome in outcomes if not outcome.reached]
    for name in missed:
        print(f"missed: {name}")
    return 1 if missed else 0


def settle() -> None:
    """Wait until the machine has been up for so long that closed ports count."""
    time.sleep(max(0.0, GRACE - time.monotonic()))


if __name__ == "__main__":
    end_in_order()
    sys.exit(main())
