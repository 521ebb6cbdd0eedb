# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The never-list: sources that nobody bans for the fleet. Enforcers, the API and plays ask it.

Hosts refuse protected and allowed sources too, each its own. This list is that of all hosts together.
"""

from __future__ import annotations

import typing as t

from .._base.address import BITS, Prefix, format_prefix, parse_prefix
from .._base.errors import InvalidInput
from .._base.files import parse_json
from .._base.number import is_a
from .keys import HOSTS, LISTS

# Networks of all hosts and lists. The list of a large fleet has some thousands.
MAX_NETWORKS = 100_000
ALWAYS = "/etc/packetwatch-fleet-node/never"
"""The file that `read_always` reads, on a node."""
# Of one host: it may lie, and a host with more addresses is not filtered by one agent.
MAX_ADDRESSES = 64
_MAX_STATUS, _MAX_LIST = 1 << 16, 1 << 20
_HALF = 64

_Network = tuple[int, int, int]
"""Family, length, and the number that the first `length` bits are."""


def read_always(path: str) -> list[tuple[str, str]]:
    """What nobody bans whatever the store has, with the reason for each; raises `InvalidInput`.

    The role writes the file: on each line an address or prefix, and the reason.
    """
    found = []
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.strip() and not line.startswith("#"):
                    address, dummy, reason = line.strip().partition(" ")
                    parse_prefix(address)
                    found.append((address, reason))
    except (OSError, ValueError, InvalidInput) as error:
        raise InvalidInput(
            f"{path}: {error}: correct fleet_node_protect, and run the playbook packetwatch.xdp.fleet"
        ) from None
    return found


class Never:
    """Follows ``hosts/*/status`` and ``lists/*``. always: addresses and prefixes with the reason for each."""

    def __init__(self, always: t.Iterable[tuple[str, str]] = ()) -> None:
        self.is_full = False
        """Whether networks were left out because there are too many."""
        self._owners: dict[_Network, tuple[str, ...]] = {}
        """The keys, or reasons, that have a network."""
        self._networks: dict[str, tuple[_Network, ...]] = {}
        """By key."""
        self._lengths: dict[int, dict[int, int]] = {4: {}, 6: {}}
        """How many networks of each length there are, by family."""
        self._halves: dict[int, dict[_Network, None]] = {}
        """IPv6 networks that are parts of a /64, by its number."""
        fixed: dict[str, list[_Network]] = {}
        for text, reason in always:
            fixed.setdefault(reason, []).append(_network(parse_prefix(text)))
        for reason, networks in fixed.items():
            self._set(reason, networks)

    def put(self, key: str, value: bytes) -> None:
        """Take a value of the store; all but statuses and lists is ignored."""
        if key.startswith(LISTS):
            self._set(key, _allowed(value))
        elif key.startswith(HOSTS) and key.endswith("/status"):
            self._set(key, _own(value))

    def drop(self, key: str) -> None:
        """Forget a value that is gone."""
        self._set(key, ())

    def keys(self) -> set[str]:
        """The keys of the store that have networks."""
        return {key for key in self._networks if key.startswith((HOSTS, LISTS))}

    def refused(self, address: str) -> str | None:
        """Why an address or a source must not be banned; None: it may be. Raises `InvalidInput`."""
        prefix = parse_prefix(address)
        bits = BITS[prefix.family]
        for length in self._lengths[prefix.family]:
            if length <= prefix.length:
                found = prefix.family, length, prefix.value >> (bits - length)
                if found in self._owners:
                    return self._reason(found)
        if prefix.family == 6 and prefix.length == _HALF:
            for part in self._halves.get(prefix.value >> _HALF, ()):
                return self._reason(part)
        return None

    def refused_network(self, prefix: Prefix) -> str | None:
        """Why a list must not deny a network; None: it may. What lists allow in a part of it does not matter."""
        if why := self.refused(format_prefix(prefix)):
            return why
        for network, owners in self._owners.items():
            own = _prefix(network)
            is_inside = own.family == prefix.family and prefix.value <= own.value <= prefix.last
            if is_inside and not all(owner.startswith(LISTS) for owner in owners):
                return self._reason(network)
        return None

    def _reason(self, network: _Network) -> str:
        text = format_prefix(_prefix(network))
        # Lists come last: what they allow may be denied in a wider network.
        owner = min(self._owners[network], key=lambda one: one.startswith(LISTS))
        if owner.startswith(LISTS):
            return f"the list {owner.removeprefix(LISTS)} allows {text}"
        if owner.startswith(HOSTS):
            return f"{text} is an address of the host {owner.removeprefix(HOSTS).partition('/')[0]}"
        return f"{text} is {owner}"

    def _set(self, key: str, networks: t.Iterable[_Network]) -> None:
        for network in self._networks.pop(key, ()):
            self._remove(key, network)
        kept = []
        for network in dict.fromkeys(networks):
            if len(self._owners) >= MAX_NETWORKS and network not in self._owners:
                self.is_full = True
                break
            if network not in self._owners:
                self._add(network)
            self._owners[network] = (*self._owners.get(network, ()), key)
            kept.append(network)
        if kept:
            self._networks[key] = tuple(kept)

    def _add(self, network: _Network) -> None:
        family, length, number = network
        self._lengths[family][length] = self._lengths[family].get(length, 0) + 1
        if family == 6 and length > _HALF:
            self._halves.setdefault(number >> (length - _HALF), {})[network] = None

    def _remove(self, key: str, network: _Network) -> None:
        left = tuple(owner for owner in self._owners[network] if owner != key)
        if left:
            self._owners[network] = left
            return
        del self._owners[network]
        family, length, number = network
        self._lengths[family][length] -= 1
        if not self._lengths[family][length]:
            del self._lengths[family][length]
        if family == 6 and length > _HALF:
            half = number >> (length - _HALF)
            del self._halves[half][network]
            if not self._halves[half]:
                del self._halves[half]


def _network(prefix: Prefix) -> _Network:
    return prefix.family, prefix.length, prefix.value >> (BITS[prefix.family] - prefix.length)


def _prefix(network: _Network) -> Prefix:
    family, length, number = network
    return Prefix(family, number << (BITS[family] - length), length)


def _own(value: bytes) -> t.Iterator[_Network]:
    """The addresses in a host's status. A host that lies must not keep a network from being banned."""
    addresses = _object(value, _MAX_STATUS).get("addresses")
    for text in addresses[:MAX_ADDRESSES] if isinstance(addresses, list) else ():
        yield from (found for found in _parsed(text) if found[1] == BITS[found[0]])


def _allowed(value: bytes) -> t.Iterator[_Network]:
    """What a list allows, also for a time that is over: the API removes such entries."""
    entries = _object(value, _MAX_LIST).get("allow")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            yield from _parsed(entry.get("address"))


def _object(value: bytes, size: int) -> dict[str, t.Any]:
    """The object that a value is; an empty one if it is not understood."""
    try:
        found = parse_json(value) if len(value) <= size else None
    except ValueError:
        found = None
    if isinstance(found, dict) and is_a(found.get("v"), int) and found["v"] == 1:
        return found
    return {}


def _parsed(text: t.Any) -> t.Iterator[_Network]:
    if isinstance(text, str):
        try:
            yield _network(parse_prefix(text))
        except InvalidInput:
            return
