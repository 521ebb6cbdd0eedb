# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Entries of lists that decide no packet: which, and why.

Only changes and verifications look for them. A boot does not, and so it does not load this file.
"""

from __future__ import annotations

import re
import typing as t

from .._base.address import BITS, Prefix, format_prefix, parse_prefix, widening
from .._base.errors import InvalidInput
from .._declared.describe import name_entries
from .._declared.entries import expires_at
from .._tables.pool import IPV4, IPV6
from .._tables.ranges import Blocks, Spans, spans_of, unite, within

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .._tables.ranges import Prefixes

SHADOWED, IMPOSSIBLE, EXPIRED = "shadowed", "impossible", "expired"

# Of each reason, this many entries are named.
_MAX_NAMED = 5
_NO_SOURCES: t.Final = {
    "224.0.0.0/4": "a multicast address",
    "255.255.255.255": "the broadcast address",
    "ff00::/8": "a multicast address",
    "::ffff:0:0:0/96": "a translated IPv4 address",
}
"""Addresses that no packet has as its source: the kernel drops such packets anyway."""
_TRANSLATED = 0xFFFF0000
_ENTRY = re.compile(r"^[ \t]*([^\s#]+)[ \t]+expires=([^\s#]+)", re.MULTILINE)


class Idle(t.NamedTuple):
    """Entries without effect, by reason. counts: how many. named: some of them, in words."""

    counts: dict[str, int]
    named: dict[str, list[str]]

    @property
    def texts(self) -> list[str]:
        """The named entries of all reasons."""
        return [text for texts in self.named.values() for text in texts]


def find_idle(state: State, allow: Prefixes, deny: Prefixes, now: float | None) -> Idle:
    """Find the entries of a state's lists that have no effect.

    allow, deny: the prefixes of the lists. now: Unix time; None if the clock cannot be trusted.
    """
    shadowed = _Found()
    impossible = _Found()
    for family, packing in ((4, IPV4), (6, IPV6)):
        allowed, denied = (allow.v4, deny.v4) if family == 4 else (allow.v6, deny.v6)
        if denied.hosts or denied.starts:
            shadowed.add("deny", family, denied, unite(allowed))
        nets = [parse_prefix(text) for text in _NO_SOURCES]
        spans = spans_of([(net.value, net.last) for net in nets if net.family == family], packing)
        impossible.add("allow", family, allowed, spans)
        impossible.add("deny", family, denied, spans)
    expired = 0 if now is None else allow.expired + deny.expired
    counts = {SHADOWED: shadowed.total, IMPOSSIBLE: impossible.total, EXPIRED: expired}
    named = {
        SHADOWED: _explain_shadowed(state, shadowed.named["deny"]),
        IMPOSSIBLE: [
            *_explain_impossible(state.allow, "allow", impossible.named["allow"]),
            *_explain_impossible(state.deny, "deny", impossible.named["deny"]),
        ],
        EXPIRED: _explain_expired(state, now) if now is not None and expired else [],
    }
    return Idle(counts, named)


class _Found:
    """Entries without effect for one reason. named: some of them, by kind."""

    def __init__(self) -> None:
        self.total = 0
        self.named: dict[str, list[Prefix]] = {"allow": [], "deny": []}

    def add(self, kind: str, family: int, blocks: Blocks, spans: Spans) -> None:
        """Add the blocks that lie inside the spans."""
        total, some = within(blocks, spans, _MAX_NAMED)
        self.total += total
        self.named[kind] += [
            Prefix(family, first, BITS[family] - (last - first).bit_length())
            for first, last in some
        ]


def _explain_shadowed(state: State, entries: t.Sequence[Prefix]) -> list[str]:
    entries = entries[:_MAX_NAMED]
    if not entries:
        return []
    denied = name_entries(state.deny, "deny", entries)
    around = {entry: widening(entry) for entry in entries}
    allowed = name_entries(
        state.allow, "allow", {prefix for prefixes in around.values() for prefix in prefixes}
    )
    texts = []
    for entry in entries:
        by = next((prefix for prefix in around[entry] if prefix in allowed), None)
        reason = "several allowed prefixes cover it"
        if by is not None:
            reason = f"{allowed[by]} allows {'it' if by == entry else format_prefix(by)}"
        texts.append(f"{_name(entry, denied)} has no effect: {reason}; remove one of the two")
    return texts


def _explain_impossible(
    lists: t.Mapping[str, str], kind: str, entries: t.Sequence[Prefix]
) -> list[str]:
    entries = entries[:_MAX_NAMED]
    if not entries:
        return []
    named = name_entries(lists, kind, entries)
    return [
        f"{_name(entry, named)} has no effect: no packet has {_what(entry)} as its source; "
        f"{_remedy(entry)}"
        for entry in entries
    ]


def _explain_expired(state: State, now: float) -> list[str]:
    texts: list[str] = []
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        for owner, text in sorted(lists.items()):
            # Most lists have no entry that expires, and finding out is fast.
            for word, when in _ENTRY.findall(text) if "expires=" in text else ():
                if len(texts) == _MAX_NAMED:
                    return texts
                try:
                    entry, end = parse_prefix(word), expires_at(when)
                except InvalidInput:
                    continue
                if end <= now:
                    named = name_entries({owner: text}, kind, [entry])
                    texts.append(
                        f"{_name(entry, named)} has no effect: it expired at {when}; remove it"
                    )
    return texts


def _name(entry: Prefix, named: t.Mapping[Prefix, str]) -> str:
    where = named.get(entry)
    return f"{where}: {format_prefix(entry)}" if where else format_prefix(entry)


def _what(entry: Prefix) -> str:
    """What kind of address the entry holds; the narrowest kind counts."""
    kinds = {parse_prefix(text): what for text, what in _NO_SOURCES.items()}
    return next(kinds[prefix] for prefix in reversed(widening(entry)) if prefix in kinds)


def _remedy(entry: Prefix) -> str:
    if entry.family == 6 and entry.value >> 32 == _TRANSLATED:
        plain = Prefix(4, entry.value & 0xFFFFFFFF, max(entry.length - 96, 0))
        return f"write {format_prefix(plain)} instead"
    return "remove it"
