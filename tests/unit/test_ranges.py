# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prefixes → ranges with a verdict, against brute force over a small address space."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from random import Random

import pytest
from unit.comparing import as_lists

from packetwatch_core._tables.pool import IPV4, IPV6, Packing
from packetwatch_core._tables.ranges import (
    ALLOW,
    DENY,
    LAST4,
    LAST6,
    NONE,
    Blocks,
    Prefixes,
    Ranges,
    Spans,
    blocks_of,
    combine,
    compile_ranges,
    cut,
    nets_of,
    ranges_of,
    runs,
    split_off,
    start_words,
    unite,
)

SMALL = 63
"""Last address of a small address space, in which tests can check every address."""


def blocks(
    hosts: Iterable[int], starts: Iterable[int], ends: Iterable[int], packing: Packing = IPV6
) -> Blocks:
    found = blocks_of(packing)
    for pool, numbers in zip(found, (hosts, starts, ends), strict=True):
        pool.extend(numbers)
    return found


def random_blocks(random: Random, count: int, hosts_only: bool = False) -> Blocks:
    """Return blocks that are aligned like prefixes, some of them nested or duplicate."""
    found = blocks_of(IPV6)
    for _number in range(count):
        size = 1 << random.choice((0, 0, 0, 1, 2, 3, 4, 5, 6))
        start = random.randrange(SMALL + 1) // size * size
        if size == 1 or hosts_only:
            found.hosts.extend([start])
        else:
            found.starts.extend([start])
            found.ends.extend([start + size - 1])
    return found


def addresses(given: Blocks) -> set[int]:
    found = set(given.hosts)
    for start, end in zip(given.starts, given.ends, strict=True):
        found |= set(range(start, end + 1))
    return found


def expand(spans: Spans) -> set[int]:
    return addresses(blocks([], spans.starts, spans.ends))


def check_form(spans: Spans) -> None:
    """Assert that the spans are disjoint, ascending, and never adjacent."""
    assert len(spans.starts) == len(spans.ends)
    assert all(start <= end for start, end in zip(*spans, strict=True))
    assert all(
        later - end > 1 for later, end in zip(spans.starts[1:], spans.ends[:-1], strict=True)
    )


def test_union_of_random_blocks() -> None:
    random = Random(1)
    for number in range(2000):
        given = random_blocks(random, random.randint(0, 12), hosts_only=number % 3 == 0)
        spans = unite(given)
        check_form(spans)
        assert expand(spans) == addresses(given)


def test_union_is_the_same_in_both_packings() -> None:
    random = Random(2)
    for count in (0, 1, 5, 50):
        given = random_blocks(random, count)
        assert as_lists(unite(blocks(*given, IPV4))) == as_lists(unite(given))


def test_allow_beats_deny_in_every_random_nest() -> None:
    random = Random(3)
    for _number in range(3000):
        allow = random_blocks(random, random.randint(0, 8))
        deny = random_blocks(random, random.randint(0, 8))
        ranges = compile_ranges(allow, deny, SMALL)
        check_form(ranges.allow)
        check_form(ranges.deny)
        assert expand(ranges.allow) == addresses(allow)
        assert expand(ranges.deny) == addresses(deny) - addresses(allow)


def test_runs_cover_the_space_from_zero_and_neighbours_differ() -> None:
    random = Random(4)
    for _number in range(1000):
        allow = random_blocks(random, random.randint(0, 6))
        deny = random_blocks(random, random.randint(0, 6))
        run = list(runs(compile_ranges(allow, deny, SMALL), SMALL))
        assert run[0][0] == 0
        verdicts = []
        for (start, verdict), (end, later) in zip(run, [*run[1:], (SMALL + 1, -1)], strict=True):
            assert start < end
            assert verdict != later
            verdicts += [verdict] * (end - start)
        allowed, denied = addresses(allow), addresses(deny)
        assert verdicts == [
            ALLOW if address in allowed else DENY if address in denied else NONE
            for address in range(SMALL + 1)
        ]


def test_nothing_listed_is_one_range() -> None:
    nothing = compile_ranges(blocks([], [], []), blocks([], [], []), LAST4)
    assert list(runs(nothing, LAST4)) == [(0, NONE)]
    assert nothing.total == 0
    assert start_words(nothing, LAST4) == []


@pytest.mark.parametrize("last", [LAST4, LAST6])
def test_everything_listed_is_one_range(last: int) -> None:
    everything = blocks([], [0], [last])
    assert list(runs(compile_ranges(blocks([], [], []), everything, last), last)) == [(0, DENY)]
    assert list(runs(compile_ranges(everything, everything, last), last)) == [(0, ALLOW)]


@pytest.mark.parametrize("last", [LAST4, LAST6])
def test_first_and_last_address_of_the_space(last: int) -> None:
    ranges = compile_ranges(blocks([0], [], []), blocks([last], [], []), last)
    assert list(runs(ranges, last)) == [(0, ALLOW), (1, NONE), (last, DENY)]
    hole = compile_ranges(blocks([0, last], [], []), blocks([], [0], [last]), last)
    assert list(runs(hole, last)) == [(0, ALLOW), (1, DENY), (last, ALLOW)]


def test_four_allowed_tenths_cover_a_denied_ninth() -> None:
    quarter = 1 << 22
    starts = [(10 << 24) + number * quarter for number in range(4)]
    allow = blocks([], starts, [start + quarter - 1 for start in starts])
    deny = blocks([], [10 << 24], [(10 << 24) + 2 * quarter - 1])
    ranges = compile_ranges(allow, deny, LAST4)
    assert ranges == Ranges(Spans([10 << 24], [(11 << 24) - 1]), Spans([], []))


def test_neighbouring_hosts_are_one_range() -> None:
    assert unite(blocks([5, 3, 4, 4, 9], [], [])) == Spans([3, 9], [5, 9])
    assert unite(blocks([3], [4], [7])) == Spans([3], [7])


def test_start_words_are_ascending_and_read_back() -> None:
    random = Random(5)
    for _number in range(3000):
        allow = random_blocks(random, random.randint(0, 6))
        deny = random_blocks(random, random.randint(0, 6))
        ranges = compile_ranges(allow, deny, SMALL)
        words = start_words(ranges, SMALL)
        starts = [word >> 4 for word in words]
        assert starts == sorted(set(starts))
        assert ranges_of(words, SMALL) == ranges


def test_single_host_is_one_start() -> None:
    ranges = combine(Spans([], []), Spans([7, 9], [7, 10]), LAST4)
    assert start_words(ranges, LAST4) == [7 << 4 | DENY, 9 << 4 | DENY << 2 | DENY, 11 << 4]


def test_prefixes_of_two_lists_add_up() -> None:
    one, other = Prefixes(), Prefixes()
    one.entries, one.next_expiry = 1, 7.0
    other.entries, other.expired, other.undecided = 2, 3, 1
    one.v4.hosts.extend([7])
    other.v4.hosts.extend([8])
    other.v6.starts.extend([0])
    other.v6.ends.extend([LAST6])
    one.add(other)
    other.add(one)
    assert (one.entries, one.expired, one.undecided, one.next_expiry) == (3, 3, 1, 7.0)
    assert other.next_expiry == 7.0
    assert list(one.v4.hosts) == [7, 8]
    assert list(one.v6.ends) == [LAST6]


def test_blocks_are_split_by_whether_they_touch() -> None:
    random = Random(7)
    for _round in range(300):
        given, others = random_blocks(random, 12), unite(random_blocks(random, 3))
        taken = expand(others)
        kept, touching = split_off(given, others)
        pairs = everything(given)
        expected = [pair for pair in pairs if taken.isdisjoint(range(pair[0], pair[1] + 1))]
        assert everything(kept) == expected
        assert sorted([*everything(kept), *touching]) == pairs


def everything(given: Blocks) -> list[tuple[int, int]]:
    return sorted([*((host, host) for host in given.hosts), *nets_of(given)])


def test_prefixes_are_found_again_from_their_ends() -> None:
    random = Random(11)
    for _round in range(300):
        pairs = []
        for _number in range(random.randrange(12)):
            size = 1 << random.randrange(7)
            start = random.randrange(SMALL + 1) // size * size
            pairs.append((start, start + size - 1))
        found = blocks_of(IPV4)
        found.add_nets(pairs)
        assert sorted(nets_of(found)) == sorted(pairs)


def test_a_range_is_cut_into_the_fewest_prefixes() -> None:
    for start in range(SMALL + 1):
        for end in range(start, SMALL + 1):
            expected = ipaddress.summarize_address_range(
                ipaddress.IPv4Address(start), ipaddress.IPv4Address(end)
            )
            assert list(cut(start, end, 32)) == [
                (int(net.network_address), net.prefixlen) for net in expected
            ]
    assert list(cut(0, LAST4, 32)) == [(0, 0)]
    assert list(cut(0, LAST6, 128)) == [(0, 0)]
