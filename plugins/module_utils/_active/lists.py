# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Declared state → what a generation is made of, checked before anything changes."""

from __future__ import annotations

import functools
import math
import time
import typing as t

from .._base.clock import clock_synchronised
from .._base.digest import digest_text, sha256
from .._base.errors import InvalidInput
from .._declared.bulk import read_prefixes
from .._declared.store import is_feed
from .._feeds.spare import NOTHING, FeedReport, Note, has_feeds, leave_out
from .._kernel import abi
from .._tables.ranges import Prefixes
from .._tables.tables import compile_tables
from .generation import Areas

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .._feeds.spare import Spared

_SHOWN = 5
# Of what is said of a damaged file, a line of which may be very long.
_LONGEST = 300
# Seconds after which what the clock did not decide is to be decided anew.
_UNSETTLED = 60.0


class Lists(t.NamedTuple):
    """Compiled lists; counts of what they hold; what feeds were compiled with."""

    areas: Areas
    counts: dict[str, int]
    note: Note


def digest_of(state: State) -> bytes:
    """SHA-256 of all drop-ins, with their names, and of the format that their tables have."""
    check = sha256(f"tables {abi.FORMAT}\n".encode())
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        for name, text in sorted(lists.items()):
            check.update(f"{kind} {name} {digest_text(text)}\n".encode())
    return check.digest()


def pair_digest(state: State, name: str) -> str:
    """The same for one named pair of lists, as text that is short enough to compare by eye."""
    allow, deny = {name: state.allow.get(name, "")}, {name: state.deny.get(name, "")}
    return digest_of(state._replace(allow=allow, deny=deny)).hex()[:16]


def is_current(areas: Areas, state: State) -> bool:
    """Whether tables were made from these lists and no entry has expired since."""
    due = areas.next_expiry
    return areas.lists == digest_of(state) and (not due or time.time() < due)


def compile_lists(state: State, spared: Spared | None = None, *, for_good: bool = False) -> Lists:
    """Tables of all lists; InvalidInput names file and line of what is wrong.

    A feed that is wrong is left out, and the others hold. spared: whom feeds must not deny.
    for_good: without the allow entries that expire.
    """
    now, synchronised = time.time(), clock_synchronised()
    found = {}
    feeds = FeedReport({}, {})
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        union = Prefixes()
        for name, text in sorted(lists.items()):
            path = f"{kind}.d/{name}.list"
            at = math.inf if for_good and kind == "allow" else now
            read = functools.partial(
                read_prefixes, text, path, at, synchronised, t.cast(t.Any, kind)
            )
            if is_feed(name):
                _add_feed(union, name, text, read, (spared or {}) if kind == "deny" else {}, feeds)
            else:
                read(union)
        found[kind] = union
    expiries = [union.next_expiry for union in found.values() if union.next_expiry is not None]
    if any(union.undecided for union in found.values()):
        expiries.append(now + _UNSETTLED)
    tables = compile_tables(found["allow"], found["deny"])
    counts = {
        "allow": tables.allow_entries,
        "deny": tables.deny_entries,
        "expired": sum(union.expired for union in found.values()),
        "ranges_ipv4": tables.ranges4,
        "ranges_ipv6": tables.ranges6,
        "pages": 1 + tables.pages,
        "left_out": sum(item.total for item in feeds.left_out.values()),
        "broken_feeds": len(feeds.broken),
    }
    next_expiry = math.ceil(min(expiries)) if expiries else 0
    digest = digest_of(state)
    note = Note(digest.hex(), spared or {}, feeds) if has_feeds(state) else NOTHING
    return Lists(Areas.of(tables, digest, next_expiry), counts, note)


def _add_feed(
    union: Prefixes,
    name: str,
    text: str,
    read: t.Callable[[], Prefixes],
    spared: Spared,
    feeds: FeedReport,
) -> None:
    """Add what a feed has and this host can bear; one that is wrong adds nothing."""
    try:
        own = read()
    except InvalidInput as error:
        feeds.broken[name] = str(error)[:_LONGEST]
        return
    left_out = leave_out(own, text, spared)
    if left_out.total:
        feeds.left_out[name] = left_out
    union.add(own)
