# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Lists → the tables that the XDP program reads (docs/tables.md), and back."""

from __future__ import annotations

from array import array
from bisect import bisect
from collections.abc import Iterable, MutableSequence, Sequence
from typing import NamedTuple

from . import ipv4, ipv6_hosts, ipv6_tree, reader
from .area import Area
from .ipv6_hosts import Buckets, Place
from .pool import IPV6
from .ranges import (
    ALLOW,
    DENY,
    LAST4,
    LAST6,
    NONE,
    Blocks,
    Prefixes,
    Ranges,
    compile_ranges,
    ranges_of,
    start_words,
)

_VERDICTS = 3
_MAX_SCANS = 10  # more parts share one scan of all buckets


class Tables(NamedTuple):
    """The areas of both families; an empty area means that no address of that family is listed."""

    v4: Area = Area()
    v4_shift: int = 0
    v6: Area = Area()
    """A tree, then the buckets of single hosts."""
    v6_hosts: Place = Place()
    """Where in that area the buckets are."""
    ranges4: int = 0
    """Disjoint ranges that are allowed or denied."""
    ranges6: int = 0
    allow_entries: int = 0
    """Entries that the tables were compiled from, with duplicates."""
    deny_entries: int = 0

    @property
    def pages(self) -> int:
        """Pages of both areas together."""
        return self.v4.pages + self.v6.pages


def compile_tables(allow: Prefixes, deny: Prefixes) -> Tables:
    """Return the tables for all allow lists and all deny lists.

    Raises TooLarge if a family needs more than the format can address: 9 GiB.
    """
    v4, v4_shift, ranges4 = _compile4(allow.v4, deny.v4)
    v6, v6_hosts, ranges6 = _compile6(allow.v6, deny.v6)
    return Tables(
        v4,
        v4_shift,
        v6,
        v6_hosts,
        ranges4,
        ranges6,
        allow_entries=allow.entries,
        deny_entries=deny.entries,
    )


def _compile4(allow: Blocks, deny: Blocks) -> tuple[Area, int, int]:
    """Return the IPv4 area, its shift (`build4`), and the number of ranges."""
    ranges = compile_ranges(allow, deny, LAST4)
    if not ranges.total:
        return Area(), 0, 0
    total = ranges.total
    words = start_words(ranges, LAST4)
    del ranges  # frees memory before the next large structure is built
    return *ipv4.build4(words), total


def _compile6(allow: Blocks, deny: Blocks) -> tuple[Area, Place, int]:
    """Return the IPv6 area, where its hosts are, and the number of ranges."""
    hosts = _only_hosts(allow, deny)
    words: MutableSequence[int] = []
    total = sum(map(len, hosts.values())) // IPV6.size
    if not hosts:
        ranges = compile_ranges(allow, deny, LAST6)
        if not ranges.total:
            return Area(), Place(), 0
        total = ranges.total
        starts = start_words(ranges, LAST6)
        del ranges  # frees memory before the next large structure is built
        found, words = ipv6_hosts.split(starts)
        del starts
        hosts = {verdict: ipv6_hosts.packed(found.pop(verdict)) for verdict in (ALLOW, DENY)}
    buckets = Buckets(sum(map(len, hosts.values())) // IPV6.size)
    for verdict, packed in hosts.items():
        buckets.add(packed, verdict)
    words = ipv6_hosts.merged(words, sorted(buckets.place_waiting()), NONE)
    tree = ipv6_tree.build6(words) if words else array("I")
    return *buckets.after(tree), total


def _only_hosts(allow: Blocks, deny: Blocks) -> dict[int, bytes | bytearray]:
    """Return the packed addresses by verdict, if they can be used without making ranges first.

    This is so if only one kind of list has entries, all of them are single hosts, and no two are equal or
    adjacent. Otherwise the result is empty.
    """
    for verdict, one, other in ((ALLOW, allow, deny), (DENY, deny, allow)):
        if one.hosts and not (one.starts or other.hosts or other.starts):
            packed = one.hosts.isolated()
            return {verdict: packed} if packed else {}
    return {}


def lookup(tables: Tables, family: int, address: int) -> int:
    """Return the verdict for an address (a number), by the same steps as the XDP program."""
    area = _area(tables, family)
    if not area.pages:
        return NONE
    if family == 4:
        return reader.lookup4(area, tables.v4_shift, address)
    verdict = ipv6_hosts.lookup(area, tables.v6_hosts, address)
    return verdict if verdict or tables.v6_hosts.is_all else reader.lookup6(area.words, address)


def verdicts(tables: Tables, family: int, parts: Sequence[tuple[int, int]]) -> list[set[int]]:
    """Return the set of verdicts that occur in each part, given as (first address, last address)."""
    area = _area(tables, family)
    if not area.pages:
        return [{NONE} for _part in parts]
    found: list[list[int]] = [[] for _part in parts]
    if family == 6 and len(parts) <= _MAX_SCANS:
        found = [ipv6_hosts.listed(area, tables.v6_hosts, *part) for part in parts]
    elif family == 6:
        # The buckets are not in order: each search scans all of them. So search once for all parts.
        whole = min(first for first, _last in parts), max(last for _first, last in parts)
        hosts = ipv6_hosts.listed(area, tables.v6_hosts, *whole)
        found = [
            hosts[bisect(hosts, part[0] << 4) : bisect(hosts, part[1] << 4 | 15)] for part in parts
        ]
    return [_verdicts(tables, family, part, hosts) for part, hosts in zip(parts, found)]


def _verdicts(tables: Tables, family: int, part: tuple[int, int], hosts: list[int]) -> set[int]:
    first, last = part
    found = {lookup(tables, family, first)}
    after, since = NONE, last + 1  # the verdict after the start before, and its first address
    for word in _starts(tables, family, part, hosts):
        if len(found) == _VERDICTS:
            break
        if since < word >> 4:
            found.add(after)
        found.add(word & 3)
        after, since = word >> 2 & 3, (word >> 4) + 1
    if since <= last:
        found.add(after)
    return found


def read_ranges(tables: Tables) -> tuple[Ranges, Ranges]:
    """Return the IPv4 and the IPv6 ranges that the tables hold, equal to those of `compile_ranges`."""
    hosts = ipv6_hosts.listed(tables.v6, tables.v6_hosts, 0, LAST6)
    return (
        ranges_of(_starts(tables, 4, (0, LAST4), []), LAST4),
        ranges_of(_starts(tables, 6, (0, LAST6), hosts), LAST6),
    )


def _area(tables: Tables, family: int) -> Area:
    return tables.v4 if family == 4 else tables.v6


def _starts(tables: Tables, family: int, part: tuple[int, int], hosts: list[int]) -> Iterable[int]:
    """Return the start words of a part; hosts: those of single IPv6 hosts in it (`listed`)."""
    area = _area(tables, family)
    if not area.pages:
        return ()
    words = area.words
    if family == 4:
        return reader.walk4(words, tables.v4_shift, *part)
    if tables.v6_hosts.is_all:
        return hosts
    around = reader.lookup6(words, part[0])
    return ipv6_hosts.merged(reader.walk6(words, *part), hosts, around)
