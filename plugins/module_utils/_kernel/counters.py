# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The program's counters, added up over all CPUs."""

from __future__ import annotations

import os
import typing as t

from . import abi

if t.TYPE_CHECKING:
    from .libbpf import Map
    from .pins import Pins

_MAP = "counters4"
_ZERO = bytes(4)
_WRAP = 1 << 64

Counters = dict[str, t.Any]
"""Fields of ``struct pw_counters`` by name; arrays are tuples."""


def read_counters(counters: Map) -> Counters:
    """The sums of a map of counters."""
    return add_up(counters.lookup(_ZERO) or b"")


def read_pinned(pins: Pins) -> Counters:
    """The sums of the pinned map; zeros while the program of a version with other counters is loaded.

    Raises `Unreadable`.
    """
    if not os.path.lexists(pins.map(_MAP)):
        return add_up(b"")
    with pins.open_run_maps((_MAP,))[_MAP] as found:
        return read_counters(found)


def add_up(raw: bytes) -> Counters:
    """The sums of ``struct pw_counters`` of each CPU, one after the other; zeros if there is none."""
    layout = abi.COUNTERS
    whole = len(raw) // layout.size * layout.size
    columns = zip(*layout.struct.iter_unpack(raw[:whole]))
    # The agent may write any numbers into this map.
    sums = (sum(column) % _WRAP for column in columns)
    raw = layout.struct.pack(*sums) if whole else bytes(layout.size)
    return layout.unpack(raw)


def packets(found: Counters) -> t.Iterator[tuple[str, str, str, int]]:
    """Verdict, reason, family and number of packets, in the order of ``enum pw_reason``."""
    names = (
        (verdict, reason, family) for verdict, reason in abi.REASONS for family in abi.FAMILIES
    )
    for (verdict, reason, family), number in zip(names, found["packets"]):
        yield verdict, reason, family, number


def packets_by_reason(found: Counters) -> dict[str, int]:
    """Packets of all families by "verdict reason", without zeros."""
    sums: dict[str, int] = {}
    for verdict, reason, dummy, number in packets(found):
        if number:
            name = f"{verdict} {reason}"
            sums[name] = sums.get(name, 0) + number
    return sums


def scans(found: Counters) -> dict[str, int]:
    """Thresholds reached by kind of probe; the program counts no slow scans."""
    return dict(zip(abi.KINDS, found["scans"]))


def connections(found: Counters) -> dict[str, int]:
    """New connections by family; each is IPv4 or IPv6."""
    return dict(list(zip(abi.FAMILIES, found["connections"]))[1:])
