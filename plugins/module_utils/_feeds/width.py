# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""How much of the address space a feed covers, and how much of that has changed.

One wrong entry can cover more than all others. So entries and addresses are both limited. IPv6 is counted in
/64s, because one network usually has that size.
"""

from __future__ import annotations

import typing as t
from bisect import bisect_right

from .._base.address import BITS, Prefix, format_prefix
from .._base.errors import InvalidInput
from .._tables.ranges import LAST4, LAST6, Prefixes, blocks_of, combine, nets_of, spans_of, unite
from .special import special_spans

if t.TYPE_CHECKING:
    from .._tables.ranges import Blocks, Spans

FAMILIES: t.Final = {4: "ipv4", 6: "ipv6"}

# A share of few addresses says little: a list of ten hosts may well get a /24, or a first /48. So shares are
# taken of at least so many addresses (IPv4), or /64s (IPv6).
_LEAST: t.Final = {4: {"deny": 1 << 12, "allow": 1 << 9}, 6: {"deny": 1 << 17, "allow": 1 << 17}}
_UNITS: t.Final = {4: "IPv4 addresses", 6: "IPv6 /64s"}
_SHIFTS: t.Final = {4: 0, 6: 64}
_LAST: t.Final = {4: LAST4, 6: LAST6}
_STEP = 1 << 16


class Bounds(t.NamedTuple):
    """Prefix lengths by family (4, 6). widest: the widest entry. sum: as large as all entries together."""

    widest: dict[int, int]
    sum: dict[int, int]


BOUNDS: t.Final[dict[str, Bounds]] = {
    # What an allow feed lets in by mistake, nothing else stops.
    "allow": Bounds({4: 16, 6: 32}, {4: 8, 6: 24}),
    "deny": Bounds({4: 8, 6: 19}, {4: 5, 6: 16}),
}
"""The bounds of feeds for each list, unless a feed has its own."""


class Change(t.NamedTuple):
    """What differs between two copies. share: percent of the former copy."""

    share: float
    gone: int
    come: int
    before: int
    unit: str
    """What is counted, in words."""


def check_width(found: Prefixes, bounds: Bounds, where: str) -> None:
    """Refuse prefixes that are too wide, alone or together; raises InvalidInput.

    Special-purpose space is not counted: no public address is in it.
    """
    for family, blocks in ((4, found.v4), (6, found.v6)):
        special = special_spans(family)
        for start, end in nets_of(blocks):
            length = BITS[family] - (end - start).bit_length()
            if length < bounds.widest[family] and not _is_within(start, end, special):
                raise InvalidInput(
                    f"{where}: {format_prefix(Prefix(family, start, length))} is wider than "
                    f"/{bounds.widest[family]}: check the feed; if it is right, set widest.{FAMILIES[family]} to "
                    f"{length}"
                )
        most = 1 << BITS[family] - bounds.sum[family]
        spans = unite(blocks)
        total = _count(spans, 0)
        if total > most:
            total = _count(combine(special, spans, _LAST[family]).deny, 0)
        if total > most:
            length = BITS[family] - (total - 1).bit_length()
            raise InvalidInput(
                f"{where} covers more {_UNITS[family].split()[0]} addresses than a /{bounds.sum[family]} has: "
                f"check the feed; if it is right, set widest_sum.{FAMILIES[family]} to {length}"
            )


def find_excess(before: Prefixes, after: Prefixes, kind: str, limit: float) -> Change | None:
    """Return a change of more than `limit` percent between two copies of a feed; None if there is none.

    Entries are compared first, then the addresses of each family. Neither copy has duplicates. kind: the feed's
    list.
    """
    families = ((4, before.v4, after.v4), (6, before.v6, after.v6))
    same = {family: _same(old, new) for family, old, new in families}
    both = sum(hosts + len(nets) for hosts, nets in same.values())
    had, has = before.entries, after.entries
    change = _change(had - both, has - both, had, "entries", 1)
    if change.share > limit:
        return change
    for family, old, new in families:
        least = _LEAST[family][kind]
        if _is_small(old, new, same[family], least, limit, _SHIFTS[family]):
            continue
        united = blocks_of(old.hosts.packing)
        for pool, *parts in zip(united, old, new, strict=True):
            for part in parts:
                pool.unite(part)
        had, has, either = (_count(unite(it), _SHIFTS[family]) for it in (old, new, united))
        change = _change(either - has, either - had, had, _UNITS[family], least)
        if change.share > limit:
            return change
    return None


def _change(gone: int, come: int, before: int, unit: str, least: int) -> Change:
    return Change(100 * max(gone, come) / max(before, least), gone, come, before, unit)


def _same(old: Blocks, new: Blocks) -> tuple[int, set[tuple[int, int]]]:
    """Return what two copies have in common: the number of single addresses, and the prefixes."""
    hosts = _common(old.hosts.sorted(), new.hosts.sorted())
    return hosts, set(nets_of(old)).intersection(nets_of(new))


def _common(one: t.Sequence[int], other: t.Sequence[int]) -> int:
    """Return how many elements two sorted sequences share.

    Compares piece by piece, because sets of all elements would take much memory.
    """
    found, at = 0, 0
    for begin in range(0, len(one), _STEP):
        piece = one[begin : begin + _STEP]
        end = bisect_right(other, piece[-1], at)
        found += len(set(piece).intersection(other[at:end]))
        at = end
    return found


def _is_small(
    old: Blocks,
    new: Blocks,
    same: tuple[int, set[tuple[int, int]]],
    least: int,
    limit: float,
    shift: int,
) -> bool:
    """Return whether the addresses surely differ by `limit` percent at most.

    Counting them exactly takes seconds for the longest lists. The sizes of all entries that differ are never
    less than what changes. The prefixes alone, or the single addresses alone, never cover more than what was
    there.
    """
    nets = spans_of(nets_of(old), old.hosts.packing)
    had = max(_count(nets, shift), least, 0 if shift else len(old.hosts))
    most = 0
    for blocks in (old, new):
        different = set(nets_of(blocks)) - same[1]
        size = sum((end >> shift) - (start >> shift) + 1 for start, end in different)
        most = max(most, size + len(blocks.hosts) - same[0])
    return 100 * most / had <= limit


def _count(spans: Spans, shift: int) -> int:
    """Return the number of addresses in the spans, in units of 2 to the power of shift."""
    if not shift:
        return sum(spans.ends) - sum(spans.starts) + len(spans.starts)
    total, last = 0, -1
    for start, end in zip(*spans, strict=True):
        # Spans that are apart can still share a unit.
        first, final = max(start >> shift, last + 1), end >> shift
        total += max(0, final - first + 1)
        last = final
    return total


def _is_within(start: int, end: int, spans: Spans) -> bool:
    at = bisect_right(spans.starts, start) - 1
    return at >= 0 and end <= spans.ends[at]
