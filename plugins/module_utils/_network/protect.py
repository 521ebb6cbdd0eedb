# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Protected addresses, which are never banned, and local addresses, which are this host's own.

`compute` computes both; `write` writes them to the maps ``hosts``, ``nets`` and ``local``, with a word of ``shared``.
Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; prefix lengths count in these 128 bits.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
import typing as t

from .._base.address import Prefix, format_prefix, from_mapped, mapped, mapped_length, parse_prefix
from .._base.errors import InvalidInput, TooLarge, Unreadable
from .._base.steps import Steps, finish
from .._kernel import netlink
from .._kernel.abi import (
    HAS_LOCAL_NETS,
    HOST,
    NET,
    NET_LOCAL,
    NET_PROTECTED,
    NET_SHARED,
    NET_SINGLE,
)
from . import peers
from .stack import write_stack

if t.TYPE_CHECKING:
    from .._kernel.libbpf import Map

ORIGINS = {
    1: "declared",
    2: "own address",
    3: "gateway",
    4: "resolver",
    5: "time server",
    6: "SSH client",
    7: "loopback",
}
DECLARED, OWN, GATEWAY, RESOLVER, TIME_SERVER, SSH_CLIENT, LOOPBACK = ORIGINS

_WRITTEN = ("hosts", "nets", "local")
MAPS = (*_WRITTEN, "shared")

Net = tuple[int, bytes]
_MAPPED = b"\0" * 10 + b"\xff\xff"
_MAPPED_NET: Net = (96, _MAPPED + b"\0" * 4)
_LINK_LOCAL: Net = (10, b"\xfe\x80" + b"\0" * 14)
_LOOPBACK_4: Net = (104, _MAPPED + b"\x7f\0\0\0")
_LOOPBACK_6 = b"\0" * 15 + b"\x01"
_UNICAST = 1
# IPv6 prefixes in which the hosts of one /64 do not belong together.
_SHARED: tuple[Net, ...] = (
    # Addresses that translators make of IPv4 addresses: RFC 6052, RFC 8215, RFC 2765.
    (96, b"\0\x64\xff\x9b" + bytes(12)),
    (48, b"\0\x64\xff\x9b\0\x01" + bytes(10)),
    (96, bytes(8) + b"\xff\xff" + bytes(6)),
    # Teredo: RFC 4380. A /64 holds all clients of one server.
    (32, b"\x20\x01" + bytes(14)),
    # 6to4: RFC 3056
    (16, b"\x20\x02" + bytes(14)),
)
MIN_SHARED_LENGTH = 32
# An SSH client stays protected for so many nanoseconds after it was last seen, because Ansible may close
# its connection between two tasks.
_SSH_CLIENT_KEPT = 600 * 1_000_000_000
_U32 = struct.Struct("=I")


class Network(t.NamedTuple):
    """This host's addresses and routes, read from the kernel. local: the routes to this host itself."""

    addresses: t.Sequence[netlink.Address]
    routes: t.Sequence[netlink.Route]
    local: t.Sequence[netlink.Route] = ()


class Protection(t.NamedTuple):
    """What the maps should hold.

    hosts: address → key of `ORIGINS`; nets: (length, address) → NET_* flags; local: addresses.
    problems: what could not be read. While there are problems, a missing address counts as unknown, not
    as gone.
    """

    hosts: dict[bytes, int]
    nets: dict[Net, int]
    local: set[bytes]
    problems: list[str]


class Written(t.NamedTuple):
    """changes: number of entries written or deleted. left_out: learned ones that did not fit."""

    changes: int
    left_out: int


def read_network() -> Network:
    """Do all of `read_network_in_steps` at once."""
    return finish(read_network_in_steps())


def read_network_in_steps() -> Steps[Network]:
    """Read addresses and routes from the kernel; raises `Unreadable`. A router may have a million routes."""
    routes = yield from netlink.routes_in_steps()
    return Network(
        netlink.addresses(),
        [route for route in routes if not route.is_local],
        [route for route in routes if route.is_local],
    )


def parse_declared(text: str, source: str = "PW_PROTECT") -> list[Prefix]:
    """Parse addresses and prefixes separated by commas or white space; raises `InvalidInput`."""
    found = []
    for word in text.replace(",", " ").split():
        try:
            found.append(parse_prefix(word))
        except InvalidInput as error:
            raise InvalidInput(f"{source}: {error}") from None
    return found


def parse_shared(text: str, source: str = "PW_SHARED_PREFIXES") -> list[Prefix]:
    """Parse shared IPv6 prefixes, separated as in `parse_declared`; raises `InvalidInput`."""
    found = parse_declared(text, source)
    for prefix in found:
        check_shared(prefix, f"{source}: ")
    return found


def check_shared(prefix: Prefix, source: str = "") -> None:
    """Raise `InvalidInput` for a prefix that cannot be a shared one. source: the start of the message."""
    text = format_prefix(prefix)
    if prefix.family == 4:
        raise InvalidInput(
            f"{source}{text!r} is IPv4, and each IPv4 address is banned singly anyway: write IPv6 prefixes"
        )
    if not MIN_SHARED_LENGTH <= prefix.length < 128:
        raise InvalidInput(
            f"{source}{text!r} is not the prefix of a translator: write a length from "
            f"/{MIN_SHARED_LENGTH} to /127, mostly /96 (RFC 6052)"
        )


def compute(
    declared: t.Iterable[Prefix],
    auto: bool,
    network: Network,
    root: str = "/",
    shared: t.Iterable[Prefix] = (),
) -> Protection:
    """Compute the addresses that are protected and local now.

    Without `auto`, only `declared` is protected. With and without it, a /64 that contains this host or
    its neighbours is never banned as a whole: its sources are banned singly. The same holds for `shared`
    prefixes and those that are shared everywhere.
    """
    result = Protection({}, {}, set(), [])
    own = [_mapped(address.address) for address in network.addresses]
    result.local.update(own)
    for length, address in (_net(route.destination, route.prefixlen) for route in network.local):
        if length == 128:
            result.local.add(address)
        elif not _covers(_LOOPBACK_4, (length, address)):
            result.nets[length, address] = NET_LOCAL
    for prefix in declared:
        _protect(result, prefix)
    if auto:
        result.nets[_LOOPBACK_4] = NET_PROTECTED
        for origin, addresses in _learned(network, root, own, result.problems):
            for address in addresses:
                result.hosts.setdefault(address, origin)
    for length, address in (*_SHARED, *((item.length, mapped(item)) for item in shared)):
        around = min(length, 64)
        for net in ((length, address), (around, masked(address, around))):
            result.nets[net] = result.nets.get(net, 0) | NET_SINGLE | NET_SHARED
    for net in _single(result, network, own):
        result.nets[net] = result.nets.get(net, 0) | NET_SINGLE
    return result._replace(nets=inherit(result.nets))


def connected(network: Network) -> set[Net]:
    """Networks on this host's links, which it reaches without a gateway."""
    found = {
        _net(address.network, address.prefixlen)
        for address in network.addresses
        if len(address.network) in (4, 16)
    }
    return found | {
        _net(route.destination, route.prefixlen)
        for route in network.routes
        if route.prefixlen and not route.gateways
    }


def _net(address: bytes, length: int) -> Net:
    whole = length + 128 - 8 * len(address)
    return whole, masked(_mapped(address), whole)


def inherit(nets: dict[Net, int]) -> dict[Net, int]:
    """Give each net the flags of the nets that cover it, because the kernel finds only the longest.

    Mapped IPv4 addresses do not inherit from a short IPv6 prefix that covers ::ffff:0:0/96: that net
    gets an entry of its own, which ends the inheritance.
    """
    nets = dict(nets)
    if any(_covers(net, _MAPPED_NET) for net in nets):
        nets.setdefault(_MAPPED_NET, 0)
    lengths = sorted({length for length, dummy in nets})
    result = {}
    for length, address in nets:
        flags = 0
        least = 96 if _covers(_MAPPED_NET, (length, address)) else 0
        for shorter in lengths:
            if least <= shorter <= length:
                flags |= nets.get((shorter, masked(address, shorter)), 0)
        result[length, address] = flags
    return result


def check_room(protection: Protection, maps: t.Mapping[str, Map]) -> None:
    """`TooLarge` if what is declared does not fit into the maps."""
    for name, count in _declared(protection).items():
        room = maps[name].info.max_entries
        if count > room:
            raise TooLarge(
                f"{count} protected and shared entries do not fit into the map {name}, which takes {room}; "
                "declare fewer addresses, or shorter prefixes that cover them"
            )


def write(protection: Protection, maps: t.Mapping[str, Map]) -> Written:
    """Write the maps: first add entries, then delete others.

    Learned addresses that do not fit are left out, the least important origins first. If declared ones
    do not fit, `TooLarge` is raised before anything is changed. SSH clients stay for ten minutes after
    they were last seen. If there are problems, present entries stay as far as they fit.
    """
    check_room(protection, maps)
    now = time.monotonic_ns()
    present = {name: dict(maps[name].items()) for name in _WRITTEN}
    wanted: dict[str, dict[bytes, bytes]] = {}
    left_out = 0
    for name, entries in _entries(protection, now).items():
        room = maps[name].info.max_entries
        entries |= _kept(present[name], entries, now if name == "hosts" else None, protection)
        wanted[name] = dict(itertools.islice(entries.items(), room))
        left_out += len(entries) - len(wanted[name])
    # An agent that was taken over may have frozen a map, and must not keep root from its changes by that.
    skipped = frozen(maps)
    if "shared" not in skipped:
        # The program looks up the destination of a forwarded packet in nets only if this can matter.
        has_local = any(flags & NET_LOCAL for flags in protection.nets.values())
        maps["shared"].write_word(HAS_LOCAL_NETS, int(has_local))
        # The agent reports it, which reads it more often.
        with contextlib.suppress(Unreadable):
            write_stack(maps)
    changes = sum(
        _update(maps[name], present[name], wanted[name]) for name in wanted if name not in skipped
    )
    return Written(changes, left_out)


def frozen(maps: t.Mapping[str, Map]) -> list[str]:
    """Return the names of those maps that nobody can write any more."""
    return [name for name in MAPS if maps[name].is_frozen]


def _kept(
    present: dict[bytes, bytes],
    wanted: dict[bytes, bytes],
    now: int | None,
    protection: Protection,
) -> dict[bytes, bytes]:
    """Present entries that are kept: unwanted ones that stay, and those whose expiry is not rewritten.

    now: None if entries of this map do not expire.
    """
    kept = {}
    for key, value in present.items():
        if key not in wanted and protection.problems:
            kept[key] = value
        elif now is not None and HOST.unpack(value)["origin"] == SSH_CLIENT:
            # A wanted entry is rewritten only when half its time is over.
            earliest = now + _SSH_CLIENT_KEPT // 2 if key in wanted else now
            if HOST.unpack(value)["expires"] > earliest and _origin(wanted.get(key)) == SSH_CLIENT:
                kept[key] = value
    return kept


def _origin(value: bytes | None) -> int:
    """The origin of a wanted entry; without a value, that of an SSH client that is no longer seen."""
    return int(HOST.unpack(value)["origin"]) if value else SSH_CLIENT


def _update(bpf_map: Map, present: dict[bytes, bytes], wanted: dict[bytes, bytes]) -> int:
    """Write the difference; returns the number of entries written or deleted."""
    stale = present.keys() - wanted.keys()
    # Only if old and new entries together do not fit, delete before adding.
    is_full = len(wanted) + len(stale) > bpf_map.info.max_entries
    changes = sum(bpf_map.delete(key) for key in stale) if is_full else 0
    for key, value in wanted.items():
        if present.get(key) != value:
            bpf_map.update(key, value)
            changes += 1
    return changes + (0 if is_full else sum(bpf_map.delete(key) for key in stale))


def _entries(protection: Protection, now: int) -> dict[str, dict[bytes, bytes]]:
    """The wanted entries of each map, the most important first."""
    ends = {SSH_CLIENT: now + _SSH_CLIENT_KEPT}
    hosts = sorted(protection.hosts.items(), key=lambda item: item[1])
    nets = sorted(protection.nets.items(), key=lambda item: _is_learned(item[1]))
    return {
        "hosts": {
            key: HOST.pack(expires=ends.get(origin, 0), origin=origin) for key, origin in hosts
        },
        "nets": {NET.struct.pack(*key): _U32.pack(flags) for key, flags in nets},
        "local": {key: _U32.pack(_UNICAST) for key in sorted(protection.local)},
    }


def _declared(protection: Protection) -> dict[str, int]:
    """The number of entries of each map that must not be left out."""
    return {
        "hosts": list(protection.hosts.values()).count(DECLARED),
        "nets": sum(not _is_learned(flags) for flags in protection.nets.values()),
    }


def _is_learned(flags: int) -> bool:
    """Whether these are the flags of a net that was learned from the network."""
    return flags & (NET_SINGLE | NET_LOCAL) != 0 and not flags & (NET_PROTECTED | NET_SHARED)


class Listed(t.NamedTuple):
    """An entry of the maps as text. expires: CLOCK_MONOTONIC nanoseconds; 0: it does not expire."""

    prefix: str
    reason: str
    expires: int


def listed(maps: t.Mapping[str, Map]) -> t.Iterator[Listed]:
    """List the protected addresses and prefixes from the maps ``hosts`` and ``nets``."""
    now = time.monotonic_ns()
    for key, value in maps["hosts"].items():
        host = HOST.unpack(value)
        if not 0 < host["expires"] <= now:
            reason = ORIGINS.get(host["origin"], "unknown")
            yield Listed(format_prefix(from_mapped(key, 128)), reason, host["expires"])
    for key, value in maps["nets"].items():
        if _U32.unpack(value)[0] & NET_PROTECTED:
            net = NET.unpack(key)
            prefix = format_prefix(from_mapped(net["addr"], net["plen"]))
            yield Listed(prefix, "protected prefix", 0)


def masked(address: bytes, length: int) -> bytes:
    """The address with all bits after the prefix length cleared."""
    shift = 128 - length
    return (int.from_bytes(address, "big") >> shift << shift).to_bytes(16, "big")


def _protect(result: Protection, prefix: Prefix) -> None:
    if prefix.is_host:
        result.hosts[mapped(prefix)] = DECLARED
    else:
        net = mapped_length(prefix), mapped(prefix)
        result.nets[net] = result.nets.get(net, 0) | NET_PROTECTED


def _learned(
    network: Network, root: str, own: list[bytes], problems: list[str]
) -> t.Iterator[tuple[int, t.Collection[bytes]]]:
    """Origins with their addresses, the most important origin first."""
    yield LOOPBACK, [_LOOPBACK_6, *(item for item in own if _covers(_LOOPBACK_4, (128, item)))]
    yield OWN, own
    yield GATEWAY, _gateways(network.routes)
    readers: list[tuple[int, t.Callable[[], set[bytes]]]] = [
        (RESOLVER, lambda: peers.resolvers(root)),
        (TIME_SERVER, lambda: peers.time_servers(root)),
        (SSH_CLIENT, lambda: peers.ssh_clients(peers.ssh_ports(root), root)),
    ]
    for origin, read in readers:
        try:
            yield origin, read()
        except Unreadable as error:
            problems.append(str(error))


def _gateways(routes: t.Iterable[netlink.Route]) -> set[bytes]:
    return {_mapped(hop) for route in routes if route.prefixlen == 0 for hop in route.gateways}


def _single(result: Protection, network: Network, own: list[bytes]) -> t.Iterator[Net]:
    """Nets whose IPv6 sources are banned singly."""
    yield _LINK_LOCAL
    for address in network.addresses:
        if address.family == 6 and address.prefixlen < 128:
            yield address.prefixlen, masked(address.network, address.prefixlen)
    for route in network.routes:
        if route.family == 6 and route.prefixlen and not route.gateways:
            yield route.prefixlen, masked(route.destination, route.prefixlen)
    for host in {*result.hosts, *own, *_longer_than_64(result.nets)}:
        if not host.startswith(_MAPPED) and host != _LOOPBACK_6:
            yield 64, masked(host, 64)


def _longer_than_64(nets: t.Iterable[Net]) -> list[bytes]:
    """Networks longer than /64: the /64 around each contains protected addresses too."""
    return [address for length, address in nets if length > 64]


def _covers(outer: Net, inner: Net) -> bool:
    return outer[0] <= inner[0] and masked(inner[1], outer[0]) == outer[1]


def _mapped(address: bytes) -> bytes:
    return address if len(address) == 16 else _MAPPED + address
