# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the ring to the log: a batch of records at a time becomes lines and counts."""

from __future__ import annotations

import typing as t

from packetwatch_core._kernel import abi
from packetwatch_core._kernel.ring import split

from .connections import Form
from .episodes import Episodes
from .events import Event, count_kinds, decode
from .lines import Lines
from .loop import BUSY, IDLE, MORE
from .output import Output

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.ring import RingBuffer

    from .control.talkers import Talkers
    from .quota import Quota

BATCH = 1024
# Scans are told with all their ports: fewer lines at a time, for the memory they take.
_LONG_LINES = 128


class Stream:
    """Reads the ring.

    on_ban: sees each ban and returns the event to be told; wanted: whether connections of an
    interface, by its number, are logged.
    """

    def __init__(
        self,
        ring: RingBuffer,
        lines: Lines,
        output: Output,
        episodes: Episodes,
        talkers: Talkers,
        quota: Quota,
        on_ban: t.Callable[[Event], Event],
        wanted: t.Callable[[int], bool],
    ) -> None:
        self._ring = ring
        self._lines = lines
        self._output = output
        self._episodes = episodes
        self._talkers = talkers
        self._quota = quota
        self._on_ban = on_ban
        self._wanted = wanted
        self._written: list[str] = []
        self.records = {"connection": 0, "scan": 0, "would_drop": 0, "unknown": 0}

    def poll(self) -> int:
        """Read a batch, write its lines, then give the records back."""
        count = 0
        for size, length, run in self._ring.runs(BATCH):
            if not count:
                self._lines.set_clock()
            count += length
            self._talkers.look(size, length, run)
            if size == abi.EVENT_SHORT:
                self._write(self._short(run))
            else:
                self._one_by_one(run, size)
        self._flush()
        self._ring.release()
        return IDLE if not count else MORE if count >= BATCH else BUSY

    def _short(self, run: memoryview) -> list[str]:
        """A run of records without ports: connections, as a rule."""
        kinds = count_kinds(run)
        forms: dict[int, Form | None] = {}
        for kind, (number, dummy) in kinds.items():
            if kind.type != abi.EVENT_CONNECTION or kind.flags or kind.family not in (4, 6):
                self._one_by_one(run, abi.EVENT_SHORT)
                return []
            forms[number] = self._lines.form(kind) if self._wanted(kind.ifindex) else None
        self.records["connection"] += sum(count for dummy, count in kinds.values())
        return self._lines.connections(run, forms) if any(forms.values()) else []

    def _one_by_one(self, run: memoryview, size: int) -> None:
        for record in split(run, size):
            event = decode(record)
            if event is None:
                # A newer program may have written it.
                self.records["unknown"] += 1
            elif event.type == abi.EVENT_CONNECTION:
                self.records["connection"] += 1
                if self._wanted(event.ifindex):
                    self._write([self._lines.connection(event)])
            elif event.type == abi.EVENT_BAN:
                self.records["scan"] += 1
                self._write(self._scan(event))
            else:
                self.records["would_drop"] += 1
                self._write(self._episodes.note(event))
            if len(self._written) >= _LONG_LINES:
                self._flush()

    def _write(self, lines: list[str]) -> None:
        self._written += lines

    def _flush(self) -> None:
        lines, self._written = self._written, []
        self._output.write(lines)

    def _scan(self, event: Event) -> list[str]:
        spared = "protected" if event.flags & abi.EVENT_PROTECTED else "monitor"
        self._talkers.note_scan(event.saddr, event.distinct, "ban" if event.banned else spared)
        if not event.banned:
            return self._episodes.note(event)
        event = self._on_ban(event)
        # Of other bans there are no more than their table takes.
        is_short = event.flags & abi.EVENT_IN_OVERFLOW
        if is_short and not self._quota.allows("ban", event.time):
            return []
        return [self._lines.scan(event)]
