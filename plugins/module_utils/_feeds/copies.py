# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Copies of feeds that the controller has fetched: which of them a host needs, and what became of them."""

from __future__ import annotations

import typing as t

from .._base.digest import digest_text
from .._base.errors import InvalidInput
from .._declared.describe import count_entries
from .._declared.edits import read_list
from .._declared.store import FEED
from .edit import BROKEN, WantedFeed
from .spare import LeftOut

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .edit import Outcome
    from .spare import FeedReport

Feed = t.Mapping[str, t.Any]
"""A feed and its copy, as the module's option describes it."""


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
        wanted.append(WantedFeed(name, feed["list"], text, limit, feed["problem"]))
    return wanted, lacks


def report(
    outcomes: t.Mapping[str, Outcome], after: State, compiled: FeedReport
) -> dict[str, dict[str, t.Any]]:
    """The outcome of each feed, by name; after: the state that has them."""
    found = {}
    for name, outcome in outcomes.items():
        drop_in = FEED + name
        text = after.deny.get(drop_in, "") + after.allow.get(drop_in, "")
        broken = compiled.broken.get(drop_in)
        found[name] = {
            "status": BROKEN if broken else outcome.status,
            "reason": "; ".join(filter(None, (outcome.reason, broken))),
            "entries": count_entries(text),
            "left_out": compiled.left_out.get(drop_in, LeftOut(0, []))._asdict(),
        }
    return found


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
