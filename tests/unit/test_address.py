# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prefixes and addresses: parsing, errors with their remedy, formatting."""

from __future__ import annotations

import ipaddress
from random import Random

import pytest

from packetwatch_core._base.address import (
    BITS,
    Prefix,
    format_prefix,
    from_mapped,
    mapped,
    mapped_length,
    parse_address,
    parse_prefix,
)
from packetwatch_core._base.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.7", Prefix(4, 0xC0000207, 32)),
        ("192.0.2.7/32", Prefix(4, 0xC0000207, 32)),
        ("0.0.0.0/0", Prefix(4, 0, 0)),
        ("203.0.113.0/24", Prefix(4, 0xCB007100, 24)),
        ("255.255.255.255", Prefix(4, 0xFFFFFFFF, 32)),
        ("::/0", Prefix(6, 0, 0)),
        ("::1", Prefix(6, 1, 128)),
        ("2001:db8::/32", Prefix(6, 0x20010DB8 << 96, 32)),
        ("2001:0DB8:0000::0001", Prefix(6, 0x20010DB8 << 96 | 1, 128)),
        ("::/80", Prefix(6, 0, 80)),
        ("::1.2.3.4", Prefix(6, 0x01020304, 128)),
    ],
)
def test_valid_texts(text: str, expected: Prefix) -> None:
    assert parse_prefix(text) == expected


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        (" 192.0.2.7", "write '192.0.2.7'"),
        ("192.0.2.7\n", "write '192.0.2.7'"),
        ("192.0.2.0/24 ", "write '192.0.2.0/24'"),
        ("192.0.2.0 / 24", "write '192.0.2.0/24'"),
        ("192.0.2.7 192.0.2.8", "one address or prefix in each entry"),
        ("192.0.2.7/24", "write 192.0.2.0/24 for the network or 192.0.2.7 for the single address"),
        ("2001:db8::1/64", "write 2001:db8::/64 for the network or 2001:db8::1 for"),
        ("128.0.0.0/0", "write 0.0.0.0/0 for"),
        ("192.0.2.0/33", "a number from 0 to 32"),
        ("2001:db8::/129", "a number from 0 to 128"),
        ("192.0.2.0/", "a number from 0 to 32"),
        ("192.0.2.0/-1", "a number from 0 to 32"),
        ("192.0.2.0/+8", "a number from 0 to 32"),
        ("192.0.2.0/२४", "a number from 0 to 32"),
        ("192.0.2.0/024", "write /24, without leading zeros"),
        ("192.0.2.0/24/8", "a number from 0 to 32"),
        ("192.0.2.0/255.255.255.0", "write the netmask as its length, /24"),
        ("192.0.2.0/255.0.255.0", "a number from 0 to 32"),
        ("192.0.2.0/999.0.0.0", "a number from 0 to 32"),
        ("192.0.02.7", "write '192.0.2.7'"),
        ("010.0.0.0/8", "write '10.0.0.0/8'"),
        ("192.0.2.256", "numbers from 0 to 255 between the dots"),
        ("192.0.2", "is not an IP address or prefix"),
        ("192.0.2.7.1", "is not an IP address or prefix"),
        ("0xc0000207", "is not an IP address or prefix"),
        ("3221225991", "is not an IP address or prefix"),
        ("example.org", "host names are not resolved"),
        ("192.0.2.1-192.0.2.9", "is a range"),
        ("2001:db8::1-2001:db8::9", "is a range"),
        ("[2001:db8::1]", "without them"),
        ("fe80::1%eth0", "write 'fe80::1'"),
        ("fe80::%eth0/64", "write 'fe80::/64'"),
        ("::ffff:192.0.2.7", "write 192.0.2.7"),
        ("::ffff:c000:200/120", "write 192.0.2.0/24"),
        ("::ffff:0:0/96", "write 0.0.0.0/0"),
        ("2001:db8::12345", "is not an IP address or prefix"),
        ("2001:db8:::", "is not an IP address or prefix"),
        ("192.0.2.7\0", "is not an IP address or prefix"),
        ("\uff11\uff19\uff12.0.2.7", "is not an IP address or prefix"),
        ("\udcff", "is not an IP address or prefix"),
    ],
)
def test_refused_texts_name_the_value_and_the_remedy(text: str, remedy: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_prefix(text)
    assert repr(text) in str(caught.value)
    assert remedy in str(caught.value)


def test_address_is_a_prefix_of_full_length() -> None:
    assert parse_address("192.0.2.7") == parse_prefix("192.0.2.7/32")
    assert parse_address("2001:db8::1/128").is_host


def test_network_where_an_address_is_wanted() -> None:
    with pytest.raises(InvalidInput, match="is a network, but a single address"):
        parse_address("192.0.2.0/24")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.7/32", "192.0.2.7"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:DB8:0:0:0:0:0:1/128", "2001:db8::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("0:0:0:0:0:0:0:0", "::"),
        ("::0.0.0.1", "::1"),
        ("::1.2.3.4", "::102:304"),
        ("0::ffff", "::ffff"),
        ("0::1:0", "::1:0"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert format_prefix(parse_prefix(text)) == canonical


@pytest.mark.parametrize("family", [4, 6])
def test_every_length_agrees_with_the_standard_library(family: int) -> None:
    random = Random(family)
    for length in range(BITS[family] + 1):
        for _number in range(5):
            shift = BITS[family] - length
            prefix = Prefix(family, random.getrandbits(BITS[family]) >> shift << shift, length)
            text = format_prefix(prefix)
            network = ipaddress.ip_network(text)
            assert (int(network[0]), int(network[-1])) == (prefix.value, prefix.last)
            assert text == (str(network) if shift else str(network[0]))
            assert parse_prefix(text) == prefix
            assert from_mapped(mapped(prefix), mapped_length(prefix)) == prefix


def test_mapped_addresses_are_16_bytes_in_network_order() -> None:
    prefix = parse_prefix("192.0.2.0/24")
    assert mapped(prefix) == bytes.fromhex("00000000000000000000ffffc0000200")
    assert mapped_length(prefix) == 120
    assert mapped(parse_prefix("2001:db8::1")).hex() == "20010db8000000000000000000000001"
    assert mapped_length(parse_prefix("2001:db8::/32")) == 32


def test_bits_after_a_mapped_length_are_cleared() -> None:
    assert format_prefix(from_mapped(bytes.fromhex("20010db8" + "ff" * 12), 32)) == "2001:db8::/32"
    assert format_prefix(from_mapped(bytes(10) + b"\xff\xff\x0a\1\1\1", 104)) == "10.0.0.0/8"
    assert format_prefix(from_mapped(bytes(10) + b"\xff\xff\x0a\1\1\1", 64)) == "::/64"


@pytest.mark.parametrize(("address", "plen"), [(b"", 0), (bytes(4), 32), (bytes(16), 129)])
def test_what_is_no_mapped_address(address: bytes, plen: int) -> None:
    with pytest.raises(InvalidInput, match="16 bytes"):
        from_mapped(address, plen)


def test_prefixes_sort_by_family_address_and_length() -> None:
    texts = ["10.0.0.0/8", "10.0.0.0/9", "10.0.0.0", "192.0.2.1", "::", "2001:db8::/32"]
    assert sorted(map(parse_prefix, texts)) == [parse_prefix(text) for text in texts]
