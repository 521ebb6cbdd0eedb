# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of first ports: what it remembers, for how long, and which entries are evicted."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest
from kernel.datapath import Datapath, in_step
from kernel.hosting import FULL
from kernel.packets import syn4

from packetwatch_core._base.address import Prefix, format_prefix
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.first_ports import hash_of

SOURCE = "198.51.100.7"
PASSES, SCAN = "pass unlisted ipv4", "drop scan ipv4"
WINDOW = 60
ROUNDS = 5000 if FULL else 1000


def scan(datapath: Datapath, source: str, ports: Sequence[int]) -> list[str]:
    return [datapath.fate(syn4(source, port)) for port in ports]


def neighbours(datapath: Datapath, count: int) -> list[str]:
    """Return sources that belong to one set of the table of first ports."""
    seed = abi.SHARED.unpack(datapath.maps["shared"].lookup(bytes(4)) or b"")["seed"]
    found: dict[int, list[str]] = defaultdict(list)
    for number in itertools.count(0x0B000000):
        text = format_prefix(Prefix(4, number, 32))
        key = datapath.bans.source_of(text).key
        sources = found[hash_of(key, seed) % abi.FIRST_SETS]
        sources.append(text)
        if len(sources) == count:
            return sources
    raise AssertionError


def counter(datapath: Datapath, name: str) -> int:
    return int(datapath.counters()[name])


def test_sources_of_one_port_have_no_tracks(datapath: Datapath) -> None:
    before = datapath.counters()
    scan(datapath, SOURCE, [1, 2])
    for number in range(3000):
        datapath.run(syn4(f"10.1.{number >> 8}.{number & 255}", 80))
    assert counter(datapath, "tracks_inserted") - before["tracks_inserted"] == 1
    assert len(datapath.maps["tracks2"].items()) == 1
    assert datapath.hits() == 3002
    assert scan(datapath, SOURCE, [3]) == [SCAN]
    assert datapath.hits() == 3000


def test_the_fifth_of_a_set_pushes_out_the_oldest(datapath: Datapath) -> None:
    scan(datapath, SOURCE, [1])  # makes the seed
    one, *others, last = neighbours(datapath, 5)
    evicted = counter(datapath, "firsts_evicted")
    scan(datapath, one, [1])
    datapath.age(1)
    for source in others:
        scan(datapath, source, [1])
    assert counter(datapath, "firsts_evicted") == evicted
    scan(datapath, last, [1])
    assert counter(datapath, "firsts_evicted") == evicted + 1
    for source in (*others, last):
        assert scan(datapath, source, [2, 3]) == [PASSES, SCAN]
    assert scan(datapath, one, [2, 3, 4]) == [PASSES, PASSES, SCAN]


def test_expired_entries_give_way_and_are_not_counted_as_evicted(datapath: Datapath) -> None:
    scan(datapath, SOURCE, [1])
    *others, last = neighbours(datapath, 5)
    for source in others:
        scan(datapath, source, [1])
    datapath.age(WINDOW + 5)
    evicted = counter(datapath, "firsts_evicted")
    scan(datapath, last, [1])
    assert counter(datapath, "firsts_evicted") == evicted


def test_a_first_port_of_long_ago_is_not_counted(datapath: Datapath) -> None:
    assert scan(datapath, SOURCE, [1]) == [PASSES]
    datapath.age(WINDOW + 5)
    assert scan(datapath, SOURCE, [2, 1]) == [PASSES] * 2
    assert scan(datapath, SOURCE, [3]) == [SCAN]


def test_a_first_port_that_is_hit_again_is_as_new(datapath: Datapath) -> None:
    for _number in range(3):
        assert scan(datapath, SOURCE, [1]) == [PASSES]
        datapath.age(WINDOW - 10)
    assert scan(datapath, SOURCE, [2, 3]) == [PASSES, SCAN]


@pytest.mark.slow
def test_two_processors_with_first_ports_in_one_set(datapath: Datapath) -> None:
    """Each processor has its own sources, which evict each other all the time; none of them is banned."""
    datapath.policy(scan_ports=2, log_connections="none")
    scan(datapath, SOURCE, [1])
    near = neighbours(datapath, 12)

    def job(sources: Sequence[str], port: int) -> Callable[[int], None]:
        frames = [syn4(source, port) for source in sources]

        def work(dummy: int) -> None:
            for frame in frames:
                datapath.run(frame)

        return work

    in_step(ROUNDS, [job(near[:6], 1), job(near[6:], 2)])
    assert datapath.banned() == set()
