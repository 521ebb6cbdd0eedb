# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""All feeds of a host as one edit: new copies, last good ones that stay, feeds that are gone.

A copy that cannot be had, or that is unlikely, changes nothing for its feed, and for no other.
"""

from __future__ import annotations

import typing as t
from bisect import bisect_right

from .._base.errors import InvalidInput
from .._declared.bulk import read_prefixes
from .._declared.store import FEED, check_name, is_feed
from .._tables.ranges import nets_of

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .._tables.ranges import Prefixes

CURRENT, KEPT, MISSING, BROKEN = "current", "kept", "missing", "broken"

_STEP = 1 << 16


class Wish(t.NamedTuple):
    """A feed as it shall be: text of its new copy, or None and the problem with it."""

    name: str
    """Without what drop-ins of feeds begin with."""
    kind: t.Literal["allow", "deny"]
    text: str | None
    max_change: float
    """By how many percent of its entries the last good copy may change; not looked at below 0."""
    problem: str = ""


class Fate(t.NamedTuple):
    """What became of a feed: `CURRENT`, `KEPT` (the last good copy stays) or `MISSING`, and why."""

    status: str
    reason: str = ""


class FeedEdit:
    """The edit; once it was made, `fates` says by feed what it did."""

    def __init__(self, wishes: t.Sequence[Wish]) -> None:
        for wish in wishes:
            check_name(FEED + wish.name)
        self._wishes = wishes
        self.fates: dict[str, Fate] = {}

    def __call__(self, state: State) -> State:
        lists = {
            kind: {name: text for name, text in drop_ins.items() if not is_feed(name)}
            for kind, drop_ins in (("allow", state.allow), ("deny", state.deny))
        }
        for wish in self._wishes:
            name = FEED + wish.name
            former = {
                kind: drop_ins[name]
                for kind, drop_ins in (("allow", state.allow), ("deny", state.deny))
                if name in drop_ins
            }
            problem = wish.problem or _unlikely(former.get(wish.kind), wish)
            if wish.text is not None and not problem:
                lists[wish.kind][name] = wish.text
                self.fates[wish.name] = Fate(CURRENT)
                continue
            for kind, text in former.items():
                lists[kind][name] = text
            self.fates[wish.name] = Fate(KEPT if former else MISSING, problem)
        return state._replace(allow=lists["allow"], deny=lists["deny"])


def _unlikely(former: str | None, wish: Wish) -> str:
    """Why a copy is not to be trusted, if it differs too much from the last good one."""
    if former is None or wish.text is None or former == wish.text or wish.max_change < 0:
        return ""
    try:
        before = _read(former)
    except InvalidInput:
        # Damaged on disk: anything is better.
        return ""
    after = _read(wish.text)
    same = _in_both(before, after)
    gone, come = before.entries - same, after.entries - same
    share = 100 * max(gone, come) / max(before.entries, 1)
    if share <= wish.max_change:
        return ""
    return (
        f"the new copy differs by {share:.0f} % from the last good one ({gone} of {before.entries} "
        f"entries gone, {come} new), and max_change is {wish.max_change:g}: look at it, and run once "
        "with -e packetwatch_feeds_force=true if it is right"
    )


def _read(text: str) -> Prefixes:
    return read_prefixes(text, "", 0, True, "deny")


def _in_both(one: Prefixes, other: Prefixes) -> int:
    """How many entries are the same, of copies without doubles."""
    found = 0
    for a, b in ((one.v4, other.v4), (one.v6, other.v6)):
        found += _common(a.hosts.sorted(), b.hosts.sorted())
        found += _common(sorted(nets_of(a)), sorted(nets_of(b)))
    return found


def _common(one: t.Sequence[t.Any], other: t.Sequence[t.Any]) -> int:
    """How many elements two sorted sequences share; piece by piece, as sets of all take much memory."""
    found, at = 0, 0
    for begin in range(0, len(one), _STEP):
        piece = one[begin : begin + _STEP]
        end = bisect_right(other, piece[-1], at)
        found += len(set(piece).intersection(other[at:end]))
        at = end
    return found
