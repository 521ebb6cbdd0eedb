# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Declared state and its changes as text for people: sorted, and shortened if it gets long."""

from __future__ import annotations

import functools
import re
import socket
import typing as t
from bisect import bisect_right
from struct import iter_unpack

from .._base.address import Prefix, format_prefix
from .._base.digest import digest_text
from .._tables.pool import IPV4, IPV6
from .._tables.ranges import LAST4, unite
from .bulk import read_prefixes
from .entries import BYTE_ORDER_MARK, parse_list

if t.TYPE_CHECKING:
    from .._tables.ranges import Ranges
    from .store import State

_MAX_LINES = 200
_SHOWN_DIGITS = 12
# Addresses in an IPv6 /64, which usually is one network.
_NETWORK = 1 << 64
_LINE = re.compile("[^\n]+")
# Without these, every line of a text holds an entry.
_ODD = ("#", "\n\n", *" \t\r\v\f\x1c\x1d\x1e\x1f")


def describe(before: State, after: State) -> tuple[str, str]:
    """Return two texts for a diff: entries, settings and program only if they differ, the rest in full.

    The second text also has the sums of added and removed entries, as comments.
    """
    old, new = _declared(before), _declared(after)
    old_entries, new_entries = _entries(before), _entries(after)
    gone, come = old_entries - new_entries, new_entries - old_entries
    old += _settings(before, after)
    new += _settings(after, before)
    return _text(old, gone), _text(new, come) + _sizes(come, gone)


# Each text's count is needed several times during one activation.
@functools.lru_cache(maxsize=64)
def count_entries(text: str) -> int:
    """Return how many lines of a list hold an entry."""
    if text.isascii() and not any(odd in text for odd in _ODD) and text[:1] != "\n":
        # The fast path, for most long lists.
        return text.count("\n") + (text[-1:] not in ("", "\n"))
    return sum(1 for dummy in _entry_lines(text))


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


def _entries(state: State) -> set[str]:
    found = set()
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        for name, text in lists.items():
            for line in text.splitlines():
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
    lines = []
    for kind in ("allow", "deny"):
        for word, entries in (("more", come), ("fewer", gone)):
            bare = [entry.partition(": ")[2] for entry in entries if entry.startswith(kind)]
            if bare:
                lines.append(f"# {word} {kind} entries: {len(bare)}, {_addresses(bare)}\n")
    return "".join(lines)


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


def list_entries(state: State) -> list[dict[str, t.Any]]:
    """Return all declared entries as dictionaries: prefix, kind, owner, expires, comment."""
    return [
        {
            "prefix": entry.text,
            "kind": kind,
            "owner": name,
            "expires": entry.expires,
            "comment": entry.comment,
        }
        for kind, lists in (("allow", state.allow), ("deny", state.deny))
        for name, text in sorted(lists.items())
        for entry in parse_list(text, f"{kind}.d/{name}.list")
    ]


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
