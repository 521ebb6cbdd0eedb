# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The active tables with a few hosts changed, instead of all lists compiled anew.

Compiling two million entries takes most of a second. A ban by hand, or one more denied address, changes a
single line of the tables. The result is the same, byte for byte; where it would not be, or where that is not
known, there is none, and the caller compiles.
"""

from __future__ import annotations

import math
import typing as t
from array import array
from collections import Counter

from .._base.errors import InvalidInput
from .._base.files import read_json
from .._declared.entries import expires_at, parse_list
from .._declared.store import is_feed
from .._feeds.spare import NOTHING
from .._tables.area import WORDS, Area
from .._tables.ipv4 import BLOCK_BITS, Shape
from .._tables.ipv4_halves import HALF_BITS, HALVES, Halves, are_few, half_of
from .._tables.lines import INNER, KEYS, MIN_TOP_WIDTH, NO_KEY, TABLE, first_width
from .._tables.ranges import LAST4, NONE
from .._tables.reader import lookup4
from .lists import Lists, digest_of
from .verdict import find, verdict_of

if t.TYPE_CHECKING:
    from .._base.clock import Clock
    from .._declared.entries import Entry
    from .._declared.store import State
    from .._feeds.spare import Note
    from .generation import Areas

# Each host costs a search in all lists; with more of them, compiling is as fast.
_MAX_HOSTS = 8
_MAX_TEXT = 1 << 20
_MAX_LINES = 64

_COUNTS = ("allow", "deny")


class Known(t.NamedTuple):
    """What is known of the active tables beside their bytes: counts and shape, as in `Lists`."""

    counts: dict[str, int]
    shape: Shape


def read_known(path: str, areas: Areas) -> Known | None:
    """What is known of these tables; None if the file is about others, missing or damaged."""
    try:
        lists, next_expiry, counts, shape = read_json(path)
        if (lists, next_expiry) != (areas.lists.hex(), areas.next_expiry):
            return None
        return Known({str(name): int(number) for name, number in counts.items()}, Shape(*shape))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def patched(
    areas: Areas, given: Known, states: tuple[State, State], clock: Clock, note: Note
) -> Lists | None:
    """The lists of the second state, if its tables differ in a few isolated hosts only.

    areas, given: the tables of the first state. note: of the feeds' exceptions in both.
    """
    before, after = states
    changes = _changes(before, after)
    if changes is None or not clock.is_trusted or not areas.v4.pages:
        return None
    counts = dict(given.counts)
    expiries = [areas.next_expiry] if areas.next_expiry else []
    for kind, entry, number in changes:
        if entry.expires:
            expiry = expires_at(entry.expires)
            if number < 0 or expiry <= clock.passed:
                return None
            expiries.append(math.ceil(expiry))
        counts[kind] += number
    editor = Editor(areas.v4, areas.v4_shift, given.shape)
    changed: set[int] = set()
    for prefix in sorted({entry.prefix for dummy, entry, dummy2 in changes}):
        verdict = verdict_of(find(after, prefix, clock, note))
        former = lookup4(areas.v4, areas.v4_shift, prefix.value)
        if former == verdict:
            continue
        if not _is_isolated(areas, prefix.value, changed):
            return None
        if not editor.put(prefix.value, former, verdict):
            return None
        changed.add(prefix.value)
        counts["ranges_ipv4"] += (verdict != NONE) - (former != NONE)
    digest = digest_of(after)
    made = areas._replace(
        v4=editor.area if changed else areas.v4,
        lists=digest,
        next_expiry=min(expiries, default=0),
    )
    new_note = note if note == NOTHING else note._replace(lists=digest.hex())
    return Lists(made, counts, new_note, editor.shape)


def _changes(before: State, after: State) -> list[tuple[str, Entry, int]] | None:
    """Entries that were added (1) and removed (-1), with their kinds; None if they are not a few hosts."""
    found: Counter[tuple[str, Entry]] = Counter()
    for kind in _COUNTS:
        old, new = getattr(before, kind), getattr(after, kind)
        for name in {*old, *new}:
            texts = old.get(name, ""), new.get(name, "")
            if texts[0] is texts[1] or texts[0] == texts[1]:
                continue
            if is_feed(name) or max(map(len, texts)) > _MAX_TEXT:
                return None
            lines = _changed_lines(*texts)
            if len(lines) > _MAX_LINES:
                return None
            try:
                for line, number in lines.items():
                    for entry in parse_list(line, ""):
                        found[kind, entry._replace(comment="", origin="")] += number
            except InvalidInput:
                # Compiling all lists names the file and the line.
                return None
    changes = [(kind, entry, number) for (kind, entry), number in found.items() if number]
    hosts = {entry.prefix for dummy, entry, dummy2 in changes}
    if len(hosts) > _MAX_HOSTS or any(host.family != 4 or not host.is_host for host in hosts):
        return None
    return changes


def _changed_lines(before: str, after: str) -> dict[str, int]:
    """The lines that one text has more often than the other, with how often it was added or removed."""
    counts = Counter(after.splitlines())
    counts.subtract(before.splitlines())
    return {line: number for line, number in counts.items() if number}


def _is_isolated(areas: Areas, address: int, changed: t.Collection[int]) -> bool:
    """Whether no neighbour of an address is listed, and none has changed."""
    if not 0 < address < LAST4:
        return False
    return all(
        near not in changed and lookup4(areas.v4, areas.v4_shift, near) == NONE
        for near in (address - 1, address + 1)
    )


class Editor:
    """Changes the verdicts of isolated hosts in an area, so that `build4` would have made the same area.

    A host is isolated if both neighbours are not listed, before and after the change. shape: of the area.
    """

    def __init__(self, area: Area, shift: int, shape: Shape) -> None:
        self.shape = shape
        self._lines = bytearray(area.lines)
        self._filter = bytearray(area.filter)
        self._halved = bool(shift & HALVES)
        self._shift = shift & ~HALVES

    @property
    def area(self) -> Area:
        return Area(bytes(self._lines), bytes(self._filter))

    def put(self, address: int, former: int, verdict: int) -> bool:
        """Change a host's verdict; False if that changes the layout, so that all must be built anew."""
        starts, others, main, used = self.shape
        more = (verdict != NONE) - (former != NONE)
        odd = (verdict not in (NONE, main)) - (former not in (NONE, main))
        shape = Shape(starts + more, others + odd, main, used)
        if not (self._fits(self.shape) and self._fits(shape)):
            return False
        half = self._half_of(address)
        put = self._put_key if half is None else self._put_low
        if not put(address, verdict):
            return False
        self.shape = shape._replace(used=self.shape.used)
        self._mark(address)
        return True

    def _may_empty(self) -> bool:
        """Whether one line of the top table less has starts, and the layout stays; counts it if so."""
        width = 32 - (self._shift - 1 if self._halved else self._shift)
        used = self.shape.used - 1
        # As in `table_width`, whose cuts are one more than the lines.
        if used < 1 or (width > MIN_TOP_WIDTH and (used + 1) * 3 < 1 << width):
            return False
        self.shape = self.shape._replace(used=used)
        return True

    def _fits(self, shape: Shape) -> bool:
        """Whether `build4` would choose this layout, for starts that use at least a third of the lines."""
        bits = 32 - first_width(shape.starts, 32, MIN_TOP_WIDTH)
        if not self._halved:
            many = bits <= HALF_BITS + 1 and are_few(shape.others, shape.starts)
            return bits == self._shift and not many
        # If the lines are crowded, the table is one bit narrower; two bits would be no halves.
        is_chosen = bits <= HALF_BITS + 1 and min(bits, HALF_BITS) == self._shift - 1
        return is_chosen and are_few(shape.others, shape.starts)

    @property
    def _words(self) -> memoryview:
        return memoryview(self._lines).cast("I")

    def _half_of(self, address: int) -> int | None:
        """The half that holds an address's hosts itself; None if a line has their keys."""
        if not self._halved:
            return None
        half = address >> self._shift - 1
        return half if Halves(self._words).line_of(half) is None else None

    def _line_of(self, address: int) -> tuple[int, int]:
        """The line with an address's keys, as the place of its first word, and how many bits they have."""
        if not self._halved:
            return (address >> self._shift) * WORDS, self._shift
        line = Halves(self._words).line_of(address >> self._shift - 1)
        return (line or 0) * WORDS, HALF_BITS

    def _put_low(self, address: int, verdict: int) -> bool:
        """Add or remove a host in a half."""
        half = address >> self._shift - 1
        lows = set(Halves(self._words).hosts_of(half)[1])
        lows ^= {address & (1 << HALF_BITS) - 1}
        if verdict not in (NONE, self.shape.main) or len(lows) > KEYS:
            return False
        if not lows and not self._may_empty():
            return False
        data = half_of(self.shape.main, sorted(lows))
        self._lines[half * len(data) : (half + 1) * len(data)] = data
        return True

    def _put_key(self, address: int, verdict: int) -> bool:
        """Add, remove or change a host in a line."""
        place, bits = self._line_of(address)
        words = self._words
        if words[place] & 7 in (INNER, TABLE):
            return False
        low = address & (1 << bits) - 1
        keys = [key for key in words[place + 1 : place + WORDS] if key < NO_KEY and key >> 4 != low]
        keys = sorted([*keys, low << 4 | verdict]) if verdict else keys
        is_half = self._halved and all(key & 15 == self.shape.main for key in keys)
        if len(keys) > KEYS or is_half or not (keys or self._may_empty()):
            return False
        words[place + 1 : place + WORDS] = memoryview(
            array("I", keys + [NO_KEY] * (KEYS - len(keys)))
        )
        return True

    def _mark(self, address: int) -> None:
        """Set or clear the filter's bit for the block of an address."""
        bits = self._shift - BLOCK_BITS
        begin = address >> bits << bits
        filters = memoryview(self._filter).cast("Q")
        line, bit = address >> self._shift, 1 << (address >> bits & (1 << BLOCK_BITS) - 1)
        is_listed = self._is_listed(begin, begin + (1 << bits) - 1)
        filters[line] = filters[line] | bit if is_listed else filters[line] & ~bit

    def _is_listed(self, first: int, last: int) -> bool:
        """Whether an address from first to last is listed; all of them belong to one line or half."""
        half = self._half_of(first)
        if half is not None:
            mask = (1 << HALF_BITS) - 1
            lows = Halves(self._words).hosts_of(half)[1]
            return any(first & mask <= low <= last & mask for low in lows)
        words = self._words
        place, bits = self._line_of(first)
        mask = (1 << bits) - 1
        state = words[place] & 3
        for key in words[place + 1 : place + WORDS]:
            if key >= NO_KEY or key >> 4 > last & mask:
                break
            if key >> 4 < first & mask:
                state = key >> 2 & 3
            elif key & 15 or (state and key >> 4 > first & mask):
                return True
            else:
                state = NONE
        return state != NONE
