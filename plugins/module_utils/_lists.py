# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Declared state → what a generation is made of, checked before anything changes."""

from __future__ import annotations

import bisect
import math
import time
import typing as t

from . import _abi, _protect
from ._address import Prefix, format_prefix, from_mapped
from ._bulk import read_prefixes
from ._clock import clock_synchronised
from ._digest import sha256_for
from ._errors import InvalidInput
from ._generation import Areas
from ._ranges import DENY, Prefixes
from ._tables import FORMAT, compile_tables, lookup4, lookup6, read_ranges

if t.TYPE_CHECKING:
    from ._protect import Protection
    from ._store import State
    from ._tables import Tables

_SHOWN = 5
# Seconds after which what the clock did not decide is to be decided anew.
_UNSETTLED = 60.0


class Lists(t.NamedTuple):
    """Compiled lists; counts of what they hold."""

    areas: Areas
    counts: dict[str, int]


def digest_of(state: State) -> bytes:
    """SHA-256 of all drop-ins, with their names, and of the format that their tables have."""
    check = sha256_for(
        sum(len(text) for lists in (state.allow, state.deny) for text in lists.values())
    )
    check.update(f"tables {FORMAT}\n".encode())
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        for name, text in sorted(lists.items()):
            check.update(f"{kind} {name} {len(text)}\n{text}".encode())
    return bytes(check.digest())


def pair_digest(state: State, name: str) -> str:
    """The same for one named pair of lists, as text that is short enough to compare by eye."""
    allow, deny = {name: state.allow.get(name, "")}, {name: state.deny.get(name, "")}
    return digest_of(state._replace(allow=allow, deny=deny)).hex()[:16]


def is_current(areas: Areas, state: State) -> bool:
    """Whether tables were made from these lists and no entry has expired since."""
    due = areas.next_expiry
    return areas.lists == digest_of(state) and (not due or time.time() < due)


def compile_lists(state: State, *, for_good: bool = False) -> Lists:
    """Tables of all lists; InvalidInput names file and line of what is wrong.

    for_good: without the allow entries that expire.
    """
    now, synchronised = time.time(), clock_synchronised()
    found = {}
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        union = Prefixes()
        for name, text in sorted(lists.items()):
            path = f"{kind}.d/{name}.list"
            at = math.inf if for_good and kind == "allow" else now
            union.add(read_prefixes(text, path, at, synchronised, t.cast(t.Any, kind)))
        found[kind] = union
    expiries = [union.next_expiry for union in found.values() if union.next_expiry is not None]
    if any(union.unsettled for union in found.values()):
        expiries.append(now + _UNSETTLED)
    tables = compile_tables(found["allow"], found["deny"])
    counts = {
        "allow": tables.allow_entries,
        "deny": tables.deny_entries,
        "expired": sum(union.expired for union in found.values()),
        "ranges_ipv4": tables.ranges4,
        "ranges_ipv6": tables.ranges6,
        "pages": 1 + tables.pages,
    }
    next_expiry = math.ceil(min(expiries)) if expiries else 0
    return Lists(Areas.of(tables, digest_of(state), next_expiry), counts)


def check_protected(areas: Areas, protection: Protection) -> None:
    """Refuse lists that deny what is protected and that no allow covers."""
    tables = areas.tables()
    hit = [
        f"{_text(128, address)} ({_protect.ORIGINS.get(origin, 'protected')})"
        for address, origin in sorted(protection.hosts.items())
        if _verdict(tables, address) == DENY
    ]
    hit += [_text(*net) for net in _denied_nets(tables, protection)]
    if hit:
        more = f" and {len(hit) - _SHOWN} more" if len(hit) > _SHOWN else ""
        raise InvalidInput(
            f"the lists would deny protected addresses: {', '.join(hit[:_SHOWN])}{more}; "
            "allow them for good, take the deny away, or use force if you mean it"
        )


def _verdict(tables: Tables, address: bytes) -> int:
    prefix = from_mapped(address, 128)
    look = lookup4 if prefix.family == 4 else lookup6
    return look(tables, prefix.value)


def _denied_nets(tables: Tables, protection: Protection) -> list[tuple[int, bytes]]:
    """Declared protected prefixes of which any part is denied."""
    nets = [net for net, flags in protection.nets.items() if flags & _abi.NET_PROTECTED]
    if not nets:
        return []
    families = dict(zip((4, 6), read_ranges(tables)))
    found = []
    for length, address in sorted(nets):
        prefix = from_mapped(address, length)
        spans = families[prefix.family].deny
        last = prefix.value | _host_part(prefix)
        at = bisect.bisect_right(spans.starts, last) - 1
        if at >= 0 and spans.ends[at] >= prefix.value:
            found.append((length, address))
    return found


def _host_part(prefix: Prefix) -> int:
    return (1 << ((32 if prefix.family == 4 else 128) - prefix.length)) - 1


def _text(length: int, address: bytes) -> str:
    return format_prefix(from_mapped(address, length))
