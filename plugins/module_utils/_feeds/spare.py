# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What feeds must not deny on this host: connected networks, and protected addresses ("spared").

A feed's drop-in is stored as it is; the compiler leaves out entries that overlap with spared prefixes.
A note on disk says which prefixes were spared in the active tables. So a later comparison compiles with
the same ones. A boot, which filters before the network is up, spares the networks of the last time.
"""

from __future__ import annotations

import os
import typing as t

from .._base.address import BITS, Prefix, format_prefix, from_mapped, parse_prefix
from .._base.errors import InvalidInput
from .._base.files import open_regular, replace_file
from .._declared.store import is_foreign
from .._kernel.abi import NET_PROTECTED
from .._network import protect
from .._tables.pool import IPV4, IPV6
from .._tables.ranges import cut, spans_of, split_off

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .._network.protect import Network, Protection
    from .._tables.ranges import Prefixes

KEEP_BOGONS = "# bogons: true\n"
"""First line of a feed's drop-in that may deny special-purpose space and connected networks."""

_CONNECTED, _PROTECTED, _CLIENT = "connected", "protected", "client"
_LISTS, _LEFT_OUT, _BROKEN = "lists", "left_out", "broken"
_MAX_EXAMPLES = 5

Spared = dict[Prefix, str]
"""Prefix → why it is spared: "connected", "protected", or "client" (an SSH client, for a while)."""


class LeftOut(t.NamedTuple):
    """Entries that were left out: their number, and some of them as text."""

    total: int
    examples: list[str]


class FeedReport(t.NamedTuple):
    """What the compiler left out, by the names of the feeds' drop-ins."""

    left_out: dict[str, LeftOut]
    """Entries that overlap with spared prefixes."""
    broken: dict[str, str]
    """Why a whole feed was left out."""


class Note(t.NamedTuple):
    """What the active tables were compiled with."""

    lists: str
    """Digest of the lists, as hex."""
    spared: Spared
    report: FeedReport


NOTHING: t.Final = Note("", {}, FeedReport({}, {}))


def has_feeds(state: State) -> bool:
    """Return whether the state has a feed, or lists of the fleet, which are compiled like one."""
    return any(is_foreign(name) for name in (*state.allow, *state.deny))


def spared_now(network: Network, protection: Protection) -> Spared:
    """Return what to spare now."""
    found: Spared = {}
    for length, address in protect.connected(network):
        found[from_mapped(address, length)] = _CONNECTED
    for length, address in (net for net, flags in protection.nets.items() if flags & NET_PROTECTED):
        found[from_mapped(address, length)] = _PROTECTED
    for address, origin in protection.hosts.items():
        kind = _CLIENT if origin == protect.SSH_CLIENT else _PROTECTED
        found[from_mapped(address, 128)] = kind
    return found


def lasting(spared: Spared) -> Spared:
    """Return the spared prefixes without SSH clients, which come and go."""
    return {prefix: kind for prefix, kind in spared.items() if kind != _CLIENT}


def leave_out(found: Prefixes, text: str, spared: Spared) -> LeftOut:
    """Remove the entries that overlap with a spared prefix from a feed's prefixes; return them.

    text: the feed's drop-in.
    """
    wanted = _spared_by(text, spared)
    nets4 = [(prefix.value, prefix.last) for prefix in wanted if prefix.family == 4]
    nets6 = [(prefix.value, prefix.last) for prefix in wanted if prefix.family == 6]
    found.v4, out4 = split_off(found.v4, spans_of(nets4, IPV4))
    found.v6, out6 = split_off(found.v6, spans_of(nets6, IPV6))
    found.entries -= len(out4) + len(out6)
    return name_blocks(out4, out6)


def name_blocks(blocks4: list[tuple[int, int]], blocks6: list[tuple[int, int]]) -> LeftOut:
    """Return the number of the blocks, given as (first address, last address), and some as text."""
    named = [_name_block(4, block) for block in blocks4[:_MAX_EXAMPLES]]
    named += [_name_block(6, block) for block in blocks6[:_MAX_EXAMPLES]]
    return LeftOut(len(blocks4) + len(blocks6), named[:_MAX_EXAMPLES])


def _name_block(family: int, block: tuple[int, int]) -> str:
    parts = list(cut(*block, BITS[family]))
    if len(parts) == 1:
        return format_prefix(Prefix(family, *parts[0]))
    return "-".join(format_prefix(Prefix(family, end, BITS[family])) for end in block)


def is_left_out(kind: str, owner: str, text: str, prefix: Prefix, note: Note) -> bool:
    """Return whether the compiler left out an entry of a drop-in, because it is in a feed."""
    if owner in note.report.broken:
        return True
    if kind != "deny" or not is_foreign(owner):
        return False
    return any(
        other.family == prefix.family and other.value <= prefix.last and prefix.value <= other.last
        for other in _spared_by(text, note.spared)
    )


def _spared_by(text: str, spared: Spared) -> list[Prefix]:
    """Return the spared prefixes that this feed must not deny; text: its drop-in."""
    kept = _CONNECTED if text.startswith(KEEP_BOGONS) else ""
    return [prefix for prefix, kind in spared.items() if kind != kept]


def unknown_networks(path: str, found: t.Iterable[protect.Net]) -> set[str]:
    """Return those networks, as text, that the active tables do not spare; empty without feeds.

    path: of the note. found: networks that the host is connected to now.
    """
    note = read_note(path)
    if note == NOTHING:
        return set()
    prefixes = {from_mapped(address, length) for length, address in found}
    return {format_prefix(prefix) for prefix in prefixes - note.spared.keys()}


# The note on disk


def write_note(path: str, note: Note) -> None:
    """Write the note of the active tables; `NOTHING` removes the file."""
    if note == NOTHING:
        if os.path.lexists(path):
            os.unlink(path)
        return
    lines = [f"{_LISTS} {note.lists}"]
    lines += [f"{kind} {format_prefix(prefix)}" for prefix, kind in sorted(note.spared.items())]
    for name, (total, examples) in sorted(note.report.left_out.items()):
        lines.append(f"{_LEFT_OUT} {name} {total} {' '.join(examples)}")
    lines += [f"{_BROKEN} {name} {why}" for name, why in sorted(note.report.broken.items())]
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder)
        os.chmod(folder, 0o755)
    replace_file(path, "".join(f"{line}\n" for line in lines), 0o644)


def read_note(path: str) -> Note:
    """Return the note; `NOTHING` if it is missing or damaged: then the tables are compiled again."""
    lists, spared, report = "", {}, FeedReport({}, {})
    try:
        with open(open_regular(path), encoding="utf-8") as file:
            for kind, word, *rest in (line.split(None, 2) for line in file):
                if kind == _LISTS:
                    lists = word
                elif kind == _LEFT_OUT:
                    total, *examples = rest[0].split()
                    report.left_out[word] = LeftOut(int(total), examples)
                elif kind == _BROKEN:
                    report.broken[word] = rest[0].strip()
                else:
                    spared[parse_prefix(word)] = kind
    except (InvalidInput, IndexError, OSError, ValueError):
        return NOTHING
    return Note(lists, spared, report)
