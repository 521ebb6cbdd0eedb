# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Bans: list, add, lift and explain them.

Three maps hold them, all ``struct pw_source`` → ``struct pw_ban``. ``bans`` has manual, fleet, restored
and prolonged bans. The XDP program writes the other two: ``scan_bans``, and ``overflow`` (LRU) for the
short bans above the ban rate. Times are CLOCK_MONOTONIC nanoseconds, durations are seconds.

What the program has counted of a source is in ``tracks2`` and ``firsts2``. It counts nothing of a banned
source. So a ban by hand forgets the count when it begins, and also its end leaves no count.
"""

from __future__ import annotations

import errno
import os
import struct
import time
import typing as t

from .._base.address import Prefix, format_prefix, from_mapped, mapped, mapped_length, parse_prefix
from .._base.errors import InvalidInput, TooLarge, Unwritable
from .._kernel import abi
from .._kernel.first_ports import Firsts
from .._network.protect import ORIGINS as PROTECTION_ORIGINS
from .._network.protect import masked

if t.TYPE_CHECKING:
    from .._kernel.libbpf import Map
    from .._kernel.pins import Pins

MAPS = ("bans", "scan_bans", "overflow")
_CONSULTED = ("hosts", "nets", "shared")
# Missing while the program of an earlier version is loaded, which counts in other maps.
_COUNTED = ("tracks2", "firsts2")
_EXISTING = 2  # BPF_EXIST
_SECOND = 1_000_000_000
MAX_DURATION = 100 * 366 * 86400.0
_U32 = struct.Struct("=I")
# Addresses that are not those of one other host. The program bans none of them (pw_ip_is_nobody).
_NOBODY = [
    (mapped_length(prefix), mapped(prefix), kind)
    for prefix, kind in (
        (parse_prefix("0.0.0.0"), "the unspecified address"),
        (parse_prefix("127.0.0.0/8"), "a loopback address"),
        (parse_prefix("224.0.0.0/4"), "a multicast address"),
        (parse_prefix("240.0.0.0/4"), "a reserved address"),
        (parse_prefix("::"), "the unspecified address"),
        (parse_prefix("::1"), "the loopback address"),
        (parse_prefix("ff00::/8"), "a multicast address"),
    )
]
# since, expires and origin of struct pw_ban.
_TIMES = struct.Struct("=QQ22xBx")
# How keys of the maps begin and, after a /64, end.
_HOST, _NET, _END = _U32.pack(128), _U32.pack(64), bytes(8)


class Source(t.NamedTuple):
    """The source that a ban matches: prefix length over 128 bits (128, or 64 for IPv6) and 16 bytes."""

    plen: int
    address: bytes

    @classmethod
    def of(cls, prefix: Prefix) -> Source:
        """Return the source that is exactly this prefix."""
        return cls(mapped_length(prefix), mapped(prefix))

    @property
    def key(self) -> bytes:
        """The key in the maps (struct pw_source)."""
        return abi.SOURCE.struct.pack(self.plen, self.address)

    @property
    def prefix(self) -> Prefix:
        return from_mapped(self.address, self.plen)

    @property
    def text(self) -> str:
        """``192.0.2.7``, ``2001:db8::/64`` or ``2001:db8::7``."""
        return format_prefix(self.prefix)

    @property
    def cidr(self) -> str:
        """The same with the prefix length, also of a single address."""
        text = self.text
        return text if "/" in text else f"{text}/{self.prefix.length}"


class Ban(t.NamedTuple):
    """One entry of a map.

    table: the map's name. since 0: before this boot. expires 0: never. slot: in the ring of scan bans.
    The other fields are those of struct pw_ban.
    """

    table: str
    source: Source
    since: int
    expires: int
    dropped: int
    slot: int
    ifindex: int
    ports: int
    origin: int
    flags: int

    @property
    def origin_name(self) -> str:
        """scan, manual or fleet; for an origin that only a newer version knows, its number."""
        return abi.ORIGINS.get(self.origin, str(self.origin))

    @property
    def kind(self) -> str:
        """The kind of the probes that led to a scan ban; empty for other bans."""
        return abi.kind_of(self.flags) if self.origin == abi.ORIGIN_SCAN else ""

    def has_expired(self, now: int) -> bool:
        return 0 < self.expires <= now


class Why(t.NamedTuple):
    """The bans and the protection of one address."""

    protected: str
    """Why the address is never banned; empty if it may be banned."""
    bans: list[Ban]
    """The bans that match it now. They have no effect if the address became protected later."""


class Bans:
    """The bans in `maps`: those of `MAPS`, `_CONSULTED` and `_COUNTED`, by name."""

    @classmethod
    def open(cls, pins: Pins) -> Bans:
        """Open the bans of the loaded program; raises Unreadable if nothing is loaded."""
        counted = [name for name in _COUNTED if os.path.lexists(pins.map(name))]
        return cls(pins.open_run_maps((*MAPS, *_CONSULTED, *counted)))

    def __init__(
        self, maps: t.Mapping[str, Map], clock: t.Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._maps = maps
        self._clock = clock
        self._counts = all(name in maps for name in _COUNTED)

    def close(self) -> None:
        """Close the maps."""
        for opened in self._maps.values():
            opened.close()

    @property
    def identity(self) -> int:
        """The kernel's number of the map ``bans``, unique until the next boot."""
        return self._maps["bans"].info.id

    @property
    def capacity(self) -> int:
        """The maximum number of bans in the map ``bans``."""
        return self._maps["bans"].info.max_entries

    def times(self, table: str) -> t.Iterator[tuple[bytes, int, int, int]]:
        """Yield (key, since, expires, origin) of each entry: a faster `walk`, also of damaged entries."""
        for key, value in self._maps[table].each():
            yield (key, *_TIMES.unpack(value))

    def walk(self, *tables: str) -> t.Iterator[Ban]:
        """Yield all bans of these tables, by default of all `MAPS`, also expired ones.

        Damaged entries are left out: see `is_source`.
        """
        for table in tables or MAPS:
            for key, value in self._maps[table].each():
                if is_source(key):
                    yield _ban(table, key, value)

    def damaged(self) -> t.Iterator[tuple[str, bytes]]:
        """Yield table and key of each entry that is not a ban."""
        for table in MAPS:
            for key, dummy in self._maps[table].each():
                if not is_source(key):
                    yield table, key

    def discard(self, table: str, key: bytes) -> None:
        """Delete an entry that is not a ban."""
        self._maps[table].delete(key)

    def active(self) -> list[Ban]:
        """Return all bans that have not expired."""
        now = self._clock()
        return [ban for ban in self.walk() if not ban.has_expired(now)]

    def add(
        self, address: str, duration: float | None, origin: int = abi.ORIGIN_MANUAL
    ) -> tuple[Ban, bool]:
        """Ban a source for `duration` seconds (None: forever); replaces its ban in the map ``bans``.

        What was counted of the source before is forgotten, so that nothing of it outlasts the ban.
        address: as in `source_of`. Returns the ban, and whether the source had no such ban before. Raises
        `InvalidInput` if the source is protected or not valid, `TooLarge` if the map is full.
        """
        if duration is not None and not 0 < duration <= MAX_DURATION:
            raise InvalidInput(
                f"duration is {duration:g}: write more than 0 and at most {MAX_DURATION:.0f} seconds, "
                "or no duration for a ban without end"
            )
        source = self.source_of(address)
        reason = self.protection_of(source)
        if reason:
            raise InvalidInput(f"{address} is not banned: {reason}")
        now = self._clock()
        expires = 0 if duration is None else now + round(duration * _SECOND)
        ban = Ban("bans", source, now, expires, 0, 0, 0, 0, origin, 0)
        former = self.find(source, "bans")
        self.put(ban)
        self._forget(source)
        return ban, former is None or former.has_expired(now)

    def put(self, ban: Ban) -> None:
        """Write a ban to the map ``bans`` without any check; raises `TooLarge` if the map is full."""
        self._announce()
        value = abi.BAN.pack(
            since=ban.since,
            expires=ban.expires,
            dropped=ban.dropped,
            ifindex=ban.ifindex,
            ports=ban.ports,
            origin=ban.origin,
            flags=ban.flags,
        )
        try:
            self._maps["bans"].update(ban.source.key, value)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                raise Unwritable(
                    f"{ban.source.text} is not banned: {error}; packetwatchctl status says whether the map "
                    "is frozen; until it can be written, deny the source by list"
                ) from error
            room = self._maps["bans"].info.max_entries
            raise TooLarge(
                f"{ban.source.text} is not banned: {error}; there is room for {room} bans of this kind: "
                "lift some, or deny the source by list"
            ) from error

    def prolong(self, ban: Ban, expires: int) -> Ban:
        """Make a scan ban last until `expires`: move it to the map ``bans``, which no scanner can fill."""
        flags = ban.flags & ~abi.BAN_OVERFLOW
        longer = ban._replace(table="bans", expires=expires, slot=0, flags=flags)
        self.put(longer)
        if ban.table != "bans":
            self._maps[ban.table].delete(ban.source.key)
        return longer

    def prove(self, ban: Ban) -> bool:
        """Note in a ban that its source has proved its address; return whether the ban was still there."""
        value = self._maps[ban.table].lookup(ban.source.key)
        fields = abi.BAN.unpack(value) if value else {}
        if fields.get("since") != ban.since:
            return False
        fields["flags"] |= abi.BAN_ANSWER
        try:
            self._maps[ban.table].update(ban.source.key, abi.BAN.pack(**fields), _EXISTING)
        except OSError:
            return False
        return True

    def read(self, key: bytes, table: str) -> Ban | None:
        """Return the ban with this key, also an expired one; None if there is no such ban."""
        value = self._maps[table].lookup(key) if is_source(key) else None
        return None if value is None else _ban(table, key, value)

    def find(self, source: Source, table: str) -> Ban | None:
        """Return the entry of exactly this source, also an expired one; None if there is no such entry."""
        return self.read(source.key, table)

    def is_banned(self, source: Source) -> bool:
        """Return whether a ban on exactly this source is active."""
        now = self._clock()
        found = (self.find(source, table) for table in MAPS)
        return any(ban and not ban.has_expired(now) for ban in found)

    def remove(self, ban: Ban) -> bool:
        """Delete an entry, unless it was rewritten after it was read; return whether it was deleted."""
        current = self.find(ban.source, ban.table)
        if current is None or (current.since, current.expires) != (ban.since, ban.expires):
            return False
        return self._maps[ban.table].delete(ban.source.key)

    def pardon(self, ban: Ban) -> bool:
        """`remove` a ban before its end, and forget what was counted of its source."""
        is_removed = self.remove(ban)
        if is_removed:
            self._forget(ban.source)
        return is_removed

    def lift(self, address: str) -> list[Ban]:
        """Remove every ban that matches the address, or that is on exactly this IPv6 /64; return them.

        What was counted of these sources is forgotten, also if there is no ban.
        """
        lifted = []
        for source in sources_of(address):
            self._forget_exactly(source)
            for table in MAPS:
                ban = self.find(source, table)
                if ban and self._maps[table].delete(source.key):
                    lifted.append(ban)
        return lifted

    def why(self, address: str) -> Why:
        """Return the bans and the protection of one address or IPv6 /64; raises `InvalidInput`."""
        prefix = parse_prefix(address)
        now = self._clock()
        found = [self.find(source, table) for source in _sources(prefix, address) for table in MAPS]
        source = Source(64 if prefix.length == 64 else 128, mapped(prefix))
        return Why(
            self.protection_of(source), [ban for ban in found if ban and not ban.has_expired(now)]
        )

    def source_of(self, address: str) -> Source:
        """Return the source that is banned for an address or an IPv6 /64; raises `InvalidInput`.

        A plain IPv6 address stands for its /64. It stands for itself if the /64 also holds addresses that
        must not be banned (NET_SINGLE, or not those of a host), or if it is written with /128.
        """
        prefix = parse_prefix(address)
        if prefix.family == 6 and prefix.length == 64:
            return Source(64, mapped(prefix))
        if not prefix.is_host:
            raise InvalidInput(
                f"{address} is a network: ban one address or one IPv6 /64; deny networks by list"
            )
        single = prefix.family == 4 or "/" in address or _nobody(Source(128, mapped(prefix)))
        if single or self._net_flags(mapped(prefix)) & abi.NET_SINGLE:
            return Source(128, mapped(prefix))
        return Source(64, masked(mapped(prefix), 64))

    def protection_of(self, source: Source) -> str:
        """Return why the source must not be banned; empty if it may be banned."""
        kind = _nobody(source)
        if kind:
            return f"{source.text} is {kind}, which no other host has (ban the address of a host instead)"
        value = self._maps["hosts"].lookup(source.address) if source.plen == 128 else None
        host = abi.HOST.unpack(value) if value else None
        if host and not 0 < host["expires"] <= self._clock():
            name = PROTECTION_ORIGINS.get(host["origin"], "for an unknown reason")
            return f"{source.text} is protected ({name})"
        flags = self._net_flags(source.address)
        if flags & abi.NET_PROTECTED:
            return f"{source.text} is protected (it lies in a protected prefix)"
        if source.plen == 64 and flags & abi.NET_SHARED:
            return (
                f"{source.text} is shared by unrelated hosts (translation, Teredo or 6to4): "
                "ban single addresses of it, written with /128"
            )
        if source.plen == 64 and flags & abi.NET_SINGLE:
            return (
                f"{source.text} holds addresses of this host, of its link, or protected addresses: "
                "ban single addresses of it, written with /128"
            )
        return ""

    def _forget(self, source: Source) -> None:
        """Forget what was counted of a source, and for an IPv6 address of its /64."""
        for each in _sources(source.prefix, source.text):
            self._forget_exactly(each)

    def _forget_exactly(self, source: Source) -> None:
        if self._counts:
            self._maps["tracks2"].delete(source.key)
            Firsts(self._maps["firsts2"], self._maps["shared"]).forget(source.key)

    def _net_flags(self, address: bytes) -> int:
        value = self._maps["nets"].lookup(abi.NET.struct.pack(128, address))
        return 0 if value is None else int(_U32.unpack(value)[0])

    def _announce(self) -> None:
        """Set the flag by which the program knows that ``bans`` may have entries."""
        self._maps["shared"].write_word(abi.HAS_BANS, 1)


def _nobody(source: Source) -> str:
    """Return what kind of address a source is if no other host has it, otherwise nothing."""
    for length, address, kind in _NOBODY:
        if length <= source.plen and masked(source.address, length) == address:
            return kind
    return ""


def is_source(key: bytes) -> bool:
    """Return whether a key of the maps is a source that the program can look up.

    The agent may write any bytes into these maps, and root reads them.
    """
    return key[:4] == _HOST or (key[:4] == _NET and key[12:] == _END)


def sources_of(address: str) -> list[Source]:
    """Return the sources whose bans match an address or an IPv6 /64; raises `InvalidInput`."""
    return _sources(parse_prefix(address), address)


def _ban(table: str, key: bytes, value: bytes) -> Ban:
    return Ban(
        table,
        Source(*abi.SOURCE.struct.unpack(key)),
        *abi.BAN.struct.unpack(value),
    )


def _sources(prefix: Prefix, text: str) -> list[Source]:
    """Return the sources whose bans match the prefix: itself, and for an IPv6 address its /64.

    text: the prefix as the user wrote it, for the error.
    """
    address = mapped(prefix)
    if prefix.is_host:
        wide = [Source(64, masked(address, 64))] if prefix.family == 6 else []
        return [Source(128, address), *wide]
    if prefix.family == 6 and prefix.length == 64:
        return [Source(64, address)]
    raise InvalidInput(f"{text} is a network: bans are on single addresses or an IPv6 /64")
