# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Finding protected addresses that the tables deny."""

from __future__ import annotations

import typing as t

from .._base.address import Prefix, format_prefix, from_mapped
from .._base.errors import InvalidInput, some_of
from .._kernel import abi
from .._network import protect
from .._tables.ranges import DENY
from .._tables.reader import lookup, verdicts

if t.TYPE_CHECKING:
    from .._network.protect import Protection
    from .._tables.tables import Tables
    from .generation import Areas

_MAX_SHOWN = 5


def check_protected(areas: Areas, protection: Protection) -> None:
    """Raise `InvalidInput` if lists deny a protected address that no allow entry covers."""
    hit = [f"{text} ({why})" if why else text for text, why in denied_protected(areas, protection)]
    if hit:
        raise InvalidInput(
            f"the lists would deny protected addresses: {some_of(hit, _MAX_SHOWN)}; "
            "allow them with entries that do not expire, remove the deny entries, or set force"
        )


def denied_protected(areas: Areas, protection: Protection) -> list[tuple[str, str]]:
    """Denied protected addresses with their origin, and protected prefixes of which a part is denied."""
    tables = areas.tables()
    hosts = [
        (from_mapped(address, 128), protect.ORIGINS.get(origin, "protected"))
        for address, origin in sorted(protection.hosts.items())
    ]
    hit = [(format_prefix(host), why) for host, why in hosts if is_denied(tables, host)]
    nets = (from_mapped(address, length) for length, address in _denied_nets(tables, protection))
    return hit + [(format_prefix(net), "") for net in nets]


def is_denied(tables: Tables, prefix: Prefix) -> bool:
    """Whether the lists deny an address; of a prefix, whether they deny its first address."""
    return lookup(tables, prefix.family, prefix.value) == DENY


def _denied_nets(tables: Tables, protection: Protection) -> list[tuple[int, bytes]]:
    """Declared protected prefixes of which a part is denied."""
    nets = [key for key, flags in protection.nets.items() if flags & abi.NET_PROTECTED]
    found = []
    for family in (4, 6):
        own = {
            key: prefix for key in nets if (prefix := from_mapped(key[1], key[0])).family == family
        }
        parts = [(prefix.value, prefix.last) for prefix in own.values()]
        held = verdicts(tables, family, parts)
        found += [key for key, said in zip(own, held) if DENY in said]
    return sorted(found)
