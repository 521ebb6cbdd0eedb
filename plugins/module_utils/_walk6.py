# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Reading the IPv6 area of docs/tables.md: one address as the XDP program does, or all starts."""

from __future__ import annotations

from collections.abc import Iterator

from ._tables6 import AFTER, LOWER, OFFSET, PLACE, TABLE


def lookup6(words: memoryview, root: int, address: int) -> int:
    """Return an address's verdict as the XDP program finds it; words are the area's, of 64 bits."""
    exact, descriptor = _find(words, root, address >> 64)
    if exact:
        _exact, descriptor = _find(words, descriptor, address & LOWER)
    return descriptor & 3


def _find(words: memoryview, descriptor: int, key: int) -> tuple[bool, int]:
    """Follow a descriptor; return whether the key itself was found, and its info or the verdict."""
    rest = key
    while descriptor & 12 == TABLE:
        width = descriptor >> 4 & 63
        descriptor = words[(descriptor >> OFFSET & PLACE) + (rest >> (64 - width))]
        rest = rest << width & LOWER
    count = descriptor >> 10 & 0xFFFF
    place = descriptor >> OFFSET & PLACE
    keys = words[place : place + count]
    begin, end = 0, count
    while begin < end:
        middle = (begin + end) // 2
        if keys[middle] <= key:
            begin = middle + 1
        else:
            end = middle
    if not begin:
        return False, descriptor & 3
    info = words[place + count + begin - 1]
    if keys[begin - 1] == key:
        return True, info
    return False, info >> AFTER


def walk6(words: memoryview, root: int) -> list[int]:
    """Return the area's start words with whole addresses, as start_words gives them.

    Some may say what held before them anyway.
    """
    walk = _Walk(words)
    walk.upper(root, 0, 0)
    return walk.found


class _Walk:
    """Collects the starts of an area in the order of their addresses."""

    def __init__(self, words: memoryview) -> None:
        self.found: list[int] = []
        self._words = words
        self._state = 0

    def upper(self, descriptor: int, base: int, consumed: int) -> None:
        """Collect from a descriptor of the upper half, whose first key is base."""
        self._set(base << 64, descriptor & 3)
        if descriptor & 12 == TABLE:
            consumed_below = consumed + (descriptor >> 4 & 63)
            for below, slot in self._slots(descriptor, base, consumed):
                self.upper(slot, below, consumed_below)
            return
        words, found = self._words, self.found
        for key, info in self._leaf(descriptor):
            if info & 0x3FFFFFF == 1 << 10 | self._state and info >> AFTER == self._state:
                # Nothing but one start in the lower half, such as a single host.
                place = info >> OFFSET & PLACE
                mark = words[place + 1]
                if mark >> AFTER == self._state:
                    found.append((key << 64 | words[place]) << 4 | mark >> AFTER << 2 | mark & 3)
                    continue
            self._set(key << 64, info & 3)
            if info >> 4 & 0x3FFFFF:  # a table's width or a leaf's count
                self._lower(info, key << 64, 0, 0)
            if info >> AFTER != self._state:
                self._set((key + 1) << 64, info >> AFTER)

    def _lower(self, descriptor: int, high: int, base: int, consumed: int) -> None:
        """Collect from a descriptor of the lower half below high, whose first key is base."""
        if descriptor & 12 == TABLE:
            for below, slot in self._slots(descriptor, base, consumed):
                self._set(high | below, slot & 3)
                self._lower(slot, high, below, consumed + (descriptor >> 4 & 63))
            return
        for key, info in self._leaf(descriptor):
            address = high | key
            if self.found and self.found[-1] >> 4 == address:
                self.found.pop()
            self.found.append(address << 4 | info >> AFTER << 2 | info & 3)
            self._state = info >> AFTER

    def _set(self, address: int, verdict: int) -> None:
        """Let the verdict hold from the address on; the last word about an address counts."""
        if verdict != self._state:
            if self.found and self.found[-1] >> 4 == address:
                self.found.pop()
            self.found.append(address << 4 | verdict << 2 | verdict)
            self._state = verdict

    def _slots(self, descriptor: int, base: int, consumed: int) -> Iterator[tuple[int, int]]:
        """Yield a table's descriptors that say something new, each with its first key."""
        width = descriptor >> 4 & 63
        place = descriptor >> OFFSET & PLACE
        shift = 64 - consumed - width
        for bucket, slot in enumerate(self._words[place : place + (1 << width)]):
            if slot != self._state:
                yield base | bucket << shift, slot

    def _leaf(self, descriptor: int) -> Iterator[tuple[int, int]]:
        """Return a leaf's keys with their info words."""
        count = descriptor >> 10 & 0xFFFF
        place = descriptor >> OFFSET & PLACE
        numbers = self._words[place : place + 2 * count].tolist()
        return zip(numbers, numbers[count:])
