# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure how fast bans travel in a fleet, print the table, write bench-fleet.json; 1 if a goal is missed."""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fleet.host_process import until

from bench.fleet_crowd import listing, watching
from bench.fleet_enforcer import Cost, Load, sweeps, thousand
from bench.fleet_hosts import PAUSE, VERSION, Fleet, KernelHost, address
from bench.fleet_rows import (
    CPU,
    DECIDING,
    FLOOD,
    FRESH,
    FULL,
    LISTING,
    MEMORY,
    SCAN,
    SMALL,
    SWEEP,
    WATCHING,
    Measured,
    Sizes,
    document,
    is_reached,
    rows,
    table,
)
from bench.place import end_in_order, private_mounts
from packetwatch_agent.loop import MAX_PAUSE
from packetwatch_fleet.pages import MAX_ROWS

_PATIENCE = 30.0
_GOLDEN = (math.sqrt(5) - 1) / 2
# Forged sources a second: what the limit of each host lets through.
_FLOOD = 200


def scans(fleet: Fleet, number: int) -> list[float]:
    """Let each host with a kernel be scanned in turn; return the milliseconds until each other one bans the source."""
    found = []
    with fleet.decided():
        # The first one waits for the streams to begin.
        for at in range(-1, number):
            source = address("203.0", 256 * 113 + at + 1)
            scanned = fleet.real[at % len(fleet.real)]
            others = [host for host in fleet.real if host is not scanned]
            began = time.monotonic()
            scanned.scan(source)
            delays = _delays(others, source, began)
            if at >= 0:
                found += delays
            # Agents poll the ring: let scans begin at all times between two polls.
            time.sleep(PAUSE + MAX_PAUSE * (_GOLDEN * at % 1))
    return found


def _delays(hosts: Sequence[KernelHost], source: str, began: float) -> list[float]:
    left, found = list(hosts), []
    while left:
        assert time.monotonic() < began + _PATIENCE, f"{source} is not banned"
        for host in list(left):
            if host.has(source):
                found.append((time.monotonic() - began) * 1000)
                left.remove(host)
        time.sleep(0.001)
    return found


def fresh(fleet: Fleet, bans: int) -> list[float]:
    """Start the process of each host with a kernel; return the seconds until its kernel has all bans."""
    found = []
    for host in fleet.real:
        assert host.count() == 0
        began = time.monotonic()
        host.process.start()
        _wait_for(host, bans)
        found.append(time.monotonic() - began)
        host.process.kill()
    return found


def _wait_for(host: KernelHost, bans: int) -> None:
    until(lambda: host.count() == bans, _PATIENCE, pause=0.03)


def listings(fleet: Fleet, sizes: Sizes) -> list[float]:
    """Return the seconds of each time that simulated hosts list everything."""
    pages = math.ceil(sizes.bans / MAX_ROWS)
    return [listing(fleet, sizes.listing, pages) for dummy in range(sizes.listings)]


def measure(fleet: Fleet, sizes: Sizes) -> dict[str, Measured]:
    """Return the figures of all measurements."""
    found = {SCAN: _busy(SCAN, lambda: scans(fleet, sizes.scans))}
    until(lambda: not any(host.count() for host in fleet.real), _PATIENCE)
    fleet.stop()
    fleet.declare(sizes.bans)
    found[FRESH] = _busy(FRESH, lambda: fresh(fleet, sizes.bans))
    found[LISTING] = _busy(LISTING, lambda: listings(fleet, sizes))
    fleet.clear()
    found[WATCHING] = _busy(WATCHING, lambda: watching(fleet, sizes.watchers, sizes.seconds))
    return found


def enforcers(folder: Path, sizes: Sizes) -> dict[str, Measured]:
    """Return the figures of enforcers, each measurement with a fleet of its own."""
    found = {}
    with contextlib.ExitStack() as open_:
        fleet = Fleet(folder, open_, sizes.kernels, sizes.kernels)
        found[SWEEP] = _busy(SWEEP, lambda: sweeps(fleet, sizes.sweeps))
    for case, flood in ((DECIDING, 0), (FLOOD, _FLOOD)):
        costs: list[Cost] = []
        load = Load(sizes.reporters, sizes.reporting, flood)
        measured = _busy(case, functools.partial(_decide, folder, load, costs))
        found[case] = measured
        found[f"{case}: {CPU}"] = measured._replace(figures=[100 * costs[0].cpu])
        found[f"{case}: {MEMORY}"] = measured._replace(figures=[costs[0].memory])
    return found


def _decide(folder: Path, load: Load, costs: list[Cost]) -> list[float]:
    """Return the seconds of each decision. A scan that was missed took longer than any goal."""
    costs.append(thousand(folder, load))
    return costs[0].delays + [_PATIENCE] * costs[0].missed


def _busy(what: str, act: Callable[[], list[float]]) -> Measured:
    """Return the figures, with how busy the processors were."""
    began, idle, total = time.monotonic(), *_processor_time()
    figures = act()
    later_idle, later_total = _processor_time()
    print(f"{what}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return Measured(figures, 1 - (later_idle - idle) / max(1, later_total - total))


def _processor_time() -> tuple[int, int]:
    """Ticks in which processors were idle or waited for disks, and all ticks."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    ticks = [int(word) for word in first.split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.fleet", description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", default=Path("build"))
    parser.add_argument("--small", action="store_true", help="show only that it works")
    options = parser.parse_args()
    if os.geteuid():
        print("bench.fleet: loads programs and makes namespaces: run it as root", file=sys.stderr)
        return 2
    sizes = SMALL if options.small else FULL
    started = time.monotonic()
    about: dict[str, Any] = {
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "etcd": VERSION,
        **sizes._asdict(),
    }
    private_mounts()
    with (
        tempfile.TemporaryDirectory(prefix="pwbench-") as name,
        contextlib.ExitStack() as open_,
    ):
        Path(name).chmod(0o755)
        folders = [Path(name) / one for one in ("fleet", "enforcers")]
        for folder in folders:
            folder.mkdir()
        measured = measure(Fleet(folders[0], open_, sizes.hosts), sizes)
        open_.close()
        measured |= enforcers(folders[1], sizes)
    about["seconds"] = round(time.monotonic() - started)
    found = rows(sizes)
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items()))
    print(table(found, measured))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "bench-fleet.json").write_text(document(found, measured, about))
    missed = [row.name for row in found if not is_reached(row, measured[row.case])]
    for name in missed:
        print(f"missed: {name}")
    return 1 if missed else 0


if __name__ == "__main__":
    end_in_order()
    sys.exit(main())
