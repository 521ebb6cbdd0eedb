# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""An IPv4 area in which some lines of the top table are made anew; all others stay, or move.

After the top table, an area has the lines below its first line, then those below its second line, and so
on. At the end of a table of halves follow up to two *uniform* lines, without keys, which give all
addresses of a half the same verdict; any number of halves lead to them.
"""

from __future__ import annotations

import sys
import typing as t
from array import array

from .._tables.area import WORDS, Area
from .._tables.ipv4 import part4, top_lines
from .._tables.ipv4_halves import HALVES
from .._tables.lanes import low_bytes, places_of
from .._tables.lines import INNER, NO_KEY, TABLE

_LINKS = bytes(word & 7 in (INNER, TABLE) for word in range(256))
_HIGH = bytes(word >> 7 for word in range(256))
_HALF_WORDS = WORDS // 2


def spliced(
    area: Area, shift: int, main: int, top: range, words: t.Iterable[int], before: int
) -> Area:
    """Return the area with other start words below some lines (`top`) of the top table; see `part4`."""
    count = top_lines(shift)
    lines, filters = part4(words, shift, main, top, before)
    old, new = _Body(_used(area, count), shift, count), _Body(lines, shift, len(top))
    head, own, tail = old.links_by((top.start, top.stop, count))
    # The lines below the first line after the part begin at stop, those below the part at start.
    stop = min((line for line in tail.values() if line < old.end), default=old.end)
    start = min((line for line in own.values() if line < old.end), default=stop)
    far, gap = start - len(top), new.end - len(top) - (stop - start)
    verdicts = old.verdicts(head) | old.verdicts(tail) | new.verdicts(new.links)
    uniform = {word: old.end + gap + number for number, word in enumerate(sorted(verdicts))}
    old.move(head, 0, uniform)
    old.move(tail, gap, uniform)
    old.move_below(range(stop, old.end), gap)
    new.move(new.links, far, uniform)
    new.move_below(range(len(top), new.end), far)
    made = old.lines(0, top.start) + new.lines(0, len(top)) + old.lines(top.stop, start)
    made += new.lines(len(top), new.end) + old.lines(stop, old.end)
    for word in uniform:
        made += array("I", [word, *[NO_KEY] * (WORDS - 1)])
    marks = array("Q", area.filter[: 8 * count])
    marks[top.start : top.stop] = filters
    return Area.of((made,), (marks,))


def _used(area: Area, count: int) -> array[int]:
    """Return the lines of an area without those that only fill its last page; at least `count`."""
    size = max(len(area.lines.rstrip(b"\0")), 4 * WORDS * count)
    return array("I", area.lines[: size + -size % (4 * WORDS)])


class _Body:
    """A top table and the lines below it.

    links: the lines to which its lines or halves lead, by the place of the word that says so. end: the
    first uniform line, or the end of all lines.
    """

    def __init__(self, words: array[int], shift: int, top: int) -> None:
        self._words = words
        self._halved = bool(shift & HALVES)
        self.links = self._read(top * WORDS)
        self.end = len(words) // WORDS
        if self._halved:
            linked = set(self.links.values())
            while self.end - 1 in linked and self._is_uniform(self.end - 1):
                self.end -= 1

    def _read(self, size: int) -> dict[int, int]:
        words = self._words
        if self._halved:
            flags = array("I", words[1:size:_HALF_WORDS])
            if sys.byteorder == "little":
                flags.byteswap()
            places = places_of(1, low_bytes(flags).translate(_HIGH))
            return {place * _HALF_WORDS: words[place * _HALF_WORDS] for place in places}
        heads = words[0:size:WORDS]
        places = places_of(1, low_bytes(heads).translate(_LINKS))
        return {place * WORDS: heads[place] >> 4 for place in places}

    def _is_uniform(self, line: int) -> bool:
        head, *keys = self._words[line * WORDS : (line + 1) * WORDS]
        return not _LINKS[head & 255] and min(keys) == NO_KEY

    def links_by(self, ends: t.Iterable[int]) -> list[dict[int, int]]:
        """Return the links of the lines up to each of these ends."""
        found: list[dict[int, int]] = []
        begin = 0
        for end in ends:
            places = range(begin * WORDS, end * WORDS)
            found.append({place: line for place, line in self.links.items() if place in places})
            begin = end
        return found

    def verdicts(self, links: dict[int, int]) -> set[int]:
        """Return the first words of the uniform lines that are among these links."""
        return {self._words[line * WORDS] for line in links.values() if line >= self.end}

    def move(self, links: dict[int, int], gap: int, uniform: dict[int, int]) -> None:
        """Make these links lead to lines that moved by `gap`; uniform: lines by their first word."""
        factor = 1 if self._halved else 1 << 4
        for place, line in links.items():
            there = line + gap if line < self.end else uniform[self._words[line * WORDS]]
            self._words[place] += (there - line) * factor

    def move_below(self, lines: range, gap: int) -> None:
        """Do the same for the tables and inner lines among these lines."""
        heads = self._words[lines.start * WORDS : lines.stop * WORDS : WORDS] if gap else array("I")
        for place in places_of(1, low_bytes(heads).translate(_LINKS)):
            self._words[(lines.start + place) * WORDS] += gap << 4

    def lines(self, begin: int, end: int) -> array[int]:
        """Return the lines from begin to before end."""
        return self._words[begin * WORDS : end * WORDS]
