# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counts different sightings of many keys within a time window, in bounded memory.

Most sources are seen once and never again, so the first sighting of a key costs twelve bytes. It has two places, chosen
by a hash that no sender can predict. If both are taken, the older sighting is lost. From the second sighting on, a key
has a dictionary of its own. A lost first sighting means that one more is needed: nothing is ever counted that was not
seen.
"""

from __future__ import annotations

import array
import typing as t

# Places of first sightings (12 bytes each), and sightings in dictionaries (about 200 bytes each).
FIRSTS, MOST = 1 << 19, 40_000
_LOW = 0xFFFFFFFF
_NOTE = 16
# Seconds for which a wider window is kept: times of hosts differ a little.
_SLACK = 2


class Sighting(t.NamedTuple):
    """One of the sightings that `Table.add` returns."""

    kind: int
    note: int


class Table:
    """A sighting is a number of 32 bits. It is a different one if its upper `32 - shift` bits are different.

    enough: how many different sightings of a key within `window` seconds are reported.
    """

    def __init__(
        self, shift: int, window: float, enough: int, firsts: int = FIRSTS, most: int = MOST
    ) -> None:
        self.lost = 0
        """Sightings that were dropped before their time."""
        self._shift = shift
        self._window = round(window)
        self._enough = enough
        self._most = most
        self._mask = firsts - 1
        # Of the first sighting of a key: 32 bits of the key's hash, the sighting, and its time.
        self._tags = array.array("I", bytes(4 * firsts))
        self._values = array.array("I", bytes(4 * firsts))
        self._times = array.array("I", bytes(4 * firsts))
        self._many: dict[bytes, dict[int, int]] = {}
        """Keys with several sightings, those seen last at the end: their kinds, with time and note."""
        self._size = 0

    @property
    def entries(self) -> int:
        """How many sightings of keys with several of them there are."""
        return self._size

    def add(
        self, found: t.Iterable[tuple[bytes, int]], base: int, now: float
    ) -> t.Iterator[tuple[bytes, list[Sighting]]]:
        """Add sightings; yield each key that has enough of them now, with all of them.

        base: bits that all of these sightings have in common.
        """
        many, mask = self._many, self._mask
        tags, values, times = self._tags, self._values, self._times
        moment = int(now)
        oldest = moment - self._window
        for key, value in found:
            value |= base
            known = many.get(key)
            if known is None:
                mixed = hash(key)
                tag, place = mixed & _LOW, mixed >> 32 & mask
                if tags[place] != tag:
                    # As in a cuckoo filter, the tag leads from one place to the other.
                    other = (place ^ tag) & mask
                    if tags[other] == tag:
                        place = other
                    elif times[place] >= oldest:
                        # Not seen before, and the first place is taken.
                        if times[other] < times[place]:
                            place = other
                        if times[place] >= oldest:
                            self.lost += 1
                if tags[place] != tag or times[place] < oldest:
                    tags[place], values[place], times[place] = tag, value, moment
                    continue
                before = values[place]
                if (before ^ value) >> self._shift == 0:
                    times[place] = max(moment, times[place])
                    continue
                known = {}
                self._note(known, before, times[place])
                tags[place] = values[place] = times[place] = 0
            else:
                del many[key]
            many[key] = known
            self._note(known, value, moment)
            if len(known) >= self._enough:
                self._prune(known, oldest)
                if len(known) >= self._enough:
                    yield key, self._sightings(known)
            if self._size > self._most:
                self._evict()

    def forget(self, key: bytes) -> None:
        """Forget a key."""
        known = self._many.pop(key, None)
        if known:
            self._size -= len(known)
        mixed = hash(key)
        tag, place = mixed & _LOW, mixed >> 32 & self._mask
        for one in (place, (place ^ tag) & self._mask):
            if self._tags[one] == tag:
                self._tags[one] = self._values[one] = self._times[one] = 0

    def expire(self, now: float) -> None:
        """Forget keys that were not seen within the window."""
        oldest = int(now) - self._window - _SLACK
        while self._many:
            key, known = next(iter(self._many.items()))
            if next(reversed(known.values())) >> _NOTE >= oldest:
                break
            del self._many[key]
            self._size -= len(known)

    def _note(self, known: dict[int, int], value: int, moment: int) -> None:
        kind, note = value >> self._shift, value & ((1 << self._shift) - 1)
        if known.pop(kind, None) is None:
            self._size += 1
        known[kind] = moment << _NOTE | note

    def _prune(self, known: dict[int, int], oldest: int) -> None:
        for kind in [kind for kind, found in known.items() if found >> _NOTE < oldest]:
            del known[kind]
            self._size -= 1
        # A rule may want more than `enough`. Then the newest ones count.
        while len(known) > 4 * self._enough:
            del known[next(iter(known))]
            self._size -= 1

    def _evict(self) -> None:
        key = next(iter(self._many))
        known = self._many.pop(key)
        self._size -= len(known)
        self.lost += len(known)

    def _sightings(self, known: dict[int, int]) -> list[Sighting]:
        return [Sighting(kind, found & ((1 << _NOTE) - 1)) for kind, found in known.items()]
