# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding the entries that cover one prefix: what is found fast is what a search of every line finds."""

from __future__ import annotations

from random import Random

import pytest

from packetwatch_core._base.address import BITS, Prefix, format_prefix, parse_prefix
from packetwatch_core._declared.search import count_inside, covering, covering_exactly, covers

HAND_EDITED = """\ufeff  203.0.113.9 # first
# 203.0.113.9
203.0.113.90
\t203.0.113.0/24\texpires=2030-01-01T00:00:00Z # 203.0.113.9
203.0.113.9/32\r
0.0.0.0/0
203.0.112.0/23#x
203.0.113.9.1
203.0.113.9/3
2001:db8::9
198.51.100.7 # 203.0.113.9
203.0.113.9"""


def test_lines_as_people_write_them() -> None:
    found = covering(HAND_EDITED, parse_prefix("203.0.113.9"))
    assert found == covering_exactly(HAND_EDITED, parse_prefix("203.0.113.9"))
    assert [entry.text for entry in found] == [
        "203.0.113.9",
        "203.0.113.0/24",
        "203.0.113.9",
        "0.0.0.0/0",
        "203.0.112.0/23",
        "203.0.113.9",
    ]
    assert found[0].comment == "first"
    assert found[1].expires == "2030-01-01T00:00:00Z"


def test_only_an_exact_search_knows_other_spellings_of_ipv6() -> None:
    text = "2001:DB8:0::7\n2001:0db8::/32\n"
    prefix = parse_prefix("2001:db8::7")
    assert covering(text, prefix) == []
    assert [entry.text for entry in covering_exactly(text, prefix)] == [
        "2001:db8::7",
        "2001:db8::/32",
    ]


def test_what_lies_inside_is_counted_in_every_spelling() -> None:
    text = "\ufeff2001:DB8:0:1::7\n 2001:0db8:0:1:0::/80 # x\n2001:db8:0:1::/64\n2001:db8:0:2::1\n10.0.0.1\n"
    assert count_inside(text, parse_prefix("2001:db8:0:1::/64")) == 2
    assert count_inside(text, parse_prefix("2001:db8::/32")) == 4
    assert count_inside(text, parse_prefix("::/0")) == 4
    assert count_inside(text, parse_prefix("10.0.0.0/8")) == 1
    assert count_inside(text, parse_prefix("0.0.0.0/0")) == 1


def test_duplicates_hide_no_entry() -> None:
    text = "203.0.113.9 expires=2001-01-01T00:00:00Z\n" * 100 + "203.0.113.9\n"
    assert covering(text, parse_prefix("203.0.113.9"))[-1].expires is None


@pytest.mark.slow
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_fast_is_what_is_there(family: int, seed: int) -> None:
    """Prefixes are crowded, so that many cover each other."""
    random = Random(seed)
    bits = BITS[family]

    def prefix() -> Prefix:
        value = sum(random.choice((0, 0, 1)) << at for at in range(bits))
        length = random.choice((bits, random.randrange(bits + 1)))
        return Prefix(family, value >> bits - length << bits - length, length)

    entries = [prefix() for _number in range(600)]
    text = "".join(f"{format_prefix(entry)} # {number}\n" for number, entry in enumerate(entries))
    many = 0
    for wanted in (*random.sample(entries, 40), *(prefix() for _number in range(40))):
        found = covering(text, wanted)
        assert found == covering_exactly(text, wanted)
        assert [entry.prefix for entry in found] == [one for one in entries if covers(one, wanted)]
        many += len(found)
        if not wanted.is_host:
            inside = sum(covers(wanted, one) and one != wanted for one in entries)
            assert count_inside(text, wanted) == inside
    assert many > 80
