# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""All feeds of a host as one edit: it writes new copies, keeps last good ones, and removes other feeds.

If a copy could not be fetched, or differs too much from the last good one, the last good one stays. Other
feeds are not affected.
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


class WantedFeed(t.NamedTuple):
    """A feed that is declared."""

    name: str
    """The drop-in's name without `FEED`, the prefix of all feeds."""
    kind: t.Literal["allow", "deny"]
    text: str | None
    """The new copy; None if there is none, and then `problem` says why."""
    max_change: float
    """How many percent of the last good copy's entries may change; any change is allowed if negative."""
    problem: str = ""


class Outcome(t.NamedTuple):
    """What the edit did with a feed."""

    status: str
    """`CURRENT` (the new copy), `KEPT` (the last good copy stays) or `MISSING` (there is no copy)."""
    reason: str = ""
    """Why the new copy was not used; empty if it was."""


class FeedEdit:
    """The edit. After it was applied, `outcomes` has the outcome of each feed."""

    def __init__(self, wanted: t.Sequence[WantedFeed]) -> None:
        for feed in wanted:
            check_name(FEED + feed.name)
        self._wanted = wanted
        self.outcomes: dict[str, Outcome] = {}

    def __call__(self, state: State) -> State:
        lists = {
            kind: {name: text for name, text in drop_ins.items() if not is_feed(name)}
            for kind, drop_ins in (("allow", state.allow), ("deny", state.deny))
        }
        for feed in self._wanted:
            name = FEED + feed.name
            former = {
                kind: drop_ins[name]
                for kind, drop_ins in (("allow", state.allow), ("deny", state.deny))
                if name in drop_ins
            }
            problem = feed.problem or _unlikely(former.get(feed.kind), feed)
            if feed.text is not None and not problem:
                lists[feed.kind][name] = feed.text
                self.outcomes[feed.name] = Outcome(CURRENT)
                continue
            for kind, text in former.items():
                lists[kind][name] = text
            self.outcomes[feed.name] = Outcome(KEPT if former else MISSING, problem)
        return state._replace(allow=lists["allow"], deny=lists["deny"])


def _unlikely(former: str | None, feed: WantedFeed) -> str:
    """Return why the new copy is refused, if it differs too much from the last good one; else empty."""
    if former is None or feed.text is None or former == feed.text or feed.max_change < 0:
        return ""
    try:
        before = _read(former)
    except InvalidInput:
        # The last good copy is damaged on disk, so the new one is better.
        return ""
    after = _read(feed.text)
    same = _in_both(before, after)
    gone, come = before.entries - same, after.entries - same
    share = 100 * max(gone, come) / max(before.entries, 1)
    if share <= feed.max_change:
        return ""
    return (
        f"the new copy differs by {share:.0f} % from the last good one ({gone} of {before.entries} "
        f"entries gone, {come} new), and max_change is {feed.max_change:g}: check the new copy; if it is "
        "right, run once with -e packetwatch_feeds_force=true"
    )


def _read(text: str) -> Prefixes:
    return read_prefixes(text, "", 0, True, "deny")


def _in_both(one: Prefixes, other: Prefixes) -> int:
    """Return how many entries two copies have in common; neither copy has duplicates."""
    found = 0
    for a, b in ((one.v4, other.v4), (one.v6, other.v6)):
        found += _common(a.hosts.sorted(), b.hosts.sorted())
        found += _common(sorted(nets_of(a)), sorted(nets_of(b)))
    return found


def _common(one: t.Sequence[t.Any], other: t.Sequence[t.Any]) -> int:
    """Return how many elements two sorted sequences share.

    Compares piece by piece, because sets of all elements would take much memory.
    """
    found, at = 0, 0
    for begin in range(0, len(one), _STEP):
        piece = one[begin : begin + _STEP]
        end = bisect_right(other, piece[-1], at)
        found += len(set(piece).intersection(other[at:end]))
        at = end
    return found
