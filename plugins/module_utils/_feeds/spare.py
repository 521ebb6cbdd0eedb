# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whom feeds must not deny on this host: the networks that it is connected to, and who is protected.

A feed's drop-in is kept whole; its entries that hit one of those are left out when it is compiled.
What the live tables were compiled with is noted on disk. So whoever compares them compiles alike, and a
boot, which filters before there is a network, goes by the networks of before.
"""

from __future__ import annotations

import os
import typing as t

from .._base.address import BITS, Prefix, format_prefix, from_mapped, parse_prefix
from .._base.errors import InvalidInput
from .._base.files import replace_file
from .._declared.store import is_feed
from .._kernel.abi import NET_PROTECTED
from .._network import protect
from .._tables.pool import IPV4, IPV6
from .._tables.ranges import cut, spans_of, split_off

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .._network.protect import Network, Protection
    from .._tables.ranges import Prefixes

KEEP_BOGONS = "# bogons: true\n"
"""How the drop-in of a feed begins that may name special-purpose space and connected networks."""

_CONNECTED, _PROTECTED, _CLIENT = "connected", "protected", "client"
_LISTS, _LEFT_OUT, _BROKEN = "lists", "left_out", "broken"
_SHOWN = 5

Spared = dict[Prefix, str]
"""Each prefix with why: connected, protected, or client (of SSH, who comes and goes)."""


class LeftOut(t.NamedTuple):
    """Entries that were left out: how many, and the first of them."""

    total: int
    examples: list[str]


class FeedReport(t.NamedTuple):
    """What compiling did to feeds, by drop-in: entries left out; why one is left out as a whole."""

    left_out: dict[str, LeftOut]
    broken: dict[str, str]


class Note(t.NamedTuple):
    """What tables were compiled with; lists: their digest, as hex."""

    lists: str
    spared: Spared
    report: FeedReport


NOTHING: t.Final = Note("", {}, FeedReport({}, {}))


def has_feeds(state: State) -> bool:
    """Whether any drop-in is a feed's."""
    return any(is_feed(name) for name in (*state.allow, *state.deny))


def spared_now(network: Network, protection: Protection) -> Spared:
    """Whom to spare as things are now."""
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
    """Without those who come and go."""
    return {prefix: kind for prefix, kind in spared.items() if kind != _CLIENT}


def leave_out(found: Prefixes, text: str, spared: Spared) -> LeftOut:
    """Take entries that hit one of the spared off a feed's prefixes; says which."""
    wanted = _spared_by(text, spared)
    nets4 = [(prefix.value, prefix.last) for prefix in wanted if prefix.family == 4]
    nets6 = [(prefix.value, prefix.last) for prefix in wanted if prefix.family == 6]
    found.v4, out4 = split_off(found.v4, spans_of(nets4, IPV4))
    found.v6, out6 = split_off(found.v6, spans_of(nets6, IPV6))
    found.entries -= len(out4) + len(out6)
    return name_blocks(out4, out6)


def name_blocks(blocks4: list[tuple[int, int]], blocks6: list[tuple[int, int]]) -> LeftOut:
    """Count blocks of both families, given by first and last address, and name some."""
    named = [_name_block(4, block) for block in blocks4[:_SHOWN]]
    named += [_name_block(6, block) for block in blocks6[:_SHOWN]]
    return LeftOut(len(blocks4) + len(blocks6), named[:_SHOWN])


def _name_block(family: int, block: tuple[int, int]) -> str:
    parts = list(cut(*block, BITS[family]))
    if len(parts) == 1:
        return format_prefix(Prefix(family, *parts[0]))
    return "-".join(format_prefix(Prefix(family, end, BITS[family])) for end in block)


def is_left_out(kind: str, owner: str, text: str, prefix: Prefix, note: Note) -> bool:
    """Whether an entry of a drop-in is not in force for being in a feed."""
    if owner in note.report.broken:
        return True
    if kind != "deny" or not is_feed(owner):
        return False
    return any(
        other.family == prefix.family and other.value <= prefix.last and prefix.value <= other.last
        for other in _spared_by(text, note.spared)
    )


def _spared_by(text: str, spared: Spared) -> list[Prefix]:
    """Those of the spared that a feed must not hit."""
    kept = _CONNECTED if text.startswith(KEEP_BOGONS) else ""
    return [prefix for prefix, kind in spared.items() if kind != kept]


def unknown_networks(path: str, found: t.Iterable[protect.Net]) -> set[str]:
    """Networks that the live tables were compiled without, if they have feeds, as text."""
    note = read_note(path)
    if note == NOTHING:
        return set()
    prefixes = {from_mapped(address, length) for length, address in found}
    return {format_prefix(prefix) for prefix in prefixes - note.spared.keys()}


# On disk


def write_note(path: str, note: Note) -> None:
    """Note what is live; of nothing there is no file."""
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
    """What was noted last; `NOTHING` if nothing was, or if it cannot be told: tables are then made anew."""
    lists, spared, report = "", {}, FeedReport({}, {})
    try:
        with open(path, encoding="utf-8") as file:
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
