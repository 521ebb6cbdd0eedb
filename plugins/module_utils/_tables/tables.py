# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Lists → the tables that the XDP program reads (docs/tables.md)."""

from __future__ import annotations

from array import array
from collections.abc import MutableSequence
from typing import NamedTuple

from . import ipv4, ipv6_hosts, ipv6_tree
from .area import Area, Place
from .ipv6_hosts import Buckets
from .pool import IPV6
from .ranges import (
    ALLOW,
    DENY,
    LAST4,
    LAST6,
    NONE,
    Blocks,
    Prefixes,
    compile_ranges,
    start_words,
)


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
    shape4: ipv4.Shape = ipv4.Shape()
    """What the editor of `_active/patch.py` needs to know of the IPv4 area."""

    @property
    def pages(self) -> int:
        """Pages of both areas together."""
        return self.v4.pages + self.v6.pages


def compile_tables(allow: Prefixes, deny: Prefixes) -> Tables:
    """Return the tables for all allow lists and all deny lists.

    Raises TooLarge if a family needs more than the format can address: 9 GiB.
    """
    v4, v4_shift, ranges4, shape4 = _compile4(allow.v4, deny.v4)
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
        shape4=shape4,
    )


def _compile4(allow: Blocks, deny: Blocks) -> tuple[Area, int, int, ipv4.Shape]:
    """Return the IPv4 area, its shift (`build4`), the number of ranges, and the area's shape."""
    ranges = compile_ranges(allow, deny, LAST4)
    if not ranges.total:
        return Area(), 0, 0, ipv4.Shape()
    total = ranges.total
    words = start_words(ranges, LAST4)
    del ranges  # frees memory before the next large structure is built
    area, shift, shape = ipv4.build4(words)
    return area, shift, total, shape


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
    homes = ipv6_hosts.homes_for(sum(map(len, hosts.values())) // IPV6.size)
    buckets = Buckets(homes)
    for verdict, packed in hosts.items():
        buckets.add(packed, verdict)
    words = ipv6_hosts.merged(words, sorted(buckets.place_waiting()), NONE)
    tree = ipv6_tree.build6(words) if words else array("I")
    return *ipv6_hosts.put_after(tree, buckets.filled(), homes), total


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
