# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Prefixes and addresses: parse, format, map to 16 bytes.

The C library's inet_pton and inet_ntop do the work: they are ten times as fast as the module
`ipaddress`, which matters for lists of a million entries. A text that they refuse is examined once
more, slowly, so that the error can name the remedy.
"""

from __future__ import annotations

import re
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple

from .errors import InvalidInput
from .number import read_whole

BITS = {4: 32, 6: 128}

_MAPPED_BYTES = b"\0" * 10 + b"\xff\xff"
_MAPPED_NUMBER = 0xFFFF << 32
_MAPPED_BITS = 96
# The longest valid text has 49 characters. Longer ones are refused before a message quotes all of them.
_MAX_TEXT, _MAX_SHOWN = 200, 60
_EXAMPLE = "write an address or a prefix such as 192.0.2.7, 203.0.113.0/24 or 2001:db8::/32"
_DOTTED = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,10}){3}")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")


class Prefix(NamedTuple):
    """An address block; a host is a block of the full length."""

    family: int
    """4 or 6."""
    value: int
    """The network's address as a number; the bits after the prefix length are zero."""
    length: int
    """0-32 or 0-128."""

    @property
    def last(self) -> int:
        """The highest address of the block, as a number."""
        return self.value | ((1 << (BITS[self.family] - self.length)) - 1)

    @property
    def is_host(self) -> bool:
        """Whether the block is a single address."""
        return self.length == BITS[self.family]


def parse_prefix(text: str) -> Prefix:
    """Return the prefix that the text names; an address without a length is a host.

    Raises InvalidInput.
    """
    if len(text) > _MAX_TEXT:
        raise InvalidInput(f"{text[:_MAX_SHOWN]!r}... has {len(text)} characters: {_EXAMPLE}")
    address, slash, length_text = text.partition("/")
    try:
        if ":" in address:
            family, value = 6, int.from_bytes(inet_pton(AF_INET6, address), "big")
        else:
            family, value = 4, int.from_bytes(inet_pton(AF_INET, address), "big")
    except (OSError, ValueError):
        raise _explain(text, address) from None
    bits = BITS[family]
    length = _parse_length(text, length_text, bits) if slash else bits
    host_part = value & ((1 << (bits - length)) - 1)
    if host_part:
        network = format_prefix(Prefix(family, value - host_part, length))
        host = format_prefix(Prefix(family, value, bits))
        raise InvalidInput(
            f"{text!r} has bits set after its prefix length: "
            f"write {network} for the network or {host} for the single address"
        )
    if family == 6 and length >= _MAPPED_BITS and value >> 32 == 0xFFFF:
        plain = format_prefix(Prefix(4, value & 0xFFFFFFFF, length - _MAPPED_BITS))
        raise InvalidInput(
            f"{text!r} is an IPv4 address in IPv6 notation, which no packet carries: write {plain}"
        )
    return Prefix(family, value, length)


def parse_address(text: str) -> Prefix:
    """Return the single address that the text names, as a prefix of full length.

    Raises InvalidInput, also for a prefix that holds more than one address.
    """
    prefix = parse_prefix(text)
    if not prefix.is_host:
        raise InvalidInput(
            f"{text!r} is a network, but a single address is needed here: "
            f"write one address of that network, without a prefix length"
        )
    return prefix


def format_prefix(prefix: Prefix) -> str:
    """Return the canonical text (RFC 5952); a host is written without its length."""
    family, value, length = prefix
    if family == 4:
        text = inet_ntop(AF_INET, value.to_bytes(4, "big"))
    elif 0xFFFF < value <= 0xFFFFFFFF:
        # inet_ntop would write ::1.2.3.4, a notation that RFC 4291 (2.5.5.1) deprecates.
        text = f"::{value >> 16:x}:{value & 0xFFFF:x}"
    else:
        text = inet_ntop(AF_INET6, value.to_bytes(16, "big"))
    return text if length == BITS[family] else f"{text}/{length}"


def mapped(prefix: Prefix) -> bytes:
    """Return the address as the BPF maps hold it: 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    if prefix.family == 4:
        return _MAPPED_BYTES + prefix.value.to_bytes(4, "big")
    return prefix.value.to_bytes(16, "big")


def mapped_length(prefix: Prefix) -> int:
    """Return the prefix length over the 128 bits of the mapped address."""
    return prefix.length + _MAPPED_BITS if prefix.family == 4 else prefix.length


def from_mapped(address: bytes, plen: int) -> Prefix:
    """Return the prefix for 16 mapped bytes and a length over 128 bits: the inverse of `mapped`.

    The bits after the length are cleared, because the kernel's LPM tries ignore them. Raises
    InvalidInput unless there are 16 bytes and a length of 0-128.
    """
    if len(address) != 16 or not 0 <= plen <= 128:
        raise InvalidInput(
            f"{bytes(address).hex()!r}/{plen} is not a mapped address: "
            f"16 bytes and a length from 0 to 128 are needed"
        )
    shift = 128 - plen
    value = int.from_bytes(address, "big") >> shift << shift
    if plen >= _MAPPED_BITS and value >> 32 == 0xFFFF:
        return Prefix(4, value - _MAPPED_NUMBER, plen - _MAPPED_BITS)
    return Prefix(6, value, plen)


def _parse_length(text: str, length_text: str, bits: int) -> int:
    """Return the number after the slash; raises InvalidInput unless it is from 0 to bits."""
    length = read_whole(length_text, bits)
    if length is not None and _LENGTH.fullmatch(length_text):
        return length
    if text.split() != [text]:
        raise _explain(text, text)
    remedy = f"write a number from 0 to {bits} after the slash"
    if bits == 32 and _DOTTED.fullmatch(length_text):
        mask = netmask_length(length_text)
        if mask is not None:
            remedy = f"write the netmask as its length, /{mask}"
    elif length is not None:
        remedy = f"write /{length}, without leading zeros"
    raise InvalidInput(f"{text!r} has no valid prefix length: {remedy}")


def netmask_length(text: str) -> int | None:
    """Return the prefix length of a netmask; None if the text is not a netmask."""
    try:
        inverse = int.from_bytes(inet_pton(AF_INET, text), "big") ^ 0xFFFFFFFF
    except OSError:
        return None
    return None if inverse & (inverse + 1) else 32 - inverse.bit_length()


def _explain(text: str, address: str) -> InvalidInput:
    """Return the error for an address that inet_pton refused."""
    bare = "".join(text.split())
    if not bare:
        return InvalidInput(f"{text!r} is empty: {_EXAMPLE}, or remove it")
    if bare != text:
        if _is_valid(bare):
            return InvalidInput(f"{text!r} contains white space: write {bare!r}")
        return InvalidInput(
            f"{text!r} contains white space: write one address or prefix in each entry"
        )
    if "%" in text:
        plain = re.sub(r"%[^/]*", "", text)
        return InvalidInput(
            f"{text!r} has a zone, which packets do not carry: write {plain!r}, "
            f"which applies on every interface"
        )
    if _DOTTED.fullmatch(address):
        return _explain_dotted(text, address)
    if "-" in address and _is_valid(address.partition("-")[0]):
        return InvalidInput(f"{text!r} is a range: write it as one or more prefixes")
    if text.startswith("["):
        return InvalidInput(f"{text!r} has brackets: write the address without them")
    return InvalidInput(
        f"{text!r} is not an IP address or prefix (host names are not resolved): {_EXAMPLE}"
    )


def _explain_dotted(text: str, address: str) -> InvalidInput:
    """Return the error for four decimal numbers that are not an IPv4 address."""
    parts = address.split(".")
    if any(int(part) > 255 for part in parts):
        return InvalidInput(
            f"{text!r} is not an IPv4 address: write numbers from 0 to 255 between the dots"
        )
    plain = ".".join(str(int(part)) for part in parts)
    return InvalidInput(
        f"{text!r} has leading zeros, which some programs read as octal numbers: "
        f"write {plain + text[len(address) :]!r}"
    )


def _is_valid(text: str) -> bool:
    try:
        parse_prefix(text)
    except InvalidInput:
        return False
    return True


def widening(prefix: Prefix) -> list[Prefix]:
    """Return the prefix and all wider ones around it, the widest first."""
    bits = BITS[prefix.family]
    return [
        Prefix(prefix.family, prefix.value >> (bits - length) << (bits - length), length)
        for length in range(prefix.length + 1)
    ]
