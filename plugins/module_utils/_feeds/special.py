# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Special-purpose address space, which a published feed should not deny.

The prefixes come from IANA's registries for RFC 6890, without the blocks of public services (AS112, AMT),
and from the multicast ranges. Of IPv6, all of ::/8 and 100::/8 is reserved.
"""

from __future__ import annotations

import functools
import typing as t

from .._base.address import parse_prefix
from .._tables.pool import IPV4, IPV6
from .._tables.ranges import Spans, spans_of

SPECIAL: t.Final[dict[str, str]] = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocols",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "6to4 relays",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "::/8": "reserved",
    "100::/8": "discarded",
    "2001::/23": "protocols",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}


@functools.cache
def special_spans(family: int) -> Spans:
    """Return the special-purpose addresses of a family (4 or 6)."""
    prefixes = [parse_prefix(text) for text in SPECIAL]
    nets = [(prefix.value, prefix.last) for prefix in prefixes if prefix.family == family]
    return spans_of(nets, IPV4 if family == 4 else IPV6)
