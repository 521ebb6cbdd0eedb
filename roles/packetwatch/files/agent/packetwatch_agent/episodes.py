# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Episodes: who scans, or would be dropped, on and on is told once at the beginning and once at the end.

The program tells each time that a source crosses the threshold, and every second that a packet would
have been dropped. Where no ban follows (monitor mode, protected sources), that can go on for hours.
"""

from __future__ import annotations

import array
import typing as t

from packetwatch_core._bans.bans import Source
from packetwatch_core._declared.kinds import nanoseconds
from packetwatch_core._kernel import abi

from .confirmed import Confirmed
from .events import Event, Lines
from .quota import Quota

# Episodes followed at a time, the ports that each remembers, and how long one can be.
_FOLLOWED = 1024
_PORTS = 64
_LONGEST = 3600 * 1_000_000_000

_Key = tuple[int, str, Source]


class Episode:
    """What is known of one: its first event, and what came since. There may be a thousand."""

    __slots__ = ("events", "first", "last", "ports", "ports_count", "window")

    def __init__(self, first: Event, window: int) -> None:
        # Its ports as a tuple of objects would take kilobytes.
        self.first = first._replace(ports=())
        self.window = window
        self.last = first.time
        self.events = 0
        self.ports_count = 0
        self.ports: array.array[int] = array.array("H")
        self.add(first)

    def add(self, event: Event) -> None:
        self.last = max(self.last, event.time)
        self.events += 1
        self.ports_count += event.distinct
        for port in event.ports:
            if len(self.ports) < _PORTS and port not in self.ports:
                self.ports.append(port)


class Episodes:
    """Folds events of the same source and kind, until none has come for the policy's scan_window."""

    def __init__(
        self, lines: Lines, confirmed: Confirmed, names: t.Callable[[int], str], quota: Quota
    ) -> None:
        self._lines = lines
        self._confirmed = confirmed
        self._names = names
        self._quota = quota
        self._open: dict[_Key, Episode] = {}
        self.begun = {"scan": 0, "would_drop": 0}

    def note(self, event: Event) -> list[str]:
        """The lines that an event without a ban leads to.

        None within an episode, nor where too many begin: such a one is not followed.
        """
        key = (event.type, event.reason, event.source)
        episode = self._open.get(key)
        lines = []
        if episode:
            if not is_over(episode, event.time):
                episode.add(event)
                return []
            lines += self._end(key)
        kind = "scan" if event.type == abi.EVENT_BAN else "would_drop"
        if not self._quota.allows(kind, event.time):
            return lines
        if len(self._open) >= _FOLLOWED:
            lines += self._end(next(iter(self._open)))
        policy = self._confirmed.policy(self._names(event.ifindex))
        window = nanoseconds(policy.scan_window)
        self._open[key] = Episode(event, window)
        self.begun[kind] += 1
        write = self._lines.scan if kind == "scan" else self._lines.would_drop
        return [*lines, write(event)]

    def end(self, now: int | None) -> list[str]:
        """End those that are over at `now`, or all; the lines of those that were told in part only."""
        over = [key for key, episode in self._open.items() if now is None or is_over(episode, now)]
        return [line for key in over for line in self._end(key)]

    def _end(self, key: _Key) -> list[str]:
        episode = self._open.pop(key)
        return [self._lines.episode(episode)] if episode.events > 1 else []


def is_over(episode: Episode, now: int) -> bool:
    """Whether nothing has come for too long, or the episode has become a long one."""
    return now - episode.last >= episode.window or now - episode.first.time >= _LONGEST
