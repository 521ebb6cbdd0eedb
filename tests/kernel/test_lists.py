# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Allow and deny lists: the real program's verdicts against brute force.

The cell in which a packet counts shows the program's verdict. Addresses are tested in groups with one
expected verdict: all packets of a group must count in the same cell.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import pytest
from kernel.datapath import Datapath, Runner, difference
from kernel.hosting import FULL, run
from kernel.packets import udp4, udp6

from packetwatch_core._active import generation
from packetwatch_core._active.build import build
from packetwatch_core._declared.bulk import read_prefixes
from packetwatch_core._declared.policy import resolve_policies
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.bytecode import Compiler
from packetwatch_core._kernel.libbpf import PERCPU_ARRAY, Map
from packetwatch_core._kernel.programs import Program
from packetwatch_core._kernel.source import flatten
from packetwatch_core._tables import ipv4, ipv4_halves
from packetwatch_core._tables.tables import compile_tables

BITS = {4: 32, 6: 128}
FATES = {"none": "pass unlisted", "allow": "pass allow", "deny": "drop deny"}
FAMILIES = {4: "ipv4", 6: "ipv6"}
SETS = 600 if FULL else 150
CAPACITY = 144

Prefix = tuple[int, int]


class Rules(NamedTuple):
    """Prefixes (first address, length) of one family."""

    family: int
    allow: list[Prefix]
    deny: list[Prefix]

    def verdict(self, address: int) -> str:
        """Return the lists' verdict, by a check of every entry."""
        bits = BITS[self.family]
        for name, prefixes in (("allow", self.allow), ("deny", self.deny)):
            if any(
                address >> bits - length == first >> bits - length for first, length in prefixes
            ):
                return name
        return "none"

    def boundaries(self) -> Iterator[int]:
        """Return every prefix's first and last address, and their neighbours outside the prefix."""
        bits = BITS[self.family]
        for first, length in (*self.allow, *self.deny):
            last = first | (1 << bits - length) - 1
            for address in (first - 1, first, last, last + 1):
                yield address % (1 << bits)

    def text(self, prefixes: Iterable[Prefix]) -> str:
        return "".join(f"{spelt(self.family, first)}/{length}\n" for first, length in prefixes)


def spelt(family: int, address: int) -> str:
    if family == 4:
        return ".".join(str(byte) for byte in address.to_bytes(4, "big"))
    return ":".join(f"{address >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))


def masked(family: int, address: int, length: int) -> Prefix:
    shift = BITS[family] - length
    return address >> shift << shift, length


class Prober:
    """The program, loaded a second time, with a slot that has room for the tables of any test."""

    def __init__(self, datapath: Datapath) -> None:
        bytecode = Compiler(run, datapath.paths.cache).get(flatten(datapath.paths.source))
        self._code = bytecode.digest
        self._datapath = datapath
        self._slot = generation.make_slot(CAPACITY)
        self._policies = resolve_policies({})
        with Map.create(PERCPU_ARRAY, "scratch", 4, abi.SCRATCH_SIZE, 1) as scratch:
            descriptors = {name: found.fd for name, found in datapath.maps.items()}
            descriptors |= {"generation": self._slot.fd, "scratch": scratch.fd}
            self._program = Program.load(bytecode.resolved(descriptors), "packetwatch")
        self._run = Runner(self._program, 0)

    def close(self) -> None:
        self._program.close()
        self._slot.close()

    def declare(self, rules: Rules) -> None:
        """Compile the rules and activate them."""
        allow = read_prefixes(rules.text(rules.allow), "allow", 0, True, "allow")
        deny = read_prefixes(rules.text(rules.deny), "deny", 0, True, "deny")
        areas = generation.Areas.of(compile_tables(allow, deny), bytes(32), 0, 0)
        image = build(areas, self._policies, {}, self._code)
        assert image.pages <= CAPACITY, image.pages
        generation.activate(self._slot, image, CAPACITY)

    def mismatches(self, rules: Rules, addresses: Iterable[int]) -> list[str]:
        """Return the addresses for which program and brute force disagree."""
        groups: dict[str, list[bytes]] = {}
        frames = template(rules.family)
        for address in addresses:
            groups.setdefault(rules.verdict(address), []).append(frames(address))
        wrong = []
        for verdict, group in groups.items():
            fate = f"{FATES[verdict]} {FAMILIES[rules.family]}"
            grown = self._answers(group)
            if grown != {fate: len(group)}:
                wrong += [
                    f"{frame.hex()}: {fate}"
                    for frame in group
                    if self._answers([frame]) != {fate: 1}
                ]
        return wrong

    def _answers(self, frames: Iterable[bytes]) -> dict[str, int]:
        before = self._datapath.cells()
        for frame in frames:
            self._run(frame)
        return difference(self._datapath.cells(), before)


def template(family: int) -> Callable[[int], bytes]:
    """Return a function from a source address to a frame."""
    frame = udp4("0.0.0.0") if family == 4 else udp6("::")
    at, size = (26, 4) if family == 4 else (22, 16)
    head, tail = frame[:at], frame[at + size :]
    return lambda address: head + address.to_bytes(size, "big") + tail


@pytest.fixture(scope="module")
def prober(loaded_datapath: Datapath) -> Iterator[Prober]:
    """One program for all tests."""
    found = Prober(loaded_datapath)
    yield found
    found.close()


def nested(family: int, choice: random.Random) -> Rules:
    """Return prefixes of random lengths, most of them inside or around others."""
    bits = BITS[family]
    prefixes: list[Prefix] = []
    for _dummy in range(choice.choice((1, 2, 5, 20, 60, 150))):
        if prefixes and choice.random() < 0.75:
            first, length = choice.choice(prefixes)
            address = first | choice.getrandbits(bits) & (1 << bits - length) - 1
        else:
            address = choice.getrandbits(bits)
        prefixes.append(masked(family, address, choice.randint(0, bits)))
    allow = [prefix for prefix in prefixes if choice.random() < 0.4]
    deny = [prefix for prefix in prefixes if prefix not in allow or choice.random() < 0.2]
    return Rules(family, allow, deny)


def addresses_for(rules: Rules, choice: random.Random, count: int) -> list[int]:
    """Return addresses: half of them boundaries (if there are enough), the rest in prefixes or anywhere."""
    bits = BITS[rules.family]
    found = list(rules.boundaries())
    choice.shuffle(found)
    del found[count // 2 :]
    prefixes = [*rules.allow, *rules.deny]
    while len(found) < count:
        if prefixes and choice.random() < 0.7:
            first, length = choice.choice(prefixes)
            found.append(first | choice.getrandbits(bits) & (1 << bits - length) - 1)
        else:
            found.append(choice.getrandbits(bits))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", [4, 6])
def test_random_nestings_match_brute_force(prober: Prober, family: int) -> None:
    """Tests at least 105,000 pairs of a rule set and an address for each family."""
    choice = random.Random(family)
    for number in range(SETS):
        rules = nested(family, choice)
        prober.declare(rules)
        wrong = prober.mismatches(rules, addresses_for(rules, choice, 700))
        assert not wrong, (number, rules, wrong[:3])


@pytest.mark.slow
@pytest.mark.parametrize("family", [4, 6])
def test_every_prefix_length(prober: Prober, family: int) -> None:
    choice = random.Random(family)
    for length in range(BITS[family] + 1):
        allow, deny = (
            masked(family, choice.getrandbits(BITS[family]), length) for dummy in range(2)
        )
        rules = Rules(family, [allow], [deny])
        prober.declare(rules)
        wrong = prober.mismatches(rules, addresses_for(rules, choice, 40))
        assert not wrong, (rules, wrong)


@pytest.mark.parametrize("family", [4, 6])
def test_a_matryoshka_of_all_prefix_lengths(prober: Prober, family: int) -> None:
    """Prefixes around one address are alternately allowed and denied; allow wins at every depth."""
    bits = BITS[family]
    choice = random.Random(family)
    address = choice.getrandbits(bits)
    prefixes = [masked(family, address, length) for length in range(bits + 1)]
    for shift in (0, 1):
        for keep in range(1, bits + 1, 7):
            allow = [prefix for prefix in prefixes[keep:] if prefix[1] % 2 == shift]
            deny = [prefix for prefix in prefixes if prefix[1] % 2 != shift]
            rules = Rules(family, allow, deny)
            prober.declare(rules)
            wrong = prober.mismatches(rules, [*rules.boundaries(), address])
            assert not wrong, (shift, keep, wrong[:3])


def dense(family: int, choice: random.Random) -> Rules:
    """Most hosts of a small network, in a pattern that no prefixes can describe."""
    bits = BITS[family]
    base = choice.getrandbits(bits) >> 12 << 12
    hosts = [(base | number, bits) for number in range(1 << 12)]
    picked = [host for host in hosts if choice.random() < 0.6]
    allow = [host for host in picked if choice.random() < 0.3]
    return Rules(family, allow[:300], [host for host in picked if host not in set(allow)])


def many_hosts(family: int, choice: random.Random) -> Rules:
    hosts = [(choice.getrandbits(BITS[family]), BITS[family]) for dummy in range(3000)]
    return Rules(family, hosts[:200], hosts[100:])


def neighbours(family: int, choice: random.Random) -> Rules:
    """Adjacent hosts and prefixes, also at both ends of the address space."""
    bits = BITS[family]
    top = (1 << bits) - 1
    base = choice.getrandbits(bits) >> 16 << 16
    deny = [(0, bits), (1, bits), (top, bits), (top - 1, bits), (0, 9), masked(family, top, 9)]
    deny += [masked(family, base + (1 << 8) * number, bits - 8) for number in range(40)]
    allow = [(base + (1 << 8) * number, bits) for number in range(0, 40, 3)]
    allow += [masked(family, base + (1 << 8) * number, bits - 1) for number in range(1, 40, 5)]
    return Rules(family, allow, deny)


def one_slash_64(family: int, choice: random.Random) -> Rules:
    """Only the lower half differs: hosts and prefixes longer than /64 in one network."""
    bits = BITS[family]
    half = bits // 2
    base = choice.getrandbits(half) << half
    lengths = range(half + 1, bits + 1)
    prefixes = [
        masked(family, base | choice.getrandbits(half), choice.choice(lengths))
        for dummy in range(1500)
    ]
    return Rules(family, prefixes[:300], [*prefixes[200:], (base, half + 2)])


def many_networks(family: int, choice: random.Random) -> Rules:
    """Hosts spread over realistic networks; some of the networks are listed as a whole."""
    bits = BITS[family]
    size = bits // 4
    bases = [
        (0x2001 << 112 if family == 6 else 0) | choice.getrandbits(size // 2) << bits - size
        for dummy in range(60)
    ]
    hosts = [
        (choice.choice(bases) | choice.getrandbits(bits - size), bits) for dummy in range(2500)
    ]
    nets = [masked(family, choice.choice(hosts)[0], choice.randint(size, bits)) for dummy in hosts]
    return Rules(family, nets[:150], hosts + nets[150:600])


def same_hash(family: int, choice: random.Random) -> Rules:
    """IPv6 hosts with the same home: some of them are in other buckets, others in the tree."""
    factor, whole = 0x9E3779B97F4A7C15, (1 << 64) - 1
    hosts = [
        ((0x20010DB8 << 32) - low * factor & whole) << 64 | low
        for low in choice.sample(range(1 << 32), 250)
    ]
    hosts = [host >> 128 - BITS[family] for host in hosts]
    prefixes = [(host, BITS[family]) for host in hosts]
    return Rules(family, prefixes[::3], [*prefixes, masked(family, hosts[0], 20)])


ADVERSARIAL = (same_hash, dense, many_hosts, neighbours, one_slash_64, many_networks)


@pytest.mark.parametrize("make", ADVERSARIAL)
@pytest.mark.parametrize("family", [4, 6])
def test_adversarial_sets_match_brute_force(
    prober: Prober, family: int, make: Callable[[int, random.Random], Rules]
) -> None:
    choice = random.Random(f"{family} {make.__name__}")
    rules = make(family, choice)
    prober.declare(rules)
    wrong = prober.mismatches(rules, addresses_for(rules, choice, 1500))
    assert not wrong, wrong[:3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "few"),
    [(13, 32), (16, 32), (18, 0), (16, 0)],
)
def test_top_tables_as_long_lists_have_them_match_brute_force(
    prober: Prober, width: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many pages, and few bits of an address after its line's number."""
    monkeypatch.setattr(ipv4, "MIN_TOP_WIDTH", width)
    monkeypatch.setattr(ipv4_halves, "_MAIN_RATIO", few)
    choice = random.Random(width)
    for make in (*[nested] * 20, *ADVERSARIAL):
        rules = make(4, choice)
        prober.declare(rules)
        # The borders of blocks, lines and pages next to each listed address.
        edges = [
            (address >> shift << shift) + step & 0xFFFFFFFF
            for address, _length in (*rules.allow, *rules.deny)
            for shift in (26 - width, 31 - width, 32 - width, 42 - width)
            for step in (-1, 0, 1 << shift)
        ]
        edges = choice.sample(edges, min(len(edges), 300))
        wrong = prober.mismatches(rules, [*edges, *addresses_for(rules, choice, 300)])
        assert not wrong, (make.__name__, rules, wrong[:3])


def test_four_quarters_allowed_beat_a_half_denied(datapath: Datapath) -> None:
    """Denied prefixes that lie inside the union of several allowed prefixes, but in none of them."""
    quarters = [f"10.{start}.0.0/10" for start in (0, 64, 128, 192)]
    datapath.lists(allow=quarters, deny=["10.0.0.0/9"])
    for address in ("10.0.0.0", "10.63.255.255", "10.64.0.0", "10.127.255.255", "10.200.0.1"):
        assert datapath.fate(udp4(address)) == "pass allow ipv4"


def test_one_family_alone_leaves_the_other_unlisted(datapath: Datapath) -> None:
    datapath.lists(deny=["0.0.0.0/0"])
    assert datapath.fate(udp4("198.51.100.1")) == "drop deny ipv4"
    assert datapath.fate(udp6("2001:db8::1")) == "pass unlisted ipv6"
    datapath.lists(deny=["::/0"])
    assert datapath.fate(udp4("198.51.100.1")) == "pass unlisted ipv4"
    assert datapath.fate(udp6("2001:db8::1")) == "drop deny ipv6"


def test_mapped_addresses_are_no_ipv4(datapath: Datapath) -> None:
    datapath.lists(deny=["198.51.100.0/24"])
    assert datapath.fate(udp6("::ffff:198.51.100.1")) == "drop bogus ipv6"
