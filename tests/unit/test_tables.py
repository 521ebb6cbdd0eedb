# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tables of docs/tables.md against brute force: every verdict, every limit of the format."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from itertools import chain, pairwise
from random import Random

import pytest
from unit.comparing import all_as_lists

from packetwatch_core._active import patch
from packetwatch_core._active.generation import Areas
from packetwatch_core._base.address import BITS, Prefix
from packetwatch_core._base.errors import TooLarge
from packetwatch_core._kernel import abi
from packetwatch_core._tables import area as area_module
from packetwatch_core._tables import ipv4, ipv4_halves
from packetwatch_core._tables import lines as lines_module
from packetwatch_core._tables.area import Area
from packetwatch_core._tables.ranges import (
    ALLOW,
    DENY,
    LAST4,
    LAST6,
    NONE,
    Prefixes,
    Ranges,
    Spans,
    compile_ranges,
    runs,
)
from packetwatch_core._tables.reader import lookup, read_ranges, verdicts
from packetwatch_core._tables.tables import Tables, compile_tables

NOTHING = Ranges(Spans([], []), Spans([], []))
LAST = {4: LAST4, 6: LAST6}
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def block(family: int, value: int, length: int) -> Prefix:
    """Return the prefix of this length that holds an address."""
    shift = BITS[family] - length
    return Prefix(family, value >> shift << shift, length)


def host(family: int, value: int) -> Prefix:
    return Prefix(family, value, BITS[family])


def prefixes(items: Iterable[Prefix]) -> Prefixes:
    found = Prefixes()
    for item in items:
        blocks = found.v4 if item.family == 4 else found.v6
        if item.is_host:
            blocks.hosts.extend([item.value])
        else:
            blocks.starts.extend([item.value])
            blocks.ends.extend([item.last])
        found.entries += 1
    return found


def build(allow: Iterable[Prefix], deny: Iterable[Prefix]) -> Tables:
    return compile_tables(prefixes(allow), prefixes(deny))


def verdict(allow: list[Prefix], deny: list[Prefix], address: int) -> int:
    """Return the expected verdict, from the definition: allow beats deny."""
    for kind, items in ((ALLOW, allow), (DENY, deny)):
        if any(item.value <= address <= item.last for item in items):
            return kind
    return NONE


def edges(items: Iterable[Prefix], last: int) -> set[int]:
    """Return the addresses at and next to every border, and both ends of the address space."""
    found = {0, 1, last - 1, last}
    for item in items:
        for border in (item.value, item.last):
            found |= {border + step for step in (-1, 0, 1)}
    return {address for address in found if 0 <= address <= last}


def check(family: int, allow: list[Prefix], deny: list[Prefix], random: Random) -> Tables:
    """Check tables against the definition, at all borders and at random addresses."""
    tables = build(allow, deny)
    addresses = edges(allow + deny, LAST[family])
    addresses |= {random.getrandbits(BITS[family]) for _number in range(20)}
    addresses |= {
        random.randint(item.value, item.last)
        for item in (allow + deny)[:50]
        for _number in range(2)
    }
    wrong = [
        address
        for address in addresses
        if lookup(tables, family, address) != verdict(allow, deny, address)
    ]
    assert wrong == []
    check_read_back(tables, allow, deny)
    check_parts(tables, family, sorted(addresses), random)
    return tables


def check_read_back(tables: Tables, allow: Iterable[Prefix], deny: Iterable[Prefix]) -> None:
    """Check that the tables hold exactly the ranges from which they were made."""
    allowed, denied = prefixes(allow), prefixes(deny)
    expected4 = compile_ranges(allowed.v4, denied.v4, LAST4)
    expected6 = compile_ranges(allowed.v6, denied.v6, LAST6)
    found = tuple(map(all_as_lists, read_ranges(tables)))
    assert found == (all_as_lists(expected4), all_as_lists(expected6))
    assert (tables.ranges4, tables.ranges6) == (expected4.total, expected6.total)


def check_parts(tables: Tables, family: int, addresses: list[int], random: Random) -> None:
    """Check the verdicts of parts of the address space against the ranges in them."""
    run = [*runs(read_ranges(tables)[family == 6], LAST[family]), (LAST[family] + 1, NONE)]
    pairs = [random.choices(addresses, k=2) for _part in range(5)]
    parts = [(min(pair), max(pair)) for pair in pairs]
    expected = [
        {
            verdict
            for (begin, verdict), (end, _next) in pairwise(run)
            if begin <= last and first < end
        }
        for first, last in parts
    ]
    assert verdicts(tables, family, parts) == expected


def hosts_only(tables: Tables, family: int, values: list[int]) -> None:
    """Check tables of denied hosts against a set."""
    listed = set(values)
    for value in values:
        assert lookup(tables, family, value) == DENY
        for beside in (value - 1, value + 1):
            if 0 <= beside <= LAST[family]:
                assert (lookup(tables, family, beside) == DENY) == (beside in listed)
    check_read_back(tables, [], [host(family, value) for value in values])


def test_no_entries_have_no_areas() -> None:
    tables = build([], [])
    assert tables == Tables()
    assert tables.pages == 0
    assert lookup(tables, 4, 1) == lookup(tables, 6, 1) == NONE
    assert read_ranges(tables) == (NOTHING, NOTHING)


@FAMILIES
def test_one_family_leaves_the_other_without_area(family: int) -> None:
    tables = build([], [host(family, 9)])
    areas = {4: tables.v4, 6: tables.v6}
    assert areas.pop(family).pages == 1
    assert list(areas.values()) == [Area()]


@FAMILIES
def test_ten_entries_need_one_page(family: int) -> None:
    random = Random(1)
    tables = build([], [host(family, random.getrandbits(BITS[family])) for _number in range(10)])
    assert tables.pages == 1
    assert tables.deny_entries == 10


@FAMILIES
def test_every_prefix_length_alone(family: int) -> None:
    random = Random(2)
    for length in range(BITS[family] + 1):
        item = block(family, random.getrandbits(BITS[family]), length)
        check(family, [], [item], random)
        check(family, [item], [], random)


@FAMILIES
def test_everything_denied_but_one_host(family: int) -> None:
    random = Random(3)
    everything = block(family, 0, 0)
    for value in (0, LAST[family], LAST[family] // 3):
        check(family, [host(family, value)], [everything], random)
        check(family, [everything], [host(family, value)], random)


@FAMILIES
def test_first_and_last_address(family: int) -> None:
    random = Random(4)
    first, last = host(family, 0), host(family, LAST[family])
    check(family, [], [first, last], random)
    check(family, [first], [last], random)
    check(family, [last], [block(family, LAST[family], BITS[family] - 1), first], random)


@FAMILIES
def test_four_allowed_quarters_beat_the_denied_half_around_two_of_them(family: int) -> None:
    quarters = [block(family, part << (BITS[family] - 10), 10) for part in range(4)]
    tables = check(family, quarters, [block(family, 0, 9)], Random(5))
    assert lookup(tables, family, 0) == ALLOW


@FAMILIES
def test_nests_of_allow_and_deny_at_every_length(family: int) -> None:
    random = Random(6)
    for _round in range(60):
        centre = random.getrandbits(BITS[family])
        lengths = sorted(random.sample(range(BITS[family] + 1), random.randint(2, 12)))
        kinds: tuple[list[Prefix], list[Prefix]] = ([], [])
        for length in lengths:
            kinds[random.getrandbits(1)].append(block(family, centre, length))
        check(family, *kinds, random)


@FAMILIES
def test_random_crowds_around_few_centres(family: int) -> None:
    random = Random(7)
    bits = BITS[family]
    for size in (5, 20, 80, 250):
        for spread in (6, 14, 40, 70, 120):
            centres = [random.getrandbits(bits) for _number in range(3)]
            kinds: tuple[list[Prefix], list[Prefix]] = ([], [])
            for _number in range(size):
                value = random.choice(centres) ^ random.getrandbits(min(spread, bits))
                length = random.choice((bits, bits, bits, random.randint(bits - spread, bits)))
                kinds[random.random() < 0.7].append(block(family, value, max(length, 0)))
            check(family, *kinds, random)


@FAMILIES
def test_borders_of_allow_and_deny_that_touch(family: int) -> None:
    random = Random(8)
    middle = 3 << (BITS[family] - 8)
    for length in range(8, BITS[family] + 1, 3):
        below = block(family, middle - 1, length)
        above = block(family, middle, length)
        check(family, [below], [above], random)
        check(family, [above], [below], random)
        check(family, [above], [below, host(family, above.last + 1)], random)


@FAMILIES
def test_every_other_address_of_a_block(family: int) -> None:
    base = 77 << (BITS[family] - 16)
    values = [base + step for step in range(0, 4096, 2)]
    hosts_only(build([], [host(family, value) for value in values]), family, values)


@FAMILIES
def test_dense_block_given_as_hosts_becomes_one_range(family: int) -> None:
    base = 5 << (BITS[family] - 12)
    tables = build([], [host(family, base + step) for step in range(4096)])
    assert tables.ranges4 + tables.ranges6 == 1
    assert tables.pages == 1
    check_read_back(tables, [], [block(family, base, BITS[family] - 12)])


def size(area: Area) -> int:
    """The area's bytes."""
    return sum(map(len, chain.from_iterable(area.each_page())))


class Shape:
    """Walks an area and checks the limits of the format on the way."""

    def __init__(self, area: Area) -> None:
        self.words = area.words
        self.depths: list[int] = []
        self.seen: set[int] = set()

    def visit(self, line: int, depth: int) -> None:
        assert line not in self.seen
        self.seen.add(line)
        head, shape = self.words[line * 16 : line * 16 + 2]
        keys = self.words[line * 16 + 1 : line * 16 + 16].tolist()
        below = self.below(head, shape, keys)
        if not below:
            self.depths.append(depth)
        for number in below:
            self.visit(number, depth + 1)

    def below(self, head: int, shape: int, keys: list[int]) -> range:
        raise NotImplementedError

    @property
    def lines(self) -> int:
        """The number of lines, including the fill of the last page."""
        return len(self.words) // 16


class Shape4(Shape):
    """An IPv4 area."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables.v4)
        lines = range(1 << 32 - (tables.v4_shift & 31))
        self.halved = bool(tables.v4_shift & ipv4_halves.HALVES)
        if self.halved:
            self.halves(range(2 * len(lines)), tables.v4_shift - ipv4_halves.HALVES - 1)
        else:
            for line in lines:
                self.visit(line, 1)
        assert max(self.depths) <= 14

    def halves(self, numbers: range, bits: int) -> None:
        reader = ipv4_halves.Halves(self.words)
        shared: Counter[int] = Counter()
        for half in numbers:
            line = reader.line_of(half)
            if line is None:
                verdict, hosts = reader.hosts_of(half)
                assert hosts == sorted(set(hosts)) and len(hosts) <= 15
                assert {low >> bits for low in hosts} <= {half & (1 << 15 - bits) - 1}
                assert verdict in (ALLOW, DENY) if any(hosts) else verdict in (NONE, ALLOW, DENY)
                self.depths.append(1)
            else:
                shared[line] += 1
        for line, count in shared.items():
            assert count == 1 or self.words[line * 16 + 1] == lines_module.NO_KEY
            self.visit(line, 2)

    def below(self, head: int, shape: int, keys: list[int]) -> range:
        assert head >> 31 == 0
        if head & 7 == 7:
            return range(head >> 4, (head >> 4) + (shape >> 8) + 1)
        assert keys == sorted(keys)
        real = [key for key in keys if key < lines_module.NO_KEY]
        assert set(keys[len(real) :]) <= {lines_module.NO_KEY}
        if head & 7 == 3:
            return range(head >> 4, (head >> 4) + len(real) + 1)
        assert head in (0, 5, 10)
        return range(0)


class Shape6(Shape):
    """The tree of an IPv6 area."""

    def __init__(self, tables: Tables) -> None:
        self.records = 0
        assert not tables.v6_hosts.is_all
        super().__init__(tables.v6)
        self.visit(0, 1)
        assert max(self.depths) <= 43

    def below(self, head: int, shape: int, keys: list[int]) -> range:
        if head & 7 == 7:
            return range(head >> 4, (head >> 4) + (1 << (shape & 63)))
        assert head >> 31 == 0
        assert head & 15 in (0, 5, 10)
        assert keys == sorted(keys)
        real = [key for key in keys if key < lines_module.NO_KEY]
        assert len({key >> 4 for key in real}) == len(real)
        if any(key & 3 == 3 for key in real):
            self.records += len(real)
            assert (head >> 4) + len(real) <= len(self.words) // 4
        return range(0)


def test_a_line_holds_fifteen_ipv4_starts() -> None:
    for count in (15, 16, 240, 241):
        values = [0x0A000001 + 2 * step for step in range(count)]
        tables = build([], [host(4, value) for value in values])
        hosts_only(tables, 4, values)
        assert max(Shape4(tables).depths) == (1 if count == 15 else 2 if count <= 240 else 3)


@pytest.mark.slow
def test_a_million_random_ipv4_hosts_are_half_a_line_away_and_take_five_bytes_each() -> None:
    random = Random(9)
    values = random.sample(range(1 << 32), 1_000_000)
    items = Prefixes()
    items.v4.hosts.extend(values)
    tables = compile_tables(Prefixes(), items)
    assert size(tables.v4) < 5_000_000
    shape = Shape4(tables)
    assert sum(depth == 1 for depth in shape.depths) > 0.98 * len(shape.depths)
    assert {lookup(tables, 4, value) for value in values[:3000]} == {DENY}


@pytest.mark.parametrize(
    "width", [13, *(pytest.param(width, marks=pytest.mark.slow) for width in (16, 18))]
)
def test_top_tables_as_long_lists_have_them(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From width 16 on the lines are halves, which hold hosts of one verdict, or lead to a line."""
    monkeypatch.setattr(ipv4, "MIN_TOP_WIDTH", width)
    monkeypatch.setattr(ipv4_halves, "_MAIN_RATIO", 0)
    random = Random(width)
    base = random.getrandbits(32) >> 17 << 17
    near = [base | random.getrandbits(17) for _number in range(60)]
    hosts = [host(4, value) for value in near]
    nets = [block(4, value, random.randint(8, 31)) for value in near[:20]]
    for allow, deny in (
        ([], hosts),
        (hosts[:30], hosts[15:]),
        (nets[:3], hosts),
        (hosts, nets),
        ([], [block(4, 0, 0)]),
        ([host(4, 0), host(4, LAST[4])], [block(4, base, 12), *hosts[:5]]),
        ([], [host(4, base + 2 * step) for step in range(400)]),
        ([], [host(4, base + 80 * step) for step in range(400)]),
    ):
        assert Shape4(check(4, allow, deny, random)).halved == (width > 15)


def test_hosts_of_both_verdicts_have_no_halves() -> None:
    """Most halves would lead to a line, and take more memory than lines alone."""
    random = Random(19)
    values = sorted(random.sample(range(1 << 32), 300_000))
    for other, halved in ((DENY, True), (ALLOW, False)):
        words = [value << 4 | random.choice((DENY, other)) for value in values]
        assert bool(ipv4.build4(words)[1] & ipv4_halves.HALVES) == halved


@pytest.mark.parametrize(
    ("count", "nets", "halved"),
    [
        (3, 1, False),
        (900, 40, False),
        (9000, 900, False),
        pytest.param(330_000, 0, True, marks=pytest.mark.slow),
        pytest.param(330_000, 2000, True, marks=pytest.mark.slow),
    ],
)
def test_an_edited_area_is_the_area_of_the_edited_list(
    count: int, nets: int, halved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts are added, removed and given the other verdict."""
    monkeypatch.setattr(patch, "_FEW", 0)
    random = Random(count)
    denied = {random.randrange(1, LAST4) for _number in range(count)}
    wide = [block(4, random.getrandbits(32), random.randrange(12, 31)) for _number in range(nets)]
    allowed = set(random.sample(sorted(denied), min(count // 100, 40)))
    tables = build(
        [host(4, value) for value in allowed], [*wide, *(host(4, value) for value in denied)]
    )
    assert bool(tables.v4_shift & ipv4_halves.HALVES) == halved
    edits = 0
    near_others = [
        value + 1000 for value in (*sorted(allowed)[:3], *(net.last for net in wide[:3]))
    ]
    some = [random.getrandbits(32) for _number in range(4)]
    for value in (*random.sample(sorted(denied), 3), *some, *near_others):
        near = [lookup(tables, 4, value + step) for step in (-1, 0, 1)]
        if near[0] or near[2]:
            continue
        for wanted in {NONE, ALLOW, DENY} - {near[1]}:
            done = edited(tables, value, wanted)
            if done is None or done.shape is None:
                continue
            edits += 1
            allow = allowed - {value} | ({value} if wanted == ALLOW else set())
            deny = denied - {value} | ({value} if wanted == DENY else set())
            whole = build(
                [host(4, item) for item in allow], [*wide, *(host(4, item) for item in deny)]
            )
            assert done.areas.v4 == whole.v4
            assert done.shape[:3] == whole.shape4[:3]
            assert whole.shape4.used - 2 <= done.shape.used <= whole.shape4.used
    assert edits >= 3


def edited(tables: Tables, value: int, wanted: int) -> patch.Done | None:
    """Return the tables with another verdict for an IPv4 address, or None."""
    areas = Areas.of(tables, b"", 0, 0)
    return patch.edit4(areas, tables.shape4, host(4, value), lambda _runs: [(value, wanted)])


@pytest.mark.parametrize("count", [8, 9 * 256 - 1, 9 * 256, 9 * 512 - 1, 9 * 512])
def test_an_edit_that_needs_another_width_is_refused(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch, "_FEW", 0)
    random = Random(count)
    values = {random.randrange(1, LAST4) for _number in range(count)}
    tables = build([], [host(4, value) for value in values])
    for value in (*sorted(values)[:2], *(random.randrange(1, LAST4) for _number in range(8))):
        former = lookup(tables, 4, value)
        done = edited(tables, value, DENY - former)
        whole = build([], [host(4, item) for item in values ^ {value}])
        if done:
            assert (done.areas.v4, tables.v4_shift) == (whole.v4, whole.v4_shift)
        else:
            assert whole.v4_shift != tables.v4_shift


@pytest.mark.parametrize("count", [1, 1000, 100_000])
def test_the_filter_decides_for_most_unlisted_addresses(count: int) -> None:
    random = Random(count)
    values = [random.getrandbits(32) for _number in range(count)]
    area, shift, _shape = ipv4.build4([value << 4 | DENY for value in sorted(set(values))])
    blocks = {value >> shift - 6 for value in values}
    assert blocks_in(area) == blocks
    assert len(blocks) < (1 << 32 - shift) * 64 * 0.15


def blocks_in(area: Area) -> set[int]:
    numbers = memoryview(area.filter).cast("Q")
    return {
        64 * line + bit
        for line, number in enumerate(numbers)
        for bit in range(64)
        if number >> bit & 1
    }


@pytest.mark.parametrize("width", [8, 13, 15])
def test_the_filter_has_exactly_the_blocks_of_ranges(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipv4, "MIN_TOP_WIDTH", width)
    for first, last in (
        (0, LAST[4]),
        (0, 0),
        (LAST[4], LAST[4]),
        (0x0A000000, 0x0AFFFFFF),
        (0xC0000201, 0xC0000202),
        (0x09FFFFFF, 0x0A000000),
    ):
        words = [first << 4 | DENY * 5, *([last + 1 << 4] if last < LAST[4] else [])]
        area, shift, _shape = ipv4.build4(words)
        assert blocks_in(area) == {*range(first >> shift - 6, (last >> shift - 6) + 1)}


def test_lookups_go_by_the_filter() -> None:
    tables = build([], [host(4, 9), host(6, 9)])
    assert lookup(tables, 4, 9) == lookup(tables, 6, 9) == DENY
    blind = tables._replace(
        v4=tables.v4._replace(filter=bytes(len(tables.v4.filter))),
        v6=tables.v6._replace(filter=bytes(len(tables.v6.filter))),
    )
    assert lookup(blind, 4, 9) == lookup(blind, 6, 9) == NONE


@FAMILIES
def test_pages_can_be_put_together_again(family: int) -> None:
    random = Random(18)
    tables = build(
        [], [host(family, random.getrandbits(BITS[family])) for _number in range(30_000)]
    )
    area = tables.v4 if family == 4 else tables.v6
    assert area.pages > 2
    pages = list(map(b"".join, area.each_page()))
    assert {len(page) for page in pages} == {abi.PAGE}
    assert Area.from_pages(pages) == area


def test_crowds_in_one_8_get_tables_of_their_own() -> None:
    random = Random(10)
    values = [0x0A000000 | random.getrandbits(24) for _number in range(60_000)]
    tables = build([], [host(4, value) for value in values])
    assert max(Shape4(tables).depths) <= 3
    hosts_only(tables, 4, sorted(set(values)))


@FAMILIES
def test_lists_that_offsets_cannot_reach_are_refused(
    family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(area_module, "MAX_LINES", 1200)
    shift = BITS[family] - 30
    build([], [host(family, number << shift) for number in range(40)])
    with pytest.raises(TooLarge, match="shorter lists"):
        build([], [host(family, number << shift) for number in range(60_000)])


def test_a_line_holds_fifteen_ipv6_starts() -> None:
    for count in (7, 8):
        nets = [block(6, 0x20010DB8 << 96 | step << 70, 100) for step in range(count)]
        tables = build([], nets)
        check(6, [], nets, Random(count))
        assert set(Shape6(tables).depths) == ({1} if count == 7 else {2})


def test_prefixes_up_to_64_that_are_evenly_spread_need_no_records() -> None:
    random = Random(16)
    nets = [block(6, random.getrandbits(128), random.randint(25, 32)) for _number in range(4000)]
    tables = build([], nets)
    assert not Shape6(tables).records
    assert size(tables.v6) < 19 * 2 * 4000
    check(6, [], nets[:300], random)


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_million_ipv6_hosts_are_one_bucket_away_and_take_29_bytes_each(clustered: bool) -> None:
    random = Random(17)
    items = Prefixes()
    nets = [0b001 << 93 | random.getrandbits(93) for _number in range(5000)]
    values = [
        random.choice(nets) << 32 | random.getrandbits(32)
        if clustered
        else 0b001 << 125 | random.getrandbits(125)
        for _number in range(1_000_000)
    ]
    items.v6.hosts.extend(values)
    tables = compile_tables(Prefixes(), items)
    assert size(tables.v6) < 29_000_000
    assert tables.v6_hosts.is_all
    assert {lookup(tables, 6, value) for value in values[:3000]} == {DENY}
    listed = set(values)
    beside = [value ^ 1 for value in values[:3000] if value ^ 1 not in listed]
    assert {lookup(tables, 6, value) for value in beside} == {NONE}


@pytest.mark.parametrize("span", [128, 64, 40, 20, 16])
@pytest.mark.parametrize("verdict", ["allow", "deny"])
def test_hosts_alone_have_the_same_tables_packed_or_not(
    span: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(span)
    high = random.getrandbits(128) >> span << span
    hosts, nothing = Prefixes(), Prefixes()
    hosts.v6.hosts.extend({high | 2 * random.getrandbits(span - 1) for _number in range(30_000)})
    pair = (hosts, nothing) if verdict == "allow" else (nothing, hosts)
    tables = compile_tables(*pair)
    assert tables.ranges6 == len(hosts.v6.hosts)
    # If most hosts are near each other, it takes too long to find out whether two of them are one range.
    assert (hosts.v6.hosts.isolated() is None) == (span < 128)
    # If the C library cannot sort them, they do not stay packed.
    monkeypatch.setattr(sys, "platform", "darwin")
    hosts.v6.hosts.extend([])
    assert compile_tables(*pair) == tables
    assert hosts.v6.hosts.isolated() is None


@pytest.mark.parametrize("step", [0, 1, 2])
def test_hosts_that_are_equal_or_touch_are_one_range(step: int) -> None:
    value = 0x20010DB8 << 96
    items = [host(6, value), host(6, value + step), host(6, value + (1 << 80))]
    tables = build([], items)
    assert tables.ranges6 == (3 if step == 2 else 2)
    check(6, [], items, Random(step))


def same_hash(count: int) -> list[int]:
    """Return IPv6 addresses that all have the same home; a multiply-shift hash can be inverted."""
    factor, whole = 0x9E3779B97F4A7C15, (1 << 64) - 1
    return [((0x20010DB8 << 32) - low * factor & whole) << 64 | low for low in range(3, 3 + count)]


@pytest.mark.parametrize("count", [4, 5, 128, 129, 300])
def test_hosts_without_room_are_in_the_tree(count: int) -> None:
    """A home and the 31 buckets after it have room for 128 hosts."""
    values = same_hash(count)
    allow = [host(6, value) for value in values[::3]]
    deny = [host(6, value) for value in values]
    tables = check(6, allow, deny, Random(count))
    assert tables.v6_hosts.is_all == (count <= 128)
    check(6, allow, [*deny, block(6, values[-1], 3)], Random(count))


def test_many_hosts_without_room_among_prefixes_do_not_take_long() -> None:
    random = Random(19)
    nets = [block(6, random.getrandbits(127) | 1 << 127, 64) for _number in range(20_000)]
    hosts = same_hash(5000)
    tables = build([], [host(6, value) for value in hosts] + nets)
    check_read_back(tables, [], [host(6, value) for value in hosts] + nets)


def test_what_holds_up_to_the_last_host() -> None:
    tables = build([host(6, 7)], [host(6, LAST6)])
    parts = [(0, LAST6), (0, LAST6 - 1), (LAST6 - 1, LAST6), (8, 9)]
    expected = [{NONE, ALLOW, DENY}, {NONE, ALLOW}, {NONE, DENY}, {NONE}]
    for times in (1, 5):
        assert verdicts(tables, 6, parts * times) == expected * times


def test_the_first_and_the_last_address_as_hosts_among_others() -> None:
    """Both halves of the first address are 0, like an empty slot."""
    random = Random(18)
    items = [host(6, random.getrandbits(128)) for _number in range(50)]
    for value in (0, LAST6):
        check(6, [], items, random)
        check(6, [host(6, value)], items, random)
        check(6, items, [host(6, value)], random)
        check(6, items[:20], [*items, host(6, value), block(6, value, 4)], random)


def test_neighbouring_64_with_different_verdicts() -> None:
    random = Random(11)
    base = 0x20010DB8 << 96
    nets = [block(6, base + (number << 64), 64) for number in range(9)]
    check(6, nets[1::3], nets[0::3], random)
    check(6, nets[0::2], nets[1::2], random)
    check(6, [nets[3]], [block(6, base, 60), host(6, nets[3].value + 5)], random)
    check(6, [host(6, nets[4].value)], [nets[3], nets[4], nets[5]], random)
    check(6, [host(6, nets[4].last)], [nets[3], nets[5]], random)


@pytest.mark.slow
@pytest.mark.parametrize("count", [4095, 4096, 4097, 9000])
def test_hosts_all_in_one_64(count: int) -> None:
    random = Random(count)
    high = 0x20010DB8_00000001 << 64
    near = [high | 2 * step for step in range(count)]
    far = [high | random.getrandbits(64) for _number in range(count)]
    for values in (near, far):
        hosts_only(build([], [host(6, value) for value in values]), 6, values)
        nets = [block(6, 2 * (value - high) | high, 127) for value in values]
        tables = build([], nets)
        Shape6(tables)
        check_read_back(tables, [], nets)


def test_hosts_beside_a_crowded_64_within_a_denied_net() -> None:
    random = Random(12)
    high = 0x20010DB8_00000001 << 64
    allow = [host(6, high | random.getrandbits(64)) for _number in range(5000)]
    deny = [block(6, high, 48), host(6, 1)]
    tables = build(allow, deny)
    # The tree has none of the hosts.
    assert set(Shape6(tables).depths) == {1}
    for item in random.sample(allow, 500):
        assert lookup(tables, 6, item.value) == ALLOW
        assert lookup(tables, 6, item.value ^ 1) == verdict(allow, deny, item.value ^ 1)
    for border in edges(deny, LAST6):
        assert lookup(tables, 6, border) == verdict(allow, deny, border)
    check_read_back(tables, allow, deny)


def test_1000_registrations_in_8_sixteens() -> None:
    random = Random(13)
    sixteens = random.sample(range(0x2400, 0x2C00), 8)
    nets = sorted({random.choice(sixteens) << 16 | random.getrandbits(16) for _n in range(1000)})
    values = [
        net << 96 | random.getrandbits(96)
        for net in nets
        for _number in range(random.randint(1, 9))
    ]
    hosts_only(build([], [host(6, value) for value in values]), 6, values)
    Shape6(check(6, [], [block(6, net << 96, 32) for net in nets[::10]], random))


def test_clusters_as_deep_as_the_format_goes() -> None:
    """Dense clusters whose common prefixes grow: the widths must still reach every key."""
    random = Random(14)
    values = []
    for depth in range(0, 128, 9):
        base = random.getrandbits(depth) << (128 - depth)
        values += [base + step for step in range(0, 1 << min(12, 127 - depth), 4)]
        values += [base + (step << 64) for step in range(4300) if depth <= 50]
    values = [value & LAST6 - 1 for value in values]
    nets = [block(6, value, 127) for value in values]
    tables = build([], nets)
    Shape6(tables)
    listed = {*values, *(value + 1 for value in values)}
    for value in random.sample(values, 3000):
        assert lookup(tables, 6, value) == lookup(tables, 6, value + 1) == DENY
        assert (lookup(tables, 6, value ^ 2) == DENY) == (value ^ 2 in listed)
    check_read_back(tables, [], nets)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5, 11, 14, 16, 19, 23])
def test_crowds_of_64_nested_in_each_other(step: int) -> None:
    """Each crowd lies in one bucket of the crowd around it, so that every width occurs."""
    random = Random(step)
    keys: set[int] = set()
    prefix = random.getrandbits(64)
    for depth in range(0, 52, step):
        keys |= {
            prefix >> 64 - depth << 64 - depth | random.getrandbits(64 - depth) for _n in range(600)
        }
        if depth + step >= 52 or step > 10:
            rest = 64 - depth
            base = prefix >> rest << rest
            keys |= {base | number << random.randint(0, rest - 13) for number in range(4500)}
    values = [key << 64 for key in keys]
    tables = build([], [block(6, value, 64) for value in values])
    Shape6(tables)
    for value in random.sample(sorted(values), 500):
        assert lookup(tables, 6, value) == lookup(tables, 6, value + 1) == DENY
    check_read_back(tables, [], [block(6, value, 64) for value in values])


def test_many_keys_that_differ_only_in_the_last_bits() -> None:
    base = 0x20010DB8_00000000
    nets = [block(6, base + step << 64, 127) for step in range(0, 20_000, 2)]
    tables = build([], nets)
    Shape6(tables)
    check_read_back(tables, [], nets)


def test_the_same_ranges_always_have_the_same_tables() -> None:
    random = Random(15)
    items = [
        block(family, random.getrandbits(BITS[family]), random.randint(4, BITS[family]))
        for family in (4, 6)
        for _number in range(300)
    ]
    halves = [
        block(
            item.family, item.value | half << (BITS[item.family] - item.length - 1), item.length + 1
        )
        for item in items
        if not item.is_host
        for half in (0, 1)
    ]
    tables = build([], items)
    random.shuffle(halves)
    again = build([], halves + [item for item in items if item.is_host] * 2)
    assert again[:6] == tables[:6]
