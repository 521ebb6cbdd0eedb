# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Addresses that a change of the lists would newly deny, among those that this host knows.

The host knows the peers of its TCP connections, its protected addresses, and the sources of recent
connections. The program keeps a time for each such source in the map ``rates``, to limit events; the key
of an IPv6 source is its /64. Root reads that map without the agent.
"""

from __future__ import annotations

import struct
import time
import typing as t

from .._active.protected import denied_protected, is_denied
from .._base.address import Prefix, format_prefix, from_mapped, parse_prefix
from .._base.errors import PacketwatchError, some_of
from .._network import peers
from .._tables.tables import Tables

if t.TYPE_CHECKING:
    from .._active.generation import Areas
    from .._kernel.pins import Pins
    from .._network.protect import Protection

MINUTES = 10

_MAX_SHOWN = 20
# Names for sentences. An address of several kinds counts as the first of them.
_KINDS = {
    "ssh_peers": "SSH clients",
    "protected": "protected addresses",
    "peers": "peers of open TCP connections",
    "seen": f"sources that have connected in the last {MINUTES} minutes",
}
_U64 = struct.Struct("=Q")
_MAPPED = b"\0" * 10 + b"\xff\xff"


class Hits(t.NamedTuple):
    """Addresses and prefixes by key of `_KINDS`, sorted; problems: what could not be read."""

    found: dict[str, list[str]]
    problems: list[str]

    def result(self) -> dict[str, t.Any]:
        """For programs: up to `_MAX_SHOWN` of each kind, and how many there are."""
        return {
            **{kind: texts[:_MAX_SHOWN] for kind, texts in self.found.items()},
            "counts": {kind: len(texts) for kind, texts in self.found.items()},
            "minutes": MINUTES,
            "unknown": self.problems,
        }

    def sentences(self) -> list[str]:
        """For people: one for each kind with newly denied addresses, and one for each problem."""
        lines = []
        for kind, texts in self.found.items():
            if texts:
                lines.append(f"newly denies {_KINDS[kind]}: {some_of(texts, _MAX_SHOWN)}")
        return lines + [
            f"cannot list all newly denied addresses: {problem}" for problem in self.problems
        ]


def find(before: Areas | None, after: Areas, protection: Protection | None, pins: Pins) -> Hits:
    """Compare two tables. before: None if nothing is filtered.

    protection: None if the caller has already found that the lists deny no protected address.
    """
    problems: list[str] = []

    def newly_denied(source: t.Callable[[], set[Prefix]]) -> set[Prefix]:
        # A source that cannot be read must not prevent the change.
        try:
            return {
                prefix
                for prefix in source()
                if is_denied(new, prefix) and not is_denied(old, prefix)
            }
        except (PacketwatchError, OSError) as error:
            problems.append(str(error))
            return set()

    new, old = after.tables(), before.tables() if before else Tables()
    hit = {
        "ssh_peers": newly_denied(lambda: _hosts(peers.ssh_clients(peers.ssh_ports()))),
        "protected": _protected(before, after, protection) if protection else set(),
        "peers": newly_denied(lambda: _hosts(peers.tcp_peers())),
        "seen": newly_denied(lambda: _seen(pins)),
    }
    found: dict[str, list[str]] = {}
    listed: set[Prefix] = set()
    for kind, prefixes in hit.items():
        found[kind] = [format_prefix(prefix) for prefix in sorted(prefixes - listed)]
        listed |= prefixes
    return Hits(found, problems)


def _hosts(addresses: t.Iterable[bytes]) -> set[Prefix]:
    return {from_mapped(address, 128) for address in addresses}


def _protected(before: Areas | None, after: Areas, protection: Protection) -> set[Prefix]:
    """Protected addresses that are newly denied, and prefixes of which no part was denied before."""
    old = denied_protected(before, protection) if before else []
    return {parse_prefix(text) for text, dummy in {*denied_protected(after, protection)} - {*old}}


def _seen(pins: Pins) -> set[Prefix]:
    """Sources for whose connections the program emitted an event, or would have without its limit."""
    if not pins.loaded():
        return set()
    since = time.monotonic_ns() - MINUTES * 60 * 1_000_000_000
    with pins.open_run_maps(("rates",))["rates"] as rates:
        # The stored time is up to two seconds later than the event: that is the limit's burst.
        return {
            from_mapped(key, 128 if key.startswith(_MAPPED) else 64)
            for key, value in rates.each()
            if _U64.unpack(value)[0] >= since
        }
