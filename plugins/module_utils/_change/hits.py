# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whom a change of the lists denies that nothing denied before, as far as this host knows them.

Known are the peers of its TCP connections, what it protects, and who has opened a connection lately:
for the limit of events the program keeps a time for each such source in the map ``rates``, an IPv6
source by its /64. Root reads that without the agent.
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

_SHOWN = 20
# What they are called in a sentence; who is several of these is told as the first.
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
        """For programs: the first of each kind, and how many there are."""
        return {
            **{kind: texts[:_SHOWN] for kind, texts in self.found.items()},
            "counts": {kind: len(texts) for kind, texts in self.found.items()},
            "minutes": MINUTES,
            "unknown": self.problems,
        }

    def sentences(self) -> list[str]:
        """For people: one for each kind that is hit, and for each that is not known."""
        told = []
        for kind, texts in self.found.items():
            if texts:
                told.append(f"hits {_KINDS[kind]}: {some_of(texts, _SHOWN)}")
        return told + [f"not known whom it hits: {problem}" for problem in self.problems]


def find(before: Areas | None, after: Areas, protection: Protection | None, pins: Pins) -> Hits:
    """Compare two tables; before: None where nothing is filtered.

    protection: None if it is known that the lists deny nothing of it.
    """
    problems: list[str] = []

    def ask(source: t.Callable[[], set[Prefix]]) -> set[Prefix]:
        # Nobody shall be kept from a change because it cannot be told whom it hits.
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
        "ssh_peers": ask(lambda: _hosts(peers.ssh_clients(peers.ssh_ports()))),
        "protected": _protected(before, after, protection) if protection else set(),
        "peers": ask(lambda: _hosts(peers.tcp_peers())),
        "seen": ask(lambda: _seen(pins)),
    }
    found: dict[str, list[str]] = {}
    told: set[Prefix] = set()
    for kind, prefixes in hit.items():
        found[kind] = [format_prefix(prefix) for prefix in sorted(prefixes - told)]
        told |= prefixes
    return Hits(found, problems)


def _hosts(addresses: t.Iterable[bytes]) -> set[Prefix]:
    return {from_mapped(address, 128) for address in addresses}


def _protected(before: Areas | None, after: Areas, protection: Protection) -> set[Prefix]:
    """Those that are denied now, and were not; of prefixes, those of which nothing was."""
    old = denied_protected(before, protection) if before else []
    return {parse_prefix(text) for text, dummy in {*denied_protected(after, protection)} - {*old}}


def _seen(pins: Pins) -> set[Prefix]:
    """Sources whose connection the program has told, or would have without a limit."""
    if not pins.loaded():
        return set()
    since = time.monotonic_ns() - MINUTES * 60 * 1_000_000_000
    with pins.open_run_maps(("rates",))["rates"] as rates:
        # The time is up to two seconds ahead of the event: that is the limit's burst.
        return {
            from_mapped(key, 128 if key.startswith(_MAPPED) else 64)
            for key, value in rates.each()
            if _U64.unpack(value)[0] >= since
        }
