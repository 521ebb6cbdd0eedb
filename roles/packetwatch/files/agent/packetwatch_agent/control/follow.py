# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams of lines that clients of the control socket follow.

Who writes a line does not wait for those who follow: the line goes into a queue of a bounded size, and the
server passes it on when it has its turn in the loop.
"""

from __future__ import annotations

import collections
import typing as t

# Lines of a source that wait to be passed on. If there are more, the followers miss them.
MAX_QUEUED = 4096

Lines = t.Sequence[str]


class Source(t.Protocol):
    """Writes lines of JSON, and gives them to `tap` unless that is None."""

    tap: t.Callable[[Lines], None] | None


class Follow(t.NamedTuple):
    """The answer to a request to follow a source from now on; not all lines match."""

    source: Source
    matches: t.Callable[[str], bool]


class Queue:
    """What a source has written and its followers have not got yet. wake: called when there is something."""

    def __init__(self, source: Source, wake: t.Callable[[], None]) -> None:
        self.source = source
        self._wake = wake
        self._batches: collections.deque[Lines] = collections.deque()
        self._size = 0
        self._missed = 0
        source.tap = self.put

    def put(self, lines: Lines) -> None:
        """Keep the lines if there is room, else only count them."""
        if self._size + len(lines) > MAX_QUEUED:
            self._missed += len(lines)
        else:
            # The writer may use its list again.
            self._batches.append(tuple(lines))
            self._size += len(lines)
        self._wake()

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._batches or self._missed)

    def take(self) -> tuple[Lines, int]:
        """The next lines, or how many found no room after the last ones."""
        if self._batches:
            lines = self._batches.popleft()
            self._size -= len(lines)
            return lines, 0
        missed, self._missed = self._missed, 0
        return (), missed


class Taps:
    """Taps the sources that are followed, and only them, so that the others cost nothing."""

    def __init__(self, wake: t.Callable[[], None]) -> None:
        self._wake = wake
        self.queues: list[Queue] = []

    def set(self, follows: t.Iterable[Follow]) -> None:
        """Tap exactly the sources of these."""
        sources = {id(follow.source): follow.source for follow in follows}
        kept = {id(queue.source): queue for queue in self.queues if id(queue.source) in sources}
        for queue in self.queues:
            if id(queue.source) not in kept:
                queue.source.tap = None
        self.queues = [
            kept[key] if key in kept else Queue(source, self._wake)
            for key, source in sources.items()
        ]
