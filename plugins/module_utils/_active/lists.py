# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Compiling declared lists into the tables of a generation; errors come before anything changes."""

from __future__ import annotations

import functools
import math
import os
import time
import typing as t

from .._base.clock import read_clock
from .._base.digest import sha256
from .._base.errors import InvalidInput
from .._base.files import read_json, replace_json
from .._declared.bulk import read_prefixes
from .._declared.drop_ins import DropIns
from .._declared.store import is_feed
from .._feeds.spare import NOTHING, FeedReport, Note, has_feeds, leave_out
from .._kernel import abi
from .._tables.ipv4 import Shape
from .._tables.ranges import Prefixes
from .._tables.tables import compile_tables
from .generation import Areas

if t.TYPE_CHECKING:
    from .._base.clock import Clock
    from .._declared.store import State
    from .._feeds.spare import Spared
    from .idle import Idle

# A damaged file may have very long lines, which the error quotes.
_MAX_ERROR = 300
# Seconds until entries are judged again that could not be judged because the clock is not trusted yet.
_UNDECIDED = 60.0


class Lists(t.NamedTuple):
    """Compiled lists.

    counts: numbers of their parts. note: exceptions of feeds, and what was left out. shape: of the IPv4 area.
    idle: entries without effect; None if the caller did not want to know.
    """

    areas: Areas
    counts: dict[str, int]
    note: Note
    shape: Shape
    idle: t.Optional[Idle] = None


class Known(t.NamedTuple):
    """What is known of the active tables beside their bytes: counts and shape, as in `Lists`.

    digests: those of the pages of both areas. They count only if they give the generation's digest.
    """

    counts: dict[str, int]
    shape: Shape
    digests: tuple[bytes, bytes]


def keep_known(path: str, lists: Lists) -> None:
    """Write what is known of the active tables to a file under /run; raises OSError."""
    folder, areas = os.path.dirname(path), lists.areas
    if not os.path.isdir(folder):
        os.makedirs(folder)
        os.chmod(folder, 0o755)
    digests = [area.digests.hex() for area in (areas.v4, areas.v6)]
    replace_json(path, [areas.lists.hex(), areas.next_expiry, lists.counts, lists.shape, digests])


def read_known(path: str, areas: Areas) -> Known | None:
    """What is known of these tables; None if the file is about others, missing or damaged."""
    try:
        lists, next_expiry, counts, shape, digests = read_json(path)
        if (lists, next_expiry) != (areas.lists.hex(), areas.next_expiry):
            return None
        numbers = {str(name): int(number) for name, number in counts.items()}
        v4, v6 = map(bytes.fromhex, digests)
        return Known(numbers, Shape(*shape), (v4, v6))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def digest_of(state: State) -> bytes:
    """SHA-256 of all drop-ins (`DropIns.digest`), with their names, and of the table format."""
    check = sha256(f"tables {abi.FORMAT}\n".encode())
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        found = DropIns.of(lists)
        for name in sorted(found):
            check.update(f"{kind} {name} {found.digest(name)}\n".encode())
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
    state: State,
    spared: Spared | None = None,
    clock: Clock | None = None,
    *,
    for_good: bool = False,
    judge: bool = False,
) -> Lists:
    """Compile all lists; `InvalidInput` names file and line of an error.

    A feed with an error is left out; all other lists count. spared: addresses that feeds must not deny.
    clock: by default this host's. for_good: leave out allow entries that expire. judge: find the entries
    without effect.
    """
    passed, is_trusted = clock or read_clock("")
    found = {}
    feeds = FeedReport({}, {})
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        union = Prefixes()
        for name, text in sorted(lists.items()):
            path = f"{kind}.d/{name}.list"
            at = math.inf if for_good and kind == "allow" else passed
            read = functools.partial(read_prefixes, text, path, at, is_trusted, t.cast(t.Any, kind))
            if is_feed(name):
                _add_feed(union, name, text, read, (spared or {}) if kind == "deny" else {}, feeds)
            else:
                read(union)
        found[kind] = union
    expiries = [union.next_expiry for union in found.values() if union.next_expiry is not None]
    undecided = sum(union.undecided for union in found.values())
    if undecided:
        expiries.append(time.time() + _UNDECIDED)
    idle = None
    if judge:
        # Imported here: a boot does not need it, and it would cost memory.
        from .idle import find_idle

        idle = find_idle(state, found["allow"], found["deny"], passed if is_trusted else None)
    tables = compile_tables(found["allow"], found["deny"])
    counts = {
        "allow": tables.allow_entries,
        "deny": tables.deny_entries,
        "expired": sum(union.expired for union in found.values()),
        "undecided": undecided,
        "ranges_ipv4": tables.ranges4,
        "ranges_ipv6": tables.ranges6,
        "pages": 1 + tables.pages,
        "left_out": sum(item.total for item in feeds.left_out.values()),
        "broken_feeds": len(feeds.broken),
    }
    next_expiry = math.ceil(min(expiries)) if expiries else 0
    digest = digest_of(state)
    note = Note(digest.hex(), spared or {}, feeds) if has_feeds(state) else NOTHING
    return Lists(Areas.of(tables, digest, next_expiry), counts, note, tables.shape4, idle)


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
