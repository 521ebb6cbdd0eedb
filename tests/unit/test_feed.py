# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Formats of feeds, in realistic samples: what is read, and the errors for bad lines."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._feeds.parse import Copy, Format, Rules, read_feed
from packetwatch_core._feeds.spare import KEEP_BOGONS
from packetwatch_core._feeds.special import SPECIAL

DROP = """\
; Example DROP List 2026/11/26
; Expires: Thu, 26 Nov 2026 12:00:00 GMT
1.10.16.0/20 ; SBL256894
45.9.148.0/24 ; SBL000001
45.9.148.0/24 ; SBL000002
2a06:e480::/29 ; SBL301771
"""
NETSET = """\
#
# example_level1
#
# ipv4 hash:net ipset
# Entries         : 3 subnets, 65793 unique IPs
#
45.9.148.7
45.9.0.0/16
1.10.16.0/20
"""
IPSET_SAVE = """\
create example hash:net family inet hashsize 1024 maxelem 65536 comment
add example 45.9.148.0/24 comment "two words"
add example 45.9.147.1 timeout 300
create example6 hash:net family inet6 hashsize 1024 maxelem 65536
add example6 2a06:e480::/29
"""
HOSTS = """\
# as in /etc/hosts
45.9.148.7\tevil.example evil
45.9.148.8   # nobody knows
2a06:e480::7 six.example
"""
DSHIELD = """\
#
#   Example Recommended Block List
#
#    updated: Thu Nov 26 12:00:00 2026 UTC
#
Start\tEnd\tNetmask\tAttacks\tName\tCountry\temail
45.148.10.0\t45.148.10.255\t24\t2600\tEXAMPLE - NET, INC\tNL\tabuse@isp.example
45.9.148.1\t45.9.148.6\t29\t12\t\t\t
"""
RANGES = """\
45.9.148.0-45.9.148.255
45.9.147.1 - 45.9.147.2
2a06:e480::,2a06:e487:ffff:ffff:ffff:ffff:ffff:ffff
45.9.1.0/24
45.9.2.1
"""
CSV = """\
################################################################
# Example botnet tracker "quoted, and open
################################################################
#
# "first_seen_utc","dst_ip","dst_port","c2_status"
"2026-11-25 04:52:51","45.9.148.7","443","online"
"2026-11-25 05:02:11","45.9.148.8","8080","offline"
"""


def read(
    text: str | bytes, name: str = "plain", bogons: bool = False, max_bad: int = 0, **options: str
) -> Copy:
    data = text if isinstance(text, bytes) else text.encode()
    return read_feed(data, Format(name, **options), "x", Rules(bogons, max_bad))


@pytest.mark.parametrize(
    ("text", "options", "prefixes"),
    [
        (DROP, {}, ["1.10.16.0/20", "45.9.148.0/24", "2a06:e480::/29"]),
        (NETSET, {"name": "ipset"}, ["1.10.16.0/20", "45.9.0.0/16", "45.9.148.7"]),
        (NETSET, {}, ["1.10.16.0/20", "45.9.0.0/16", "45.9.148.7"]),
        (IPSET_SAVE, {"name": "ipset"}, ["45.9.147.1", "45.9.148.0/24", "2a06:e480::/29"]),
        (HOSTS, {"name": "hosts"}, ["45.9.148.7", "45.9.148.8", "2a06:e480::7"]),
        (
            DSHIELD,
            {"name": "ranges"},
            ["45.9.148.1", "45.9.148.2/31", "45.9.148.4/31", "45.9.148.6", "45.148.10.0/24"],
        ),
        (
            RANGES,
            {"name": "ranges"},
            [
                "45.9.1.0/24",
                "45.9.2.1",
                "45.9.147.1",
                "45.9.147.2",
                "45.9.148.0/24",
                "2a06:e480::/29",
            ],
        ),
        (CSV, {"name": "csv", "column": "dst_ip"}, ["45.9.148.7", "45.9.148.8"]),
        (CSV, {"name": "csv", "column": "2"}, ["45.9.148.7", "45.9.148.8"]),
        ("ip;seen\n45.9.148.7;x\n", {"name": "csv", "delimiter": ";"}, ["45.9.148.7"]),
        ("45.9.148.7\r\n\r\n 45.9.148.8 \r\n", {}, ["45.9.148.7", "45.9.148.8"]),
        (b"\xef\xbb\xbf45.9.148.7\n", {}, ["45.9.148.7"]),
        (b"# caf\xe9\n45.9.148.7", {}, ["45.9.148.7"]),  # codespell:ignore
        ("0.0.0.0-255.255.255.255", {"name": "ranges", "bogons": True}, ["0.0.0.0/0"]),
    ],
)
def test_formats(text: str, options: Any, prefixes: list[str]) -> None:
    found = read(text, **options)
    assert found.text.removeprefix(KEEP_BOGONS).splitlines() == prefixes
    assert found.entries == len(prefixes)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("45.9.148.7\n<html>\n", {}, "feed x, line 2: '<html>' is not an IP address"),
        ("45.9.148.7 evil\n", {}, "line 1: '45.9.148.7 evil' is more than an address"),
        ("45.9.148.7 expires=2030-01-01T00:00:00Z\n", {}, "line 1: .* is more than an address"),
        ("\n\n45.9.148.7/24\n", {}, "line 3: '45.9.148.7/24' has bits set after"),
        ("evil.example 45.9.148.7\n", {"name": "hosts"}, "line 1: 'evil.example' is not an IP"),
        ("add x 45.9.148.7 nomatch\n", {"name": "ipset"}, r"'45.9.148.7' is an exception"),
        ("add x\n", {"name": "ipset"}, "line 1: 'add x' is more than an address"),
        ("45.9.148.9-45.9.148.7\n", {"name": "ranges"}, "'45.9.148.7' does not come after"),
        ("45.9.148.9-2a06::7\n", {"name": "ranges"}, "'2a06::7' does not come after"),
        ("45.9.148.9-x\n", {"name": "ranges"}, "feed x, line 1: 'x' is not an IP address"),
        (
            "a\nb\n45.9.148.7\n",
            {"name": "ranges", "header": "true"},
            "feed x, line 2: 'b' is not an IP address",
        ),
        ("a\n45.9.148.7\n", {"name": "ranges"}, "feed x, line 1: 'a' is not an IP address"),
        (CSV, {"name": "csv", "column": "ip"}, "feed x has no column 'ip'"),
        (CSV, {"name": "csv", "column": "5"}, "line 6: it has 4 columns, and column is 5"),
        ("ip\n45.9.148.7\n\nx\n", {"name": "csv"}, "feed x, line 4: 'x' is not an IP address"),
        ("10.0.0.1\n", {}, "feed x has 1 entries, all of them in special-purpose address space"),
        ("45.9.148.7," * 900, {}, "line 1 has 9900 characters, so this is not a list"),
        (b"\0\xff\xfe", {}, "feed x, line 1: "),
    ],
)
def test_bad_lines_are_named(text: str, options: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read(text, **options)


@pytest.mark.parametrize("special", SPECIAL)
def test_special_purpose_space_is_left_out(special: str) -> None:
    network = ipaddress.ip_network(special)
    wide = str(network.supernet())
    inside = str(network.network_address + network.num_addresses // 2)
    neighbours = ["45.9.148.7", "2a06:e480::7"]
    found = read("\n".join([special, wide, inside, *neighbours]))
    assert found.text.splitlines() == neighbours
    assert found.left_out.total == 3
    assert set(found.left_out.examples) == {special, wide, inside}
    kept = read(f"{special}\n{inside}", bogons=True)
    assert kept.text.startswith(KEEP_BOGONS) and kept.entries == 2
    assert kept.left_out.total == 0


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "172.32.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2620::",
    ],
)
def test_what_is_beside_it_is_not(address: str) -> None:
    assert read(address).text == f"{address}\n"


def test_the_same_entries_have_the_same_digest() -> None:
    one, other = read("45.9.148.7\n45.9.148.8\n"), read("# x\n45.9.148.8\n45.9.148.7\n45.9.148.8")
    assert one.digest == other.digest
    assert one.digest != read("45.9.148.7\n45.9.148.8\n", bogons=True).digest


# First records: a header only if the column of addresses has such a name


@pytest.mark.parametrize(
    ("first", "options"),
    [
        ("203.0.113.300,first record is wrong", {"name": "csv"}),
        ("<html>error</html>", {"name": "csv"}),
        ("Service Unavailable", {"name": "csv"}),
        ("45.9.148/24,x", {"name": "csv"}),
        ("503", {"name": "csv", "header": "false"}),
        ("203.0.113.300 203.0.113.9", {"name": "ranges"}),
        ("<html>", {"name": "ranges"}),
        ("Error 503", {"name": "ranges"}),
        ("network", {"name": "ranges", "header": "false"}),
    ],
)
def test_a_wrong_first_record_is_not_a_header(first: str, options: Any) -> None:
    with pytest.raises(InvalidInput, match=r"feed x, line 3: "):
        read(f"# theirs\n\n{first}\n45.9.148.7\n", **options)


@pytest.mark.parametrize(
    ("first", "options"),
    [
        ("dst_ip,port", {"name": "csv"}),
        ("IP Address,seen", {"name": "csv"}),
        ("ipv4Prefix", {"name": "csv"}),
        ("port,network", {"name": "csv", "column": "2"}),
        ("Anschluss,x", {"name": "csv", "header": "true"}),
        ("Start End Netmask", {"name": "ranges"}),
        ("CIDR", {"name": "ranges"}),
        ("von bis", {"name": "ranges", "header": "true"}),
    ],
)
def test_a_header_is_skipped(first: str, options: Any) -> None:
    rows = "443,45.9.148.7\n" if options.get("column") == "2" else "45.9.148.7\n"
    assert read(f"# theirs\n\n{first}\n{rows}", **options).text == "45.9.148.7\n"


def test_a_named_column_is_in_the_header_and_nowhere_else() -> None:
    assert read("port,ip\n443,45.9.148.7\n", "csv", column="ip").text == "45.9.148.7\n"
    with pytest.raises(InvalidInput, match=r"feed x has no column 'ip'"):
        read("45.9.148.6,x\nip,x\n45.9.148.7,x\n", "csv", column="ip")


# Netmasks in ranges


@pytest.mark.parametrize(
    ("line", "prefixes"),
    [
        ("45.9.148.0 255.255.255.0", ["45.9.148.0/24"]),
        ("45.9.148.0,255.255.252.0,theirs", ["45.9.148.0/22"]),
        ("45.9.148.0\t255.255.255.255", ["45.9.148.0"]),
        ("45.9.148.0 45.9.148.255 24", ["45.9.148.0/24"]),
    ],
)
def test_a_netmask_is_not_the_end_of_a_range(line: str, prefixes: list[str]) -> None:
    assert read(line, "ranges").text.splitlines() == prefixes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("45.9.148.7 255.255.255.0", "write 45.9.148.0/24 for the network or 45.9.148.7"),
        ("45.9.148.0 255.0.255.0", "'255.0.255.0' is neither a netmask nor an address where"),
        ("45.9.148.0 0.0.0.255", "'0.0.0.255' does not come after '45.9.148.0'"),
    ],
)
def test_what_is_neither_is_refused(line: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=rf"feed x, line 1: .*{words}"):
        read(line, "ranges")


# Empty lists, and wrong lines that are tolerated


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("; retired, merged into another list\n; 2026/11/28\n;\n", {}),
        ("", {}),
        ("# nobody\n", {"name": "ranges"}),
        ("# none\nfirst_seen,dst_ip\n", {"name": "csv", "column": "dst_ip"}),
        ("create example hash:net family inet\n", {"name": "ipset"}),
        ("[]", {"name": "json", "column": "ip"}),
        ('{"type":"metadata","records":0}\n', {"name": "json", "column": "cidr"}),
    ],
)
def test_a_list_without_entries_is_empty(text: str, options: Any) -> None:
    found = read(text, **options)
    assert (found.text, found.entries, found.bad.total) == ("", 0, 0)


GOOD = "".join(f"45.9.148.{number}\n" for number in range(10))


def test_tolerated_lines_are_counted_and_shown() -> None:
    found = read(f"{GOOD}<html>\n45.9.148.300\n", max_bad=2)
    assert found.text == GOOD
    assert found.bad.total == 2
    assert found.bad.examples[0].startswith("line 11: '<html>' is not an IP address")
    assert found.bad.examples[1].startswith("line 12: '45.9.148.300' is not an IPv4 address")
    with pytest.raises(InvalidInput, match=r"line 12: .*\(2 wrong lines, and max_bad is 1\)"):
        read(f"{GOOD}<html>\n45.9.148.300\n", max_bad=1)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("45.9.148.9-45.9.148.7", {"name": "ranges"}),
        ("x,y", {"name": "csv", "header": "false"}),
        ("evil.example 45.9.148.7", {"name": "hosts"}),
        ("45.9.148.7#8 9", {"name": "csv", "header": "false"}),
        ("45.9.148.7 evil", {"name": "ipset"}),
    ],
)
def test_every_format_tolerates_them(line: str, options: Any) -> None:
    found = read(f"{GOOD}{line}\n", max_bad=1, **options)
    assert found.text == GOOD
    assert found.bad.total == 1


def test_an_error_page_is_never_tolerated() -> None:
    page = "<html>\n<body>\nnot here\n</body>\n</html>\n"
    for text in (page, page + "45.9.148.7\n"):
        with pytest.raises(InvalidInput, match=r"feed x has 5 wrong lines and [01] right ones"):
            read(text, max_bad=9)


def test_an_exception_is_never_tolerated() -> None:
    with pytest.raises(InvalidInput, match=r"is an exception"):
        read(f"{GOOD}add x 45.9.148.7 nomatch\n", "ipset", max_bad=9)


def test_a_long_line_is_quoted_shortly() -> None:
    with pytest.raises(InvalidInput) as caught:
        read("x" * 4000)
    assert len(str(caught.value)) < 250
