# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Compiling declared lists into the tables of a generation; errors come before anything changes."""

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
    from .idle import Idle

# A damaged file may have very long lines, which the error quotes.
_MAX_ERROR = 300
# Seconds until entries are judged again that could not be judged because the clock is not synchronised.
_UNDECIDED = 60.0


class Lists(t.NamedTuple):
    """Compiled lists. counts: numbers of their parts. note: exceptions of feeds, and what was left out.

    idle: entries without effect; None if the caller did not want to know.
    """

    areas: Areas
    counts: dict[str, int]
    note: Note
    idle: t.Optional[Idle] = None


def digest_of(state: State) -> bytes:
    """SHA-256 of all drop-ins, with their names, and of the table format."""
    check = sha256(f"tables {abi.FORMAT}\n".encode())
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        for name, text in sorted(lists.items()):
            check.update(f"{kind} {name} {digest_text(text)}\n".encode())
    return check.digest()


def pair_digest(state: State, name: str) -> str:
    """The same for one named pair of lists; 16 hex digits, short enough to compare by eye."""
    allow, deny = {name: state.allow.get(name, "")}, {name: state.deny.get(name, "")}
    return digest_of(state._replace(allow=allow, deny=deny)).hex()[:16]


def is_current(areas: Areas, state: State) -> bool:
    """Whether tables were compiled from the state's lists and no entry has expired since."""
    due = areas.next_expiry
    return areas.lists == digest_of(state) and (not due or time.time() < due)


def compile_lists(
    state: State, spared: Spared | None = None, *, for_good: bool = False, judge: bool = False
) -> Lists:
    """Compile all lists; `InvalidInput` names file and line of an error.

    A feed with an error is left out; all other lists count. spared: addresses that feeds must not deny.
    for_good: leave out allow entries that expire. judge: find the entries without effect.
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
        expiries.append(now + _UNDECIDED)
    idle = None
    if judge:
        # Imported here: a boot does not need it, and it would cost memory.
        from .idle import find_idle

        idle = find_idle(state, found["allow"], found["deny"], now if synchronised else None)
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
    return Lists(Areas.of(tables, digest, next_expiry), counts, note, idle)


def _add_feed(
    union: Prefixes,
    name: str,
    text: str,
    read: t.Callable[[], Prefixes],
    spared: Spared,
    feeds: FeedReport,
) -> None:
    """Add a feed's entries without those that this host must not deny; a feed with an error adds none."""
    try:
        own = read()
    except InvalidInput as error:
        feeds.broken[name] = str(error)[:_MAX_ERROR]
        return
    left_out = leave_out(own, text, spared)
    if left_out.total:
        feeds.left_out[name] = left_out
    union.add(own)
