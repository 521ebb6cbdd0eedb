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
from .._base.number import is_a
from .._declared.bulk import read_prefixes
from .._declared.drop_ins import DropIns
from .._declared.store import is_foreign
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
_MAX_NUMBER = 1 << 32

COUNTS: t.Final = (
    *("allow", "deny", "expired", "undecided", "ranges_ipv4", "ranges_ipv6", "pages", "left_out"),
    "broken_feeds",
)
"""Names of the numbers of compiled lists."""


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
        v4, v6 = map(bytes.fromhex, digests)
        known = Known({name: counts[name] for name in COUNTS}, Shape(*shape), (v4, v6))
    except (KeyError, OSError, TypeError, ValueError):
        return None
    numbers = (*known.counts.values(), *known.shape)
    is_whole = all(is_a(number, int) and 0 <= number <= _MAX_NUMBER for number in numbers)
    return known if is_whole else None


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


def is_current(areas: Areas, state: State, clock: Clock | None = None) -> bool:
    """Whether tables were compiled from the state's lists, and for this time.

    They are stale once an entry has expired. They are stale too if the clock was ahead when they were compiled
    and has been put right since. clock: by default this host's.
    """
    passed, now = (clock or read_clock("")).passed, time.time()
    is_of_now = areas.valid_from <= max(passed, now) and (
        not areas.next_expiry or now < areas.next_expiry
    )
    return is_of_now and areas.lists == digest_of(state)


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
            if is_foreign(name):
                _add_feed(union, name, text, read, (spared or {}) if kind == "deny" else {}, feeds)
            else:
                read(union)
        found[kind] = union
    expiries = [union.next_expiry for union in found.values() if union.next_expiry is not None]
    ended = max(union.last_expiry for union in found.values())
    undecided = sum(union.undecided for union in found.values())
    if undecided:
        expiries.append(time.time() + _UNDECIDED)
        # A clock that was ahead and is put right would else delay that by as much.
        ended = max(ended, time.time())
    idle = None
    if judge:
        # Imported here: a boot does not need it, and it would cost memory.
        from .idle import find_idle

        idle = find_idle(state, found["allow"], found["deny"], passed if is_trusted else None)
    tables = compile_tables(found["allow"], found["deny"])
    numbers = (
        tables.allow_entries,
        tables.deny_entries,
        sum(union.expired for union in found.values()),
        undecided,
        tables.ranges4,
        tables.ranges6,
        1 + tables.pages,
        sum(item.total for item in feeds.left_out.values()),
        len(feeds.broken),
    )
    counts = dict(zip(COUNTS, numbers, strict=True))
    next_expiry = math.ceil(min(expiries)) if expiries else 0
    valid_from = math.floor(ended)
    digest = digest_of(state)
    note = Note(digest.hex(), spared or {}, feeds) if has_feeds(state) else NOTHING
    return Lists(
        Areas.of(tables, digest, next_expiry, valid_from), counts, note, tables.shape4, idle
    )


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
