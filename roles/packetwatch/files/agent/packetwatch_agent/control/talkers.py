# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The busiest sources and ports and the latest scans, for ``top``, in bounded memory.

A summary of Misra and Gries counts the sources. Of N events it underestimates a source by at most
N / (size + 1), however many sources there are; summaries can be merged (Agarwal et al., "Mergeable
summaries", 2012). There are two, for this minute and the one before. The count of the last minute is
estimated from both.
"""

from __future__ import annotations

import collections
import time
import typing as t

from packetwatch_core._kernel import abi
from packetwatch_core._kernel.ring import split

from ..events import PORT, SOURCE, TYPE

SIZE = 256
SCANS = 64
WINDOW = 60.0
_SAMPLES = 64


class Summary:
    """Counts of at most `size` keys."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self.counts: dict[bytes, int] = {}
        self.error = 0
        """A count may be too low by so much."""

    def add(self, counts: t.Mapping[bytes, int]) -> None:
        mine = self.counts
        for key, count in counts.items():
            mine[key] = mine.get(key, 0) + count
        if len(mine) > self._size:
            least = sorted(mine.values(), reverse=True)[self._size]
            self.counts = {key: count - least for key, count in mine.items() if count > least}
            self.error += least


class Scan(t.NamedTuple):
    """A source that has crossed the threshold; `seen` in UTC seconds."""

    seen: float
    address: bytes
    kind: str
    ports: int
    result: str


class Talkers:
    """Counts the ring's records."""

    def __init__(self, clock: t.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._sources = Summary(), Summary()
        self._ports = Summary(), Summary()
        self._scans: dict[bytes, Scan] = {}

    def sample(self, size: int, count: int, run: memoryview) -> None:
        """Count a sample of a run of `count` records of one size, so that a flood costs no more."""
        step = count // _SAMPLES + 1
        self.note(split(run, size, step), step)

    def note(self, records: t.Sequence[bytes], weight: int = 1) -> None:
        """Count records, each of which stands for `weight` records."""
        seen = [
            record
            for record in records
            if len(record) >= abi.EVENT_SHORT and record[TYPE] == abi.EVENT_CONNECTION
        ]
        if not seen:
            return
        self._slide()
        for summary, part in ((self._sources[0], SOURCE), (self._ports[0], PORT)):
            counts = collections.Counter(record[part] for record in seen)
            summary.add({key: count * weight for key, count in counts.items()})

    def note_scan(self, address: bytes, kind: str, ports: int, result: str) -> None:
        """Remember a source's latest scan, in place of its former one, or of the oldest."""
        self._scans.pop(address, None)
        if len(self._scans) >= SCANS:
            del self._scans[next(iter(self._scans))]
        self._scans[address] = Scan(time.time(), address, kind, ports, result)

    def sources(self, most: int) -> list[tuple[bytes, int]]:
        """Sources with most new connections in about the last minute, and how many."""
        self._slide()
        return self._top(self._sources, most)

    def ports(self, most: int) -> list[tuple[bytes, int]]:
        """Destination ports with most new connections, likewise."""
        self._slide()
        return self._top(self._ports, most)

    def scans(self, most: int) -> list[Scan]:
        """The latest scan of each source, the newest first."""
        return list(reversed(self._scans.values()))[:most]

    def _top(self, pair: tuple[Summary, Summary], most: int) -> list[tuple[bytes, int]]:
        now, before = (summary.counts for summary in pair)
        part = max(0.0, 1.0 - (self._clock() - self._began) / WINDOW)
        counts = {key: now.get(key, 0) + before.get(key, 0) * part for key in {*now, *before}}
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return [(key, round(count)) for key, count in ranked[:most] if count >= 0.5]

    def _slide(self) -> None:
        passed = int((self._clock() - self._began) // WINDOW)
        if not passed:
            return
        self._began += passed * WINDOW
        former = (self._sources[0], self._ports[0]) if passed == 1 else (Summary(), Summary())
        self._sources = Summary(), former[0]
        self._ports = Summary(), former[1]
