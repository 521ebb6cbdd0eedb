# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The probes of many sources over hours, in bounded memory.

Most sources make one probe. Their table is an array like the program's table of first ports, which takes a
sixth of what dictionaries would. A source gets a track at its second probe, so that sources with one probe,
of which a flood has most, evict no track.

A slot is a time in seconds, shifted by 32 bits, and a probe of 32 bits. A source is its key in the maps.
"""

from __future__ import annotations

import array

# 16 bytes for each first probe. A track takes 170 bytes, and 8 for each probe.
FIRSTS, TRACKS = 32768, 2048
_WAYS = 4
_SHIFT = 32
_PROBE = (1 << _SHIFT) - 1
_WORD = (1 << 64) - 1


def slot_of(seconds: int, probe: int) -> int:
    return seconds << _SHIFT | probe & _PROBE


class Probes:
    """Remembers distinct probes. If there is no room, it evicts the source that has paused for longest."""

    def __init__(self, firsts: int = FIRSTS, tracks: int = TRACKS) -> None:
        self._hashes = array.array("Q", bytes(8 * firsts))
        self._slots = array.array("Q", bytes(8 * firsts))
        self._max_tracks = tracks
        self._tracks: dict[bytes, array.array[int]] = {}
        self.firsts = 0
        """Sources with one probe."""
        self.evicted = 0
        """Sources that were evicted within the window."""

    @property
    def tracks(self) -> int:
        """Sources with several probes."""
        return len(self._tracks)

    def add(self, source: bytes, slot: int, window: int) -> list[int]:
        """Add a probe; return the slots of the source's distinct probes within `window` seconds."""
        oldest = max((slot >> _SHIFT) - window, 0) << _SHIFT
        track = self._tracks.pop(source, None)
        if track is None:
            first = self._take_first(source)
            if not first or first < oldest or not (first ^ slot) & _PROBE:
                self._put_first(source, slot, oldest)
                return [slot]
            track = array.array("Q", (first,))
            self._make_room(oldest)
        probe = slot & _PROBE
        found = [old for old in track if old >= oldest and old & _PROBE != probe]
        found.append(slot)
        # At the end: the first track is the one that has paused for longest.
        self._tracks[source] = array.array("Q", found)
        return found

    def forget(self, source: bytes) -> None:
        self._take_first(source)
        self._tracks.pop(source, None)

    def _make_room(self, oldest: int) -> None:
        if len(self._tracks) >= self._max_tracks:
            evicted = self._tracks.pop(next(iter(self._tracks)))
            self.evicted += evicted[-1] >= oldest

    def _take_first(self, source: bytes) -> int:
        """Remove the source's first probe; return its slot, 0 if there is none."""
        wanted, ways = self._set_of(source)
        for way in ways:
            if self._hashes[way] == wanted:
                slot = self._slots[way]
                self._hashes[way] = self._slots[way] = 0
                self.firsts -= 1
                return slot
        return 0

    def _put_first(self, source: bytes, slot: int, oldest: int) -> None:
        wanted, ways = self._set_of(source)
        way = min(ways, key=self._slots.__getitem__)
        if self._hashes[way]:
            self.evicted += self._slots[way] >= oldest
        else:
            self.firsts += 1
        self._hashes[way], self._slots[way] = wanted, slot

    def _set_of(self, source: bytes) -> tuple[int, range]:
        """The source's hash, and the ways of its set. Python seeds the hash, so nobody can choose a set."""
        found = hash(source) & _WORD or 1
        first = found % (len(self._hashes) // _WAYS) * _WAYS
        return found, range(first, first + _WAYS)
