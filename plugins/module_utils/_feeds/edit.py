# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""All feeds of a host as one edit: it writes new copies, keeps last good ones, and removes other feeds.

If a copy could not be fetched, is empty, or differs too much from the last good one, the last good one stays,
unless it is older than the operator wants. Other feeds are not affected.
"""

from __future__ import annotations

import typing as t

from .._base.errors import InvalidInput
from .._declared.bulk import read_prefixes
from .._declared.describe import count_entries
from .._declared.store import FEED, check_name, is_feed
from .width import find_excess

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .._tables.ranges import Prefixes

CURRENT, KEPT, MISSING, BROKEN = "current", "kept", "missing", "broken"
EMPTY, EXPIRED = "empty", "expired"

Age = t.Callable[[str, str], "float | None"]
"""(name of a feed, text of its last good copy) → seconds since it was fetched; None if unknown."""


class WantedFeed(t.NamedTuple):
    """A feed that is declared."""

    name: str
    """The drop-in's name without `FEED`, the prefix of all feeds."""
    kind: t.Literal["allow", "deny"]
    text: str | None
    """The new copy; None if there is none, and then `problem` says why."""
    max_change: float
    """How many percent of the last good copy's entries, and of its addresses, may change; any change is
    allowed if negative."""
    problem: str = ""
    allow_empty: bool = False
    """Whether a copy without entries replaces the last good one."""
    expire_after: float | None = None
    """Seconds after which a last good copy that cannot be renewed is removed; None: never."""


class Outcome(t.NamedTuple):
    """What the edit did with a feed."""

    status: str
    """`CURRENT` (the new copy), `KEPT` (the last good copy stays), `MISSING` (there is no copy), `EMPTY` (the
    publisher's list is empty) or `EXPIRED` (the last good copy was too old, and is removed)."""
    reason: str = ""
    """Why the new copy was not used; empty if it was."""


class FeedEdit:
    """The edit. After it was applied, `outcomes` has the outcome of each feed."""

    def __init__(self, wanted: t.Sequence[WantedFeed], age: Age = lambda *dummy: None) -> None:
        for feed in wanted:
            check_name(FEED + feed.name)
        self._wanted = wanted
        self._age = age
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
            outcome = self._judge(feed, former)
            self.outcomes[feed.name] = outcome
            if feed.text is not None and not outcome.reason:
                lists[feed.kind][name] = feed.text
            elif outcome.status != EXPIRED:
                for kind, text in former.items():
                    lists[kind][name] = text
        return state._replace(allow=lists["allow"], deny=lists["deny"])

    def _judge(self, feed: WantedFeed, former: t.Mapping[str, str]) -> Outcome:
        """Return the outcome of a feed. former: its last good copy, by list."""
        is_empty = feed.text is not None and not count_entries(feed.text)
        if feed.problem:
            status, reason = KEPT if former else MISSING, feed.problem
        elif is_empty:
            status, reason = EMPTY, _unexpected(feed, former)
        else:
            reason = _unlikely(former.get(feed.kind), feed)
            status = KEPT if reason else CURRENT
        if reason:
            for text in former.values():
                age = self._age(feed.name, text)
                if feed.expire_after is not None and age is not None and age > feed.expire_after:
                    limit = f"{age:.0f} s old, and expire_after is {feed.expire_after:g}"
                    return Outcome(
                        EXPIRED, f"{reason}; the last good copy is removed: it is {limit}"
                    )
        return Outcome(status, reason)


def _unexpected(feed: WantedFeed, former: t.Mapping[str, str]) -> str:
    """Return why an empty copy is not used; empty if it is."""
    if feed.allow_empty or feed.max_change < 0:
        return ""
    entries = sum(map(count_entries, former.values()))
    stays = (
        f"the last good copy of {entries} entries stays" if former else "there is no earlier copy"
    )
    return (
        f"the publisher's list is empty, and {stays}: if the list is retired, remove the feed; if it may be "
        "empty, set allow_empty"
    )


def _unlikely(former: str | None, feed: WantedFeed) -> str:
    """Return why the new copy is refused, if it differs too much from the last good one; else empty."""
    if former is None or feed.text is None or former == feed.text or feed.max_change < 0:
        return ""
    try:
        before = _read(former)
    except InvalidInput:
        # The last good copy is damaged on disk, so the new one is better.
        return ""
    if not before.entries:
        # An empty list that fills again is compared with nothing, as a first copy is.
        return ""
    change = find_excess(before, _read(feed.text), feed.kind, feed.max_change)
    if change is None:
        return ""
    return (
        f"the new copy differs by {change.share:.0f} % from the last good one ({change.gone} of "
        f"{change.before} {change.unit} gone, {change.come} new), and max_change is {feed.max_change:g}: check "
        "the new copy; if it is right, run once with -e packetwatch_feeds_force=true"
    )


def _read(text: str) -> Prefixes:
    return read_prefixes(text, "", 0, True, "deny")
