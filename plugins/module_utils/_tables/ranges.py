# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Allow and deny prefixes → disjoint ranges with a verdict.

Addresses are plain numbers here. Functions that depend on the family take its highest address, `last`.
Sets of addresses are spans: two parallel sorted sequences, lists or arrays. All set operations are single
passes over them, without an object per entry: a million hosts take well under a second.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from itertools import chain, compress, count, islice, pairwise
from operator import ne, sub
from typing import NamedTuple, TypeVar

from .lanes import as_number, differing_lanes, longs, repeated, widened
from .pool import IPV4, IPV6, Packing, Pool

NONE = 0
ALLOW = 1
DENY = 2

_FEW = 256  # so many spans are searched for in packed numbers
_MERGE_RATIO = 64  # inserting beats sorting if the longest part is so many times the rest
_Numbers = TypeVar("_Numbers", list[int], MutableSequence[int])

LAST4 = (1 << 32) - 1
LAST6 = (1 << 128) - 1


class Spans(NamedTuple):
    """A set of addresses: disjoint, ascending, and never touching each other."""

    starts: MutableSequence[int]
    """First address of each span."""
    ends: MutableSequence[int]
    """Last address of each span; for a single host it equals the start."""

    def wide(self) -> list[int]:
        """Return the indexes of spans with more than one address; most lists have few of them."""
        if self.starts is self.ends:
            return []
        if isinstance(self.starts, array) and isinstance(self.ends, array):
            return differing_lanes(self.starts, self.ends)
        return list(compress(count(), map(ne, self.starts, self.ends)))


class Ranges(NamedTuple):
    """The verdicts in one family's address space. No address is in both sets; the rest is not listed."""

    allow: Spans
    deny: Spans

    @property
    def total(self) -> int:
        """The number of spans in both sets."""
        return len(self.allow.starts) + len(self.deny.starts)


class Blocks(NamedTuple):
    """One family's prefixes as numbers, in any order, with duplicates and overlaps."""

    hosts: Pool
    """Single addresses."""
    starts: Pool
    """First address of each other prefix."""
    ends: Pool
    """Last address of each other prefix."""

    def add_nets(self, nets: Iterable[tuple[int, int]]) -> None:
        """Add prefixes, given as (first address, last address)."""
        pairs = list(nets)
        self.starts.extend([start for start, _end in pairs])
        self.ends.extend([end for _start, end in pairs])


def blocks_of(packing: Packing) -> Blocks:
    """Return empty blocks for a family."""
    return Blocks(Pool(packing), Pool(packing), Pool(packing))


class Prefixes:
    """The prefixes of one kind's lists, allow or deny. `add` unites several lists."""

    def __init__(self) -> None:
        self.v4 = blocks_of(IPV4)
        self.v6 = blocks_of(IPV6)
        self.entries = 0
        """Entries that are active now, with duplicates."""
        self.expired = 0
        """Entries that were left out because they have expired."""
        self.undecided = 0
        """Entries whose expiry could not be checked, because the clock is not synchronised."""
        self.next_expiry: float | None = None
        """Unix time at which the next active entry expires."""
        self.last_expiry = 0.0
        """Unix time at which the last expired entry has expired; 0 if none has."""

    def add(self, other: Prefixes) -> None:
        """Add all prefixes and counts of other lists."""
        for own, others in ((self.v4, other.v4), (self.v6, other.v6)):
            for pool, more in zip(own, others):
                pool.unite(more)
        self.entries += other.entries
        self.expired += other.expired
        self.undecided += other.undecided
        self.last_expiry = max(self.last_expiry, other.last_expiry)
        if other.next_expiry is not None:
            self.note_expiry(other.next_expiry)

    def note_expiry(self, when: float) -> None:
        """Keep the earliest expiry (Unix seconds)."""
        if self.next_expiry is None or when < self.next_expiry:
            self.next_expiry = when


def compile_ranges(allow: Blocks, deny: Blocks, last: int) -> Ranges:
    """Return the ranges for all prefixes of one family; last is its highest address."""
    return combine(unite(allow), unite(deny), last)


def combine(allow: Spans, deny: Spans, last: int) -> Ranges:
    """Return the ranges in which allow beats deny: deny loses every address that is in allow.

    Allow must be united first. Dropping each deny prefix that lies inside one allow prefix would be
    wrong: four allowed /10 cover a denied /8, although none of them does so alone.
    """
    if allow.starts and deny.starts:
        deny = _intersect(deny, _complement(allow, last))
    return Ranges(allow, deny)


def unite(blocks: Blocks) -> Spans:
    """Return the union of the blocks.

    Starts and ends are sorted separately. A new span begins at the n-th start exactly if all n-1
    blocks that start earlier have ended before it, that is, if the (n-1)-th end is below it.
    """
    starts = ends = blocks.hosts.sorted()
    places = blocks.hosts.near() if not blocks.starts else None
    if blocks.starts:
        starts = _merged([starts, blocks.starts.sorted()])
        ends = _merged([ends, blocks.ends.sorted()])
    if places is None:
        gaps = map(sub, islice(starts, 1, None), ends)
        joints = list(compress(count(1), map((2).__gt__, gaps)))
    else:
        joints = [place for place in places if starts[place] - ends[place - 1] < 2]
    if not joints:
        return Spans(starts, ends)
    return Spans(_without(starts, joints), _without(ends, [index - 1 for index in joints]))


def split_off(blocks: Blocks, spans: Spans) -> tuple[Blocks, list[tuple[int, int]]]:
    """Return the blocks that have no address in the spans, and (first, last) of each one that has."""
    if not spans.starts:
        return blocks, []
    hosts = blocks.hosts.sorted()
    touching: list[tuple[int, int]] = []
    for start, end in zip(*spans, strict=True):
        low, high = bisect_left(hosts, start), bisect_right(hosts, end)
        touching += [(host, host) for host in hosts[low:high]]
        del hosts[low:high]
    nets = list(nets_of(blocks))
    touching += [net for net in nets if _overlaps(net, spans)]
    if not touching:
        return blocks, []
    kept = blocks_of(blocks.hosts.packing)
    kept.hosts.extend(hosts)
    kept.add_nets([net for net in nets if not _overlaps(net, spans)])
    return kept, touching


def within(blocks: Blocks, spans: Spans, limit: int) -> tuple[int, list[tuple[int, int]]]:
    """Return how many blocks lie inside the spans as a whole, and (first, last) of up to `limit` of them."""
    if not spans.starts:
        return 0, []
    found = [net for net in nets_of(blocks) if _contains(spans, net)]
    total = len(found)
    del found[limit:]
    if len(spans.starts) <= _FEW and blocks.hosts.is_searchable:
        for start, end in zip(*spans, strict=True):
            number, some = blocks.hosts.between(start, end, limit - len(found))
            total += number
            found += [(host, host) for host in some]
        return total, found
    inside = _members(blocks.hosts.sorted(), spans)
    return total + len(inside), found + [(host, host) for host in inside[: limit - len(found)]]


def nets_of(blocks: Blocks) -> Iterator[tuple[int, int]]:
    """Yield (first address, last address) of each prefix that is not a single address.

    Two prefixes that overlap are nested. So the prefix that began last ends first, as on a stack.
    """
    starts = blocks.starts.sorted()
    begun: list[int] = []
    at = 0
    for end in blocks.ends.sorted():
        while at < len(starts) and starts[at] <= end:
            begun.append(starts[at])
            at += 1
        yield begun.pop(), end


def spans_of(nets: Iterable[tuple[int, int]], packing: Packing) -> Spans:
    """Return the union of prefixes, given as (first address, last address)."""
    blocks = blocks_of(packing)
    blocks.add_nets(nets)
    return unite(blocks)


def _members(numbers: Sequence[int], spans: Spans) -> list[int]:
    """Return the numbers, of a sorted sequence, that are in the spans. The shorter of both is walked."""
    if len(spans.starts) > len(numbers):
        return [number for number in numbers if _contains(spans, (number, number))]
    found: list[int] = []
    for start, end in zip(*spans, strict=True):
        found += numbers[bisect_left(numbers, start) : bisect_right(numbers, end)]
    return found


def _contains(spans: Spans, net: tuple[int, int]) -> bool:
    """Return whether all addresses of the net (first address, last address) are in the spans."""
    at = bisect_right(spans.starts, net[0]) - 1
    return at >= 0 and spans.ends[at] >= net[1]


def _overlaps(net: tuple[int, int], spans: Spans) -> bool:
    """Return whether the net (first address, last address) has an address in the spans."""
    at = bisect_right(spans.starts, net[1]) - 1
    return at >= 0 and spans.ends[at] >= net[0]


def cut(start: int, end: int, bits: int) -> Iterator[tuple[int, int]]:
    """Yield the fewest prefixes that cover exactly start to end, as (address, length).

    bits: the family's address size, 32 or 128.
    """
    while start <= end:
        fits = (end - start + 1).bit_length() - 1
        aligned = (start & -start).bit_length() - 1 if start else bits
        free = min(fits, aligned)
        yield start, bits - free
        start += 1 << free


def _without(numbers: _Numbers, indexes: list[int]) -> _Numbers:
    """Return the numbers without those at the indexes; most lists have few such indexes."""
    found = numbers[:0]
    begin = 0
    for index in indexes:
        found += numbers[begin:index]
        begin = index + 1
    found += numbers[begin:]
    return found


def _merged(parts: Sequence[_Numbers]) -> _Numbers:
    """Return the numbers of several sorted sequences, sorted.

    Most lists have many hosts and few networks: then the few numbers are inserted into the longest
    sequence. If the other sequences are empty, the longest one itself is returned, not a copy.
    """
    place = max(range(len(parts)), key=lambda at: len(parts[at]))
    longest = parts[place]
    few = sorted(chain(*parts[:place], *parts[place + 1 :]))
    if not few:
        return longest
    if len(few) * _MERGE_RATIO > len(longest):
        return sorted(chain(longest, few))
    found = longest[:0]
    begin = 0
    for number in few:
        at = bisect_left(longest, number, begin)
        found += longest[begin:at]
        found.append(number)
        begin = at
    found += longest[begin:]
    return found


def _complement(spans: Spans, last: int) -> Spans:
    """Return all addresses from 0 to last that are not in the spans."""
    starts = [0, *(end + 1 for end in spans.ends)]
    ends = [*(start - 1 for start in spans.starts), last]
    if ends[0] < 0:
        del starts[0], ends[0]
    if starts and starts[-1] > last:
        del starts[-1], ends[-1]
    return Spans(starts, ends)


def _intersect(one: Spans, other: Spans) -> Spans:
    """Return the addresses that are in both.

    At most two spans overlap at any address. So an overlap begins at the n-th of all starts exactly if
    the (n-1)-th of all ends is not below it, and the overlap ends there.
    """
    starts = sorted(chain(one.starts, other.starts))
    ends = sorted(chain(one.ends, other.ends))
    return Spans(
        [start for start, end in zip(islice(starts, 1, None), ends) if start <= end],
        [end for start, end in zip(islice(starts, 1, None), ends) if start <= end],
    )


def runs(ranges: Ranges, last: int) -> Iterator[tuple[int, int]]:
    """Yield (start, verdict) pairs that cover the address space from 0 to last.

    They ascend; neighbouring verdicts differ.
    """
    pieces = [(start, end, ALLOW) for start, end in zip(*ranges.allow, strict=True)]
    pieces += [(start, end, DENY) for start, end in zip(*ranges.deny, strict=True)]
    pieces.sort()
    free = 0
    for start, end, verdict in pieces:
        if start > free:
            yield free, NONE
        yield start, verdict
        free = end + 1
    if free <= last:
        yield free, NONE


def start_words(ranges: Ranges, last: int) -> MutableSequence[int]:
    """Return the ranges as start words, ascending: `address << 4 | after << 2 | verdict`.

    `verdict` holds at the address itself, `after` from the next address up to the next start. So a
    single host needs one start word. In any other start word both verdicts are equal.
    """
    parts: list[MutableSequence[int]] = []
    for verdict, spans in ((ALLOW, ranges.allow), (DENY, ranges.deny)):
        spread = verdict << 2 | verdict
        own = _words(spans.starts, verdict, last)
        parts.append(own)
        wide = spans.wide()
        for index in wide:
            own[index] |= spread
        ends = [spans.ends[index] for index in wide]
        parts.append([(end + 1) << 4 for end in ends if end != last])
    parts = [part for part in parts if part]
    words: MutableSequence[int] = _merged(parts) if parts else []
    if ranges.allow.starts and ranges.deny.starts:
        # Where allow and deny touch, the start of one replaces the end of the other.
        words = [word for word, later in pairwise((*words, -1)) if word >> 4 != later >> 4]
    return words


def words_of(runs: Sequence[tuple[int, int]], last: int) -> Iterator[int]:
    """Yield the start words of runs as `runs` yields them; last: where the last one ends.

    A first run without a verdict has no start word.
    """
    is_single = True
    for (start, verdict), (following, _verdict) in pairwise([*runs, (last + 1, NONE)]):
        if verdict or not is_single:
            is_single = verdict != NONE and following == start + 1
            yield start << 4 | (verdict if is_single else verdict * 5)
        else:
            is_single = False


def _words(starts: Sequence[int], verdict: int, last: int) -> MutableSequence[int]:
    """Return a start word for each start, as if all were single hosts."""
    if last > LAST4:
        return [start << 4 | verdict for start in starts]
    size = len(starts)
    lanes = as_number(widened(array("I", starts)))
    return longs(lanes << 4 | repeated(verdict, 8, size), size)


def ranges_of(words: Iterable[int], last: int) -> Ranges:
    """Return the ranges that start words describe: the inverse of `start_words`."""
    found: tuple[Spans, Spans, Spans] = (Spans([], []), Spans([], []), Spans([], []))
    state = NONE
    for word in words:
        address = word >> 4
        if not state and word & 15 in (ALLOW, DENY):
            # The fast path: in long lists most starts are single hosts.
            found[word & 3].starts.append(address)
            found[word & 3].ends.append(address)
            continue
        verdict = word & 3
        after = word >> 2 & 3
        if verdict != state:
            if state:
                found[state].ends.append(address - 1)
            if verdict:
                found[verdict].starts.append(address)
        if after != verdict:
            if verdict:
                found[verdict].ends.append(address)
            if after:
                found[after].starts.append(address + 1)
        state = after
    if state:
        found[state].ends.append(last)
    return Ranges(found[ALLOW], found[DENY])
