# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Tables and policies → the image of a generation."""

from __future__ import annotations

import typing as t

from .._declared.kinds import nanoseconds
from .._declared.policy import DEFAULT, Policy
from .._kernel import abi
from .._kernel.pins import RING_CAPACITY
from .generation import Areas, Image, Records, assemble

_SECOND = 1_000_000_000
# For all sources together 10,000 events/s with bursts of 20,000; for each source 100/s, bursts of 200.
_EVENT_RATE = {"event_interval_ns": _SECOND // 10_000, "event_burst_ns": 2 * _SECOND}
_SOURCE_RATE = {"source_interval_ns": _SECOND // 100, "source_burst_ns": 2 * _SECOND}


def build(
    areas: Areas,
    policies: t.Mapping[str, Policy],
    ifindexes: t.Mapping[str, int],
    code: bytes,
    *,
    has_nexts: bool = False,
) -> Image:
    """Build an image for the program whose bytecode has the digest `code`.

    policies: complete, by interface and `DEFAULT`. ifindexes: those of the filtered interfaces. has_nexts:
    whether any interface has a next program.
    """
    header = {
        "magic": abi.MAGIC,
        "abi": abi.ABI,
        "format": abi.FORMAT,
        "pages": 1 + areas.v4.pages + areas.v6.pages,
        "features": _features(areas, policies) | (abi.F_NEXT if has_nexts else 0),
        "v4_shift": areas.v4_shift,
        "v4_page": 1,
        "v6_page": 1 + areas.v4.pages,
        "v6_buckets": areas.v6_hosts.homes,
        "v6_hosts": areas.v6_hosts.line,
        "published": _published(policies[DEFAULT]),
        **ban_rate(policies.values()),
        **_EVENT_RATE,
        **_SOURCE_RATE,
        "lists": areas.lists,
        "bytecode": code,
        "next_expiry": areas.next_expiry,
        "valid_from": areas.valid_from,
    }
    return assemble(header, records(policies), ifindexes, areas.v4, areas.v6)


def records(policies: t.Mapping[str, Policy]) -> Records:
    """All policies as the program reads them, without the indexes of their interfaces."""
    packed = {
        name: abi.POLICY.pack(ifindex=0, **policy.record()) for name, policy in policies.items()
    }
    return Records(packed.pop(DEFAULT), packed)


def _features(areas: Areas, policies: t.Mapping[str, Policy]) -> int:
    features = abi.F_LISTS4 if areas.v4.pages else 0
    features |= abi.F_LISTS6 if areas.v6.pages else 0
    if any(policy.ban_scope == "all" for policy in policies.values()):
        features |= abi.F_SCOPE_ALL
    if all(policy.action == "enforce" for policy in policies.values()):
        features |= abi.F_ENFORCED
    if any(policy.counts("ack") for policy in policies.values()):
        features |= abi.F_ACK
    if any(policy.counts("udp", "sctp", "proto") for policy in policies.values()):
        features |= abi.F_PROTOCOLS
    return features


def ban_rate(policies: t.Iterable[Policy]) -> dict[str, int]:
    """Limits of new bans: a quarter of the ring at once, three quarters in a ban_time.

    Together that is at most the whole ring.
    """
    longest = nanoseconds(max(policy.ban_time for policy in policies))
    ring = RING_CAPACITY - 1
    interval = longest * 4 // (3 * ring) + 1
    return {
        "ban_interval_ns": interval,
        "ban_burst_ns": interval * (ring // 4),
        "ring_capacity": RING_CAPACITY,
    }


def _published(policy: Policy) -> list[int]:
    words = [0] * 1024 * len(abi.PORT_PROTOCOLS)
    for protocol, first, last in policy.published_ports:
        place = 1024 * abi.PORT_PROTOCOLS.index(protocol)
        for port in range(first, last + 1):
            words[place + (port >> 6)] |= 1 << (port & 63)
    return words
