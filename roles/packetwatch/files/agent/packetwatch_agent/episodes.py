# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Folds events without a ban into episodes, which are logged once at the beginning and once at the end.

The program writes an event each time that a source crosses the threshold, and every second that a
packet would have been dropped. In monitor mode, or for a protected source, no ban ends that: it can
go on for hours.
"""

from __future__ import annotations

import typing as t

from packetwatch_core._bans.bans import Source
from packetwatch_core._declared.kinds import nanoseconds
from packetwatch_core._kernel import abi

from .confirmed import Confirmed
from .events import Episode, Event
from .lines import Lines
from .metrics import COUNTER, Rows, Values, by_label
from .part import Part
from .quota import Quota

MAX_OPEN = 1024
MAX_LENGTH = 3600 * 1_000_000_000

_Key = tuple[int, str, Source]


class Episodes(Part):
    """The open episodes. One ends when no event has come for the policy's scan_window."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_episodes_total": (
            COUNTER,
            "Episodes logged: of scans without a ban, and of what monitor mode let pass.",
        ),
    }

    def __init__(
        self, lines: Lines, confirmed: Confirmed, names: t.Callable[[int], str], quota: Quota
    ) -> None:
        self._lines = lines
        self._confirmed = confirmed
        self._names = names
        self._quota = quota
        self._open: dict[_Key, Episode] = {}
        self.begun = {"scan": 0, "would_drop": 0}

    def values(self) -> Values:
        return {"packetwatch_episodes_total": by_label("kind", self.begun)}

    def note(self, event: Event) -> list[str]:
        """Add an event without a ban; return the lines to log.

        These are the end of the source's former episode, if that has ended, and the event itself, if
        it begins an episode. Above the quota no episode begins.
        """
        key = (event.type, event.reason, event.source)
        episode = self._open.get(key)
        lines = []
        if episode:
            if not has_ended(episode, event.time):
                episode.add(event)
                return []
            lines += self._end(key)
        kind = "scan" if event.type == abi.EVENT_BAN else "would_drop"
        if not self._quota.allows(kind, event.time):
            return lines
        if len(self._open) >= MAX_OPEN:
            lines += self._end(next(iter(self._open)))
        policy = self._confirmed.policy(self._names(event.ifindex))
        self._open[key] = Episode(event, nanoseconds(policy.scan_window))
        self.begun[kind] += 1
        write = self._lines.scan if kind == "scan" else self._lines.would_drop
        return [*lines, write(event)]

    def end(self, now: int | None) -> list[str]:
        """Close the episodes that have ended at `now`, or all; return the lines to log."""
        keys = [
            key for key, episode in self._open.items() if now is None or has_ended(episode, now)
        ]
        return [line for key in keys for line in self._end(key)]

    def _end(self, key: _Key) -> list[str]:
        """End an episode. The line of its first event says everything about an episode of one."""
        episode = self._open.pop(key)
        return [self._lines.episode(episode)] if episode.events > 1 else []


def has_ended(episode: Episode, now: int) -> bool:
    """Whether no event has come for the window, or the episode has its maximum length."""
    return now - episode.last >= episode.window or now - episode.first.time >= MAX_LENGTH
