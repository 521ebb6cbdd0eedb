# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pseudo-random source addresses, computed from numbers in the same way as in programs.bpf.c."""

from __future__ import annotations

import random
from collections.abc import Iterable
from socket import AF_INET6, inet_ntop

IPV4, IPV6, IPV6_CLUSTERED = 0, 1, 2
# One in eight addresses is a loopback, multicast or reserved one.
WALKS = 8
CLUSTERS = 5000
# Allocations of the registries; sixteen, so that the lowest bits of a cluster's number choose one.
TOPS = (
    0x2001, 0x2003, 0x2400, 0x2401, 0x2402, 0x2404, 0x2405, 0x2407,
    0x2600, 0x2602, 0x2604, 0x2607, 0x2800, 0x2804, 0x2A00, 0x2A02,
)  # fmt: skip
_WORD, _LONG = (1 << 32) - 1, (1 << 64) - 1


def mix32(x: int) -> int:
    """Return MurmurHash3's finalizer of a number, which is a permutation of 32 bits."""
    x = (x ^ x >> 16) * 0x85EBCA6B & _WORD
    x = (x ^ x >> 13) * 0xC2B2AE35 & _WORD
    return x ^ x >> 16


def mix64(x: int) -> int:
    """Return the same over 64 bits."""
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD & _LONG
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 & _LONG
    return x ^ x >> 33


def address4(number: int) -> int:
    address = mix32(number)
    for _again in range(WALKS):
        # The filter drops packets from these. Mixed again, different numbers still give different addresses.
        if address >> 29 == 7 or address >> 24 == 127:
            address = mix32(address)
    return address


def address6(number: int, layout: int) -> int:
    high = mix64(number)
    if layout == IPV6_CLUSTERED:
        cluster = (high >> 32) * CLUSTERS >> 32
        below = mix32(cluster) & 0xFFFF
        high = TOPS[cluster & 15] << 48 | below << 32 | high & _WORD
    else:
        high = high >> 3 | 1 << 61
    return high << 64 | mix64(number | 1 << 32)


def text4(address: int) -> str:
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def text6(address: int) -> str:
    return inet_ntop(AF_INET6, address.to_bytes(16, "big"))


def hosts4(numbers: Iterable[int]) -> list[str]:
    return [text4(address4(number)) for number in numbers]


def hosts6(numbers: Iterable[int], layout: int) -> list[str]:
    return [text6(address6(number, layout)) for number in numbers]


def prefixes4(count: int, seed: int = 4) -> list[str]:
    """Return random IPv4 prefixes from /25 to /32."""
    choice = random.Random(seed)
    found = []
    for _dummy in range(count):
        length = choice.randint(25, 32)
        found.append(f"{text4(choice.getrandbits(length) << 32 - length)}/{length}")
    return found
