# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of the fleet, by number: names, networks, and what each has reported last. No input, no output, no clock."""

from __future__ import annotations

import collections
import typing as t

from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_fleet.sources import network_of

MAX_HOSTS = 5000
_MAX_ADDRESSES = 64


class Host:
    """What is known of one host."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.addresses: frozenset[str] = frozenset()
        self.last = (0, 0.0, 0)
        """Of the last report of what it has seen: number, time, and how much was lost."""
        self.is_present = False
        """Whether the store has its status."""


class Roster:
    """Implements `rules.interface.Hosts`. Numbers begin with 1, and a host keeps its own."""

    def __init__(self) -> None:
        self.refused = 0
        """Reports of hosts beyond the maximum."""
        self._by_name: dict[str, Host] = {}
        self._by_number: list[Host] = []
        self._owners: collections.Counter[str] = collections.Counter()
        """How many hosts have an address."""

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> t.Iterator[Host]:
        return iter(self._by_number)

    def host(self, name: str) -> Host | None:
        """The host of this name; None if there are too many already."""
        found = self._by_name.get(name)
        if found is None:
            if len(self._by_number) >= MAX_HOSTS:
                self.refused += 1
                return None
            found = Host(len(self._by_number) + 1, name)
            self._by_name[name] = found
            self._by_number.append(found)
        return found

    def settle(self, host: Host, addresses: t.Iterable[str]) -> None:
        """A host has these addresses now."""
        self._owners.subtract(host.addresses)
        host.addresses = frozenset(list(addresses)[:_MAX_ADDRESSES])
        self._owners.update(host.addresses)
        # Unary plus leaves out what has no owner any more.
        self._owners = +self._owners
        host.is_present = True

    def leave(self, host: Host) -> None:
        """A host has left: it shares no network with those that stay."""
        self.settle(host, ())
        host.is_present = False

    def present(self) -> t.Sequence[int]:
        return [host.number for host in self._by_number if host.is_present]

    def name(self, host: int) -> str:
        return self._by_number[host - 1].name if 0 < host <= len(self._by_number) else str(host)

    def networks(self, host: int) -> frozenset[str]:
        """Of the addresses that no other host has: bridges of containers have the same one everywhere."""
        if not 0 < host <= len(self._by_number):
            return frozenset()
        own = (one for one in self._by_number[host - 1].addresses if self._owners[one] == 1)
        return frozenset(found for one in own if (found := _network(one)))


def _network(address: str) -> str:
    try:
        prefix = parse_prefix(address)
    except InvalidInput:
        return ""
    if not prefix.is_host:
        return ""
    size, kept = (4, 3) if prefix.family == 4 else (16, 6)
    return network_of(prefix.value.to_bytes(size, "big")[:kept])
