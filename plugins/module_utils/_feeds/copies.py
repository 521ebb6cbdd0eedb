# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Copies of feeds that the controller has fetched: which of them a host needs, what became of them, how old they are.

A note on disk says when the publisher last served each copy. It is not part of confirmed state: fetching the
same list again changes nothing. It names copies by their digests, so it is right too after a change was
reverted or rolled back.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base.digest import digest_text
from .._base.errors import InvalidInput
from .._base.files import read_json, replace_json
from .._base.number import MAX_TIME, is_number
from .._declared.describe import count_entries
from .._declared.drop_ins import DropIns
from .._declared.edits import read_list
from .._declared.store import FEED, is_feed
from .edit import BROKEN, FeedEdit, WantedFeed
from .spare import LeftOut

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .spare import FeedReport

Feed = t.Mapping[str, t.Any]
"""A feed and its copy, as the module's option describes it."""

# The copies of a feed that the note keeps: those of the confirmed, the former and the pending state, and more.
_MAX_COPIES = 8


class Times(t.NamedTuple):
    """Unix times of a copy.

    fetched: when the publisher last served it. published: when it was made, if known. end: when it expires
    unless a run renews it; None: never.
    """

    fetched: float
    published: float | None = None
    end: float | None = None

    def known(self) -> dict[str, float | None]:
        """Return the times by name, without the end of a copy that has none."""
        return {name: time for name, time in self._asdict().items() if name != "end" or time}


class Ages:
    """The note of the times of copies: a file. Without the file, or if it is damaged, no time is known."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._feeds: dict[str, dict[str, Times]] = {}
        try:
            for name, copies in read_json(path).items():
                self._feeds[name] = {digest: _times(times) for digest, times in copies.items()}
        except (AttributeError, OSError, TypeError, ValueError):
            self._feeds = {}

    def times(self, name: str, text: str) -> Times | None:
        """Return the times of a feed's copy; None if they are unknown."""
        return self._feeds.get(name, {}).get(digest_text(text))

    def of(self, state: State) -> dict[str, Times]:
        """Return the times of all copies of a state, by feed."""
        found = {}
        for lists in map(DropIns.of, (state.allow, state.deny)):
            for drop_in in filter(is_feed, lists):
                name = drop_in.removeprefix(FEED)
                # Copies name no variables, so this digest is also that of the whole text.
                times = self._feeds.get(name, {}).get(lists.digest(drop_in))
                if times:
                    found[name] = times
        return found

    def ended(self, state: State, now: float) -> dict[str, Times]:
        """Return the feeds of a state whose copies have expired, with the times of these."""
        return {
            name: times
            for name, times in self.of(state).items()
            if times.end is not None and times.end <= now
        }

    def lost(self, state: State, now: float) -> dict[str, float]:
        """Return the feeds of the last run of which a state has no copy, because the last one has expired.

        Each with the time of that.
        """
        drop_ins = {*state.allow, *state.deny}
        found = {}
        for name, copies in self._feeds.items():
            ends = [times.end for times in copies.values() if times.end is not None]
            if FEED + name not in drop_ins and ends and max(ends) <= now:
                found[name] = max(ends)
        return found

    def note(self, feeds: t.Iterable[Feed], state: State, now: float) -> None:
        """Note the times of all copies that were fetched, and forget feeds that are not named.

        A copy that the state has and whose age is unknown counts as fetched now.
        """
        found: dict[str, dict[str, Times]] = {}
        for feed in feeds:
            name = feed["name"]
            known = self._feeds.get(name, {})
            # A clock was ahead when these were noted, so they would never grow old.
            copies = {
                digest: times._replace(fetched=min(times.fetched, now))
                for digest, times in known.items()
            }
            for lists in (state.allow, state.deny):
                if FEED + name in lists:
                    copies.setdefault(digest_text(lists[FEED + name]), Times(now))
            if feed["digest"]:
                copies[feed["digest"]] = Times(feed["fetched"] or now, feed["published"])
            lasts = feed.get("expire_after")
            for digest, times in copies.items():
                end = None if lasts is None else times.fetched + lasts
                copies[digest] = times._replace(end=end)
            newest = sorted(copies.items(), key=lambda item: item[1].fetched)[-_MAX_COPIES:]
            found[name] = dict(newest)
        self._feeds = found

    def write(self) -> None:
        """Write the note. Errors are ignored: without the note, only ages are unknown."""
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), 0o755, exist_ok=True)
            replace_json(self._path, self._feeds, 0o644)


def _times(values: t.Any) -> Times:
    """The times of a copy in the note; raises TypeError or ValueError if they are not times."""
    times = Times(*values)
    known = [time for time in times if time is not None]
    if times.fetched is None or not all(is_number(time, MAX_TIME) for time in known):
        raise ValueError(values)
    return times


def gather_wanted(
    feeds: t.Iterable[Feed], state: State, sources: t.Mapping[str, str], force: bool
) -> tuple[list[WantedFeed], list[str]]:
    """The wanted feeds, and the names of feeds whose copies must be sent first.

    sources: paths of the copies that were sent, by name. force: accept any difference.
    """
    wanted, lacks = [], []
    for feed in feeds:
        name = feed["name"]
        text = _present(feed, state)
        if text is None and feed["digest"]:
            if name not in sources:
                lacks.append(name)
                continue
            text = _read(feed, sources[name])
        limit = -1 if force else feed["max_change"]
        end = feed["expire_after"]
        wanted.append(
            WantedFeed(name, feed["list"], text, limit, feed["problem"], feed["allow_empty"], end)
        )
    return wanted, lacks


class FeedRun:
    """The feeds of one run of the role: their edit, and afterwards what became of each.

    ages: the host's note of the times of copies. now: the controller's Unix time.
    """

    def __init__(
        self,
        feeds: t.Sequence[Feed],
        wanted: t.Sequence[WantedFeed],
        state: State,
        ages: Ages,
        now: float,
    ) -> None:
        ages.note(feeds, state, now)
        self.ages = ages
        self.edit = FeedEdit(wanted, self._age)
        self._now = now

    def report(self, after: State, compiled: FeedReport) -> dict[str, dict[str, t.Any]]:
        """The outcome of each feed, by name. after: the state that has them."""
        times = self.ages.of(after)
        found = {}
        for name, outcome in self.edit.outcomes.items():
            drop_in = FEED + name
            text = after.deny.get(drop_in, "") + after.allow.get(drop_in, "")
            broken = compiled.broken.get(drop_in)
            found[name] = {
                "status": BROKEN if broken else outcome.status,
                "reason": "; ".join(filter(None, (outcome.reason, broken))),
                "entries": count_entries(text),
                "left_out": compiled.left_out.get(drop_in, LeftOut(0, []))._asdict(),
                "age": max(0.0, self._now - times[name].fetched) if name in times else None,
                "published": times[name].published if name in times else None,
            }
        return found

    def _age(self, name: str, text: str) -> float | None:
        times = self.ages.times(name, text)
        return self._now - times.fetched if times else None


def _present(feed: Feed, state: State) -> str | None:
    """The copy, if this host has it already."""
    text: str | None = getattr(state, feed["list"]).get(FEED + feed["name"])
    return text if text is not None and digest_text(text) == feed["digest"] else None


def _read(feed: Feed, path: str) -> str:
    """The copy that was sent."""
    text = read_list(path)
    if digest_text(text) != feed["digest"]:
        raise InvalidInput(f"{path} is not the copy of feed {feed['name']} that was fetched")
    return text
