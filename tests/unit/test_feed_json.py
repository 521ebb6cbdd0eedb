# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Feeds in JSON: records, arrays, documents, and what is wrong with them."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._feeds.parse import Copy, Format, Rules, read_feed

DROP4 = """\
{"cidr":"203.0.113.0/24","sblid":"SBL1","rir":"example"}
{"cidr":"198.51.100.0/24","sblid":"SBL2","rir":"example"}
{"cidr":"192.0.2.0/24","sblid":"SBL3","rir":"example"}
{"type":"metadata","timestamp":1780000000,"records":3,"copyright":"example","terms":"https://example.net/terms"}
"""
DROP6 = """\
{"cidr":"2001:db8:5::/48","sblid":"SBL4","rir":"example"}
{"type":"metadata","timestamp":1780000000,"records":1}
"""
AWS = (
    '{"syncToken":"1","prefixes":[{"ip_prefix":"203.0.113.0/24"}],'
    '"ipv6_prefixes":[{"ipv6_prefix":"2001:db8::/48"}]}'
)
AWS_PATHS = "prefixes[].ip_prefix, ipv6_prefixes[].ipv6_prefix"
GOOGLE = '{"prefixes":[{"ipv4Prefix":"203.0.113.0/24"},{"ipv6Prefix":"2001:db8::/48"}]}'
GOOGLE_PATHS = "prefixes[].ipv4Prefix,prefixes[].ipv6Prefix"
AZURE = json.dumps(
    {
        "values": [
            {"name": "Front.Door", "properties": {"addressPrefixes": ["203.0.113.0/24"]}},
            {"name": "Other", "properties": {"addressPrefixes": ["2001:db8::/48"]}},
        ]
    },
    indent=2,
)
ORACLE = (
    '{"regions":[{"region":"a","cidrs":[{"cidr":"203.0.113.0/24","tags":["OCI"]}]},'
    '{"region":"b","cidrs":[{"cidr":"192.0.2.0/24"}]}]}'
)


def read(text: str, column: str, max_bad: int = 0) -> Copy:
    return read_feed(text.encode(), Format("json", column), "x", Rules(True, max_bad))


def prefixes(text: str, column: str, max_bad: int = 0) -> list[str]:
    return read(text, column, max_bad).text.splitlines()[1:]


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        (DROP4, "cidr", ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"]),
        (DROP6, "cidr", ["2001:db8:5::/48"]),
        ('{"cidr":"203.0.113.7"}', "cidr", ["203.0.113.7"]),
        (
            DROP4.replace("\n", "\r\n\n"),
            "cidr",
            ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"],
        ),
        (AWS, AWS_PATHS, ["203.0.113.0/24", "2001:db8::/48"]),
        (AWS, "prefixes[].ip_prefix", ["203.0.113.0/24"]),
        (GOOGLE, GOOGLE_PATHS, ["203.0.113.0/24", "2001:db8::/48"]),
        (AZURE, "values[].properties.addressPrefixes[]", ["203.0.113.0/24", "2001:db8::/48"]),
        (AZURE, "values[name=Front.Door].properties.addressPrefixes[]", ["203.0.113.0/24"]),
        (ORACLE, "regions[].cidrs[].cidr", ["192.0.2.0/24", "203.0.113.0/24"]),
        (ORACLE, "regions[region=b].cidrs[].cidr", ["192.0.2.0/24"]),
        ('["203.0.113.7", "203.0.113.8"]', "[]", ["203.0.113.7", "203.0.113.8"]),
        ('[{"ip_address":"203.0.113.7"}]', "ip_address", ["203.0.113.7"]),
        ('[{"ip_address":"203.0.113.7"}]', "[].ip_address", ["203.0.113.7"]),
        ('{"hooks":["203.0.113.7"],"verified":true}', "hooks[]", ["203.0.113.7"]),
        (
            '{"prefixes":[{"ip_prefix":"203.0.113.7"}],"ipv6_prefixes":[]}',
            AWS_PATHS,
            ["203.0.113.7"],
        ),
    ],
)
def test_addresses_are_found(text: str, column: str, expected: list[str]) -> None:
    assert prefixes(text, column) == expected


def test_the_metadata_record_dates_the_feed() -> None:
    assert read(DROP4, "cidr").published == 1_780_000_000
    assert read(AWS, AWS_PATHS).published is None


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        (
            DROP4.replace('"records":3', '"records":4'),
            "cidr",
            "has 3 records, .* counts 4: it is incomplete",
        ),
        (
            "".join(DROP4.splitlines(True)[1:]),
            "cidr",
            "has 2 records, but its metadata record counts 3",
        ),
        (DROP4 + DROP6, "cidr", "has two metadata records"),
        (
            DROP4.replace("1780000000", '"today"'),
            "cidr",
            "timestamp of its metadata record is a text, not a number",
        ),
        (
            DROP4.replace("192.0.2.0/24", "192.0.2.300"),
            "cidr",
            "feed x, line 3, cidr: '192.0.2.300' is not an IPv4",
        ),
        (
            DROP4.replace('{"cidr":"198.51', '{"net":"198.51'),
            "cidr",
            "line 2: the object has no 'cidr'",
        ),
        (
            DROP4.replace('"rir":"example"}\n{"cidr":"192', '"rir":\n{"cidr":"192'),
            "cidr",
            "line 2: it is not JSON",
        ),
        (
            DROP4.replace('"203.0.113.0/24"', "203"),
            "cidr",
            "line 1, cidr: a number is not the text of an address",
        ),
        (DROP4, "ip", "line 1: the object has no 'ip'"),
        (AWS, "prefix", "the document: the object has no 'prefix'"),
        (
            AWS,
            "prefixes[].ip_prefix,ipv4[]",
            r"feed x has no ipv4\[\]: check the publisher's format, or remove",
        ),
        (AWS, "prefixes.ip_prefix", "prefixes: an array is not an object"),
        (AWS, "syncToken[]", r"syncToken\[\]: a text is not an array"),
        (
            GOOGLE.replace("ipv6", "v6"),
            GOOGLE_PATHS,
            "the object has no 'ipv4Prefix' or 'ipv6Prefix'",
        ),
        (
            '{"prefixes":[{"ipv4Prefix":"203.0.113.7"}]}',
            GOOGLE_PATHS,
            r"has no prefixes\[\].ipv6Prefix: .* remove this path from column",
        ),
        (
            AZURE,
            "values[name=Front].properties.addressPrefixes[]",
            r"no element is values\[name=Front\]",
        ),
        ('{"ip":"203.0.113.7","ip":"203.0.113.8"}', "ip", "two members 'ip': it is ambiguous"),
        (
            '["203.0.113.7\\n203.0.113.8"]',
            "[]",
            "element 1: '203.0.113.7.n203.0.113.8' is more than an address",
        ),
        ('["203.0.113.7#8"]', "[]", "element 1: '203.0.113.7#8' is not an IP address"),
        ('["#"]', "[]", "element 1: '#' is not an IP address"),
        ("<html>\n", "cidr", "feed x: it is not JSON"),
        ("[" * 99_999, "cidr", "feed x: it is (nested too deeply|not JSON)"),
        ('{"a":' * 99_999, "a", "feed x: it is (nested too deeply|not JSON)"),
        (f"[{'9' * 9999}]", "[]", "feed x: it is not JSON|a number is not"),
    ],
)
def test_what_is_wrong_is_named(text: str, column: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        read(text, column)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        ('{"cidr":"203.0.113.300"}', "line 2, cidr: "),
        ('{"net":"203.0.113.7"}', "line 2: the object has no 'cidr'"),
        ("{", "line 2: it is not JSON"),
    ],
)
def test_wrong_records_are_tolerated(bad: str, place: str) -> None:
    lines = DROP4.splitlines()
    lines.insert(1, bad)
    text = "\n".join(lines).replace('"records":3', '"records":4')
    found = read(text, "cidr", max_bad=1)
    assert found.entries == 3
    assert found.bad.total == 1
    assert found.bad.examples[0].startswith(place)


@pytest.mark.parametrize(
    "column", ["a.", ".a", "a[", "a]", "a[b]", "a[=c]", "a[b=]", "a,,b", "a,", "a[]b", ""]
)
def test_a_wrong_path_is_named(column: str) -> None:
    with pytest.raises(InvalidInput, match=r"column is .*: write the path of the addresses"):
        read("[]", column)


def test_members_that_no_path_names_take_no_memory() -> None:
    other = ",".join(f'"member{number}":[{number},{{"x":1}}]' for number in range(50))
    text = f'{{"prefixes":[{",".join([f"""{{"ip":"203.0.113.7",{other}}}"""] * 500)}]}}'
    tracemalloc.start()
    try:
        assert prefixes(text, "prefixes[].ip") == ["203.0.113.7"]
        peak: Any = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(text)
