# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Declared state and its changes as text for people: sorted, and shortened if it gets long."""

from __future__ import annotations

import functools
import math
import re
import socket
import typing as t
from bisect import bisect_right
from struct import iter_unpack

from .._base.address import Prefix, format_prefix
from .._base.digest import digest_text
from .._tables.pool import IPV4, IPV6
from .._tables.ranges import LAST4, unite
from .bulk import DropIn, read_prefixes
from .drop_ins import DropIns
from .entries import BYTE_ORDER_MARK, expires_at, parse_list

if t.TYPE_CHECKING:
    from .._base.clock import Clock
    from .._tables.ranges import Ranges
    from .entries import Entry
    from .store import State

_MAX_LINES = 200
# So many words are searched for one by one.
_FEW = 8
_SHOWN_DIGITS = 12
# Addresses in an IPv6 /64, which usually is one network.
_NETWORK = 1 << 64
_LINE = re.compile("[^\n]+")
# Without these, only empty lines and those that begin with # hold no entry.
_ODD = ("\n ", "\n\t", *"\r\v\f\x1c\x1d\x1e\x1f")


def describe(before: State, after: State) -> tuple[str, str]:
    """Return two texts for a diff: entries, settings and program only if they differ, the rest in full.

    The second text also has the sums of added, removed and changed entries, as comments.
    """
    old_entries, new_entries = _entries(before, after), _entries(after, before)
    gone, come = old_entries - new_entries, new_entries - old_entries
    old = _declared(before) + _settings(before, after)
    new = _declared(after) + _settings(after, before)
    return _text(old, gone), _text(new, come) + _sizes(come, gone)


# Each text's count is needed several times during one activation.
@functools.lru_cache(maxsize=64)
def count_entries(text: str) -> int:
    """Return how many lines of a list hold an entry."""
    if text.isascii() and text[:1] not in (" ", "\t") and not any(odd in text for odd in _ODD):
        # The fast path, for most long lists.
        lines = text.count("\n") + (text[-1:] not in ("", "\n"))
        comments = text.count("\n#") + (text[:1] == "#")
        return lines - comments - _count_empty(text)
    return sum(1 for dummy in _entry_lines(text))


def _count_empty(text: str) -> int:
    """Return how many lines of a text are empty."""
    count = int(text[:1] == "\n")
    at = text.find("\n\n")
    while at >= 0:
        count += 1
        at = text.find("\n\n", at + 1)
    return count


def has_entries(text: str) -> bool:
    """Return whether a list holds an entry."""
    return any(True for dummy in _entry_lines(text))


def _entry_lines(text: str) -> t.Iterator[str]:
    for line in _LINE.finditer(text.removeprefix(BYTE_ORDER_MARK)):
        if line[0].partition("#")[0].strip():
            yield line[0]


def count_lists(state: State) -> dict[str, int]:
    """Return the number of declared entries by kind, "allow" and "deny"."""
    return {
        "allow": sum(count_entries(text) for text in state.allow.values()),
        "deny": sum(count_entries(text) for text in state.deny.values()),
    }


def _declared(state: State) -> list[str]:
    lines = [f"interface {name}: {mode}" for name, mode in sorted(state.interfaces.items())]
    lines += [f"next program of {name}: {item}" for name, item in sorted(state.next.items())]
    for name, keys in sorted(state.policy.items()):
        lines += [f"policy {name}: {key}={value}" for key, value in sorted(keys.items())]
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        lines += [f"{kind} list {name}: present" for name in sorted(lists)]
    return lines


def _settings(state: State, other: State) -> list[str]:
    """Lines for the settings and the program that another state does not have."""
    known = set(other.settings.splitlines())
    lines = [f"setting {line}" for line in state.settings.splitlines() if line not in known]
    if state.program and state.program != other.program:
        lines.append(f"program {digest_text(state.program)[:_SHOWN_DIGITS]}")
    return lines


def _entries(state: State, other: State) -> set[str]:
    """Return the entries of the drop-ins that are not the same in the other state."""
    found = set()
    for kind in ("allow", "deny"):
        lists, others = (DropIns.of(getattr(each, kind)) for each in (state, other))
        for name in lists:
            if lists.is_same(others, name):
                continue
            for line in lists[name].splitlines():
                bare = line.partition("#")[0].strip()
                if bare:
                    found.add(f"{kind} {name}: {bare}")
    return found


def _text(declared: list[str], entries: set[str]) -> str:
    lines = sorted(entries)
    more = len(lines) - _MAX_LINES
    if more > 0:
        lines = [*lines[:_MAX_LINES], f"... and {more} more entries"]
    return "".join(f"{line}\n" for line in declared + lines)


def _sizes(come: set[str], gone: set[str]) -> str:
    was, now = ({_place(entry) for entry in entries} for entries in (gone, come))
    lines = []
    for kind in ("allow", "deny"):
        for word, places in (("more", now - was), ("fewer", was - now)):
            bare = [place.partition(": ")[2] for place in places if place.startswith(kind)]
            if bare:
                lines.append(f"# {word} {kind} entries: {len(bare)}, {_addresses(bare)}\n")
        changed = sum(place.startswith(kind) for place in was & now)
        if changed:
            lines.append(f"# {kind} entries that expire at another time: {changed}\n")
    return "".join(lines)


def _place(entry: str) -> str:
    """Return an entry without its expiry."""
    return entry.partition(" expires=")[0].rstrip()


def _addresses(entries: list[str]) -> str:
    """Return as text how many addresses the entries cover together, by family."""
    # At the time 0 no entry has expired.
    found = read_prefixes("\n".join(entries), "difference", 0, True, "deny")
    sums = []
    for name, blocks in (("IPv4", found.v4), ("IPv6", found.v6)):
        spans = unite(blocks)
        count = sum(spans.ends) - sum(spans.starts) + len(spans.starts)
        if count >= _NETWORK and name == "IPv6":
            sums.append(f"IPv6 /64s: {count // _NETWORK}")
        elif count:
            sums.append(f"{name} addresses: {count}")
    return ", ".join(sums)


def name_entries(
    lists: t.Mapping[str, str], kind: str, prefixes: t.Collection[Prefix]
) -> dict[Prefix, str]:
    """Return the item or the list that each prefix is an entry of; prefixes without an entry are left out.

    lists: drop-ins of a kind ("allow", "deny") by owner. Entries that are not in canonical form may be
    missed.
    """
    wanted = {format_prefix(prefix): prefix for prefix in prefixes}
    found: dict[Prefix, str] = {}
    for owner, text in sorted(lists.items()):
        origins = text.origins if isinstance(text, DropIn) else {}
        words = set(wanted)
        if len(words) > _FEW:
            words.intersection_update(text.split())
        for word in words:
            prefix = wanted[word]
            if prefix in origins or _has_entry(text, word):
                found.setdefault(prefix, origins.get(prefix, f"the {kind} list {owner!r}"))
    return found


def _has_entry(text: str, word: str) -> bool:
    """Return whether a line begins with the word."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if text[at - 1 : at] in ("", "\n") and not text[end : end + 1].strip(" \t\r\n#"):
            return True
        at = text.find(word, end)
    return False


def list_entries(state: State, clock: Clock) -> list[dict[str, t.Any]]:
    """Return all declared entries as dictionaries: prefix, kind, owner, expires, comment, origin, state.

    The state is active, expired, or undecided if the clock cannot tell.
    """
    return [
        {
            "prefix": entry.text,
            "kind": kind,
            "owner": name,
            "expires": entry.expires,
            "comment": entry.comment,
            "origin": entry.origin,
            "state": _state(entry, clock),
        }
        for kind, lists in (("allow", state.allow), ("deny", state.deny))
        for name, text in sorted(lists.items())
        for entry in parse_list(text, f"{kind}.d/{name}.list")
    ]


def _state(entry: Entry, clock: Clock) -> str:
    expiry = expires_at(entry.expires) if entry.expires else math.inf
    if clock.is_undecided(expiry) and entry.expires:
        return "undecided"
    return "active" if clock.passed < expiry else "expired"


def format_ranges(families: t.Iterable[Ranges]) -> dict[str, str]:
    """Return a text each for "allow" and "deny": a line for each range, ADDRESS or FIRST-LAST, sorted.

    families: the ranges of IPv4, then those of IPv6.
    """
    lines: dict[str, list[str]] = {"allow": [], "deny": []}
    for ranges, write in zip(families, (_texts4, _texts6)):
        for kind, spans in (("allow", ranges.allow), ("deny", ranges.deny)):
            found = write(spans.starts)
            wide = spans.wide()
            for index, end in zip(wide, write([spans.ends[index] for index in wide])):
                found[index] += f"-{end}"
            lines[kind] += found
    return {kind: "\n".join([*found, ""]) for kind, found in lines.items()}


def _texts4(addresses: t.Sequence[int]) -> list[str]:
    return [socket.inet_ntoa(data) for (data,) in iter_unpack("4s", IPV4.pack(addresses))]


def _texts6(addresses: t.Sequence[int]) -> list[str]:
    ntop, family = socket.inet_ntop, socket.AF_INET6
    odd = bisect_right(
        addresses, LAST4
    )  # addresses to which inet_ntop may give a deprecated notation
    found = [format_prefix(Prefix(6, address, 128)) for address in addresses[:odd]]
    packed = IPV6.pack(addresses[odd:])
    return found + [ntop(family, data) for (data,) in iter_unpack("16s", packed)]
