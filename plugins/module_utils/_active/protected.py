# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Finding protected addresses that the tables deny."""

from __future__ import annotations

import contextlib
import re
import typing as t

from .._base.address import Prefix, format_prefix, from_mapped, parse_prefix, widening
from .._base.errors import InvalidInput, some_of
from .._declared.describe import name_entries
from .._declared.entries import parse_line
from .._declared.search import covers
from .._kernel import abi
from .._network import protect
from .._tables.ranges import DENY
from .._tables.reader import lookup, verdicts

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .._network.protect import Protection
    from .._tables.tables import Tables
    from .generation import Areas

_REMEDY = "allow them with entries that do not expire"
_MAX_SHOWN = 5
_EXPIRING = re.compile(r"^.*\bexpires=.*$", re.MULTILINE)


class DeniesProtected(InvalidInput):
    """Lists would deny protected addresses. unforced: the message where nothing can be forced."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}; {_REMEDY}, remove the deny entries, or force it by hand (packetwatchctl --force, or "
            "force of the module packetwatch.xdp.access_lists)"
        )
        self.unforced = f"{what}; {_REMEDY}, or remove the deny entries"


def check_protected(areas: Areas, protection: Protection, state: State | None = None) -> None:
    """Raise `DeniesProtected` if lists deny a protected address that no allow entry covers.

    state: the one that has the lists, to name their entries.
    """
    hit = denied_protected(areas, protection)
    if not hit:
        return
    texts = [f"{text} ({why})" if why else text for text, why in hit]
    shown = some_of(texts, _MAX_SHOWN)
    entries = _denying(state, [text for text, dummy in hit[:_MAX_SHOWN]]) if state else []
    by = f", by {some_of(entries, _MAX_SHOWN)}" if entries else ""
    raise DeniesProtected(f"the lists would deny protected addresses: {shown}{by}")


def _denying(state: State, texts: t.Sequence[str]) -> list[str]:
    """The widest entry that denies each of these addresses, with its list."""
    found: dict[Prefix, str] = {}
    around = [widening(parse_prefix(text)) for text in texts]
    named = name_entries(state.deny, "deny", {prefix for prefixes in around for prefix in prefixes})
    for prefixes in around:
        widest = next((prefix for prefix in prefixes if prefix in named), None)
        if widest:
            found[widest] = named[widest]
    return [f"{format_prefix(prefix)} ({owner})" for prefix, owner in found.items()]


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


def may_lose_allow(state: State, protection: Protection) -> bool:
    """Whether a protected address may be denied once the allow entries have expired that expire."""
    expiring = []
    for text in state.allow.values():
        for line in _EXPIRING.findall(text) if "expires=" in text else ():
            # Feeds may have wrong lines, which the tables leave out.
            with contextlib.suppress(InvalidInput):
                entry = parse_line(line)
                expiring += [entry.prefix] if entry and entry.expires else []
    kept = [from_mapped(address, 128) for address in protection.hosts]
    kept += [
        from_mapped(address, length)
        for (length, address), flags in protection.nets.items()
        if flags & abi.NET_PROTECTED
    ]
    return any(covers(one, other) or covers(other, one) for one in expiring for other in kept)


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
