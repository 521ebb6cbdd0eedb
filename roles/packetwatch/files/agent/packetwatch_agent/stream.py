# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the ring to the log: a batch of records at a time becomes lines and counts."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._kernel import abi
from packetwatch_core._kernel.ring import split

from .connections import Form
from .episodes import Episodes
from .events import Event, count_kinds, decode, pick
from .lines import Lines
from .loop import BUSY, IDLE, MORE
from .metrics import COUNTER, GAUGE, Rows, Values, by_label
from .output import Output
from .part import Part

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.ring import RingBuffer

    from .control.talkers import Talkers
    from .loop import Loop
    from .quota import Quota

BATCH = 1024
# The lines of scans have all ports: fewer of them are kept in memory.
_LONG_LINES = 128
_LAST_BATCHES = 64
_EPISODES_PERIOD = 5.0


class Stream(Part):
    """Reads the ring.

    on_ban: gets each ban, and returns the event to log. wanted: whether connections of an
    interface, by its ifindex, are logged. Other parts get probes and scans through `consume`.
    """

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_ring_backlog_bytes": (GAUGE, "Bytes in the ring that wait for the agent."),
        "packetwatch_agent_records_total": (
            COUNTER,
            "Records read from the ring since the agent's start, by type.",
        ),
    }

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
        # By type of event: its name in metrics, and what returns its lines.
        self._types: dict[int, tuple[str, t.Callable[[Event], list[str]]]] = {
            abi.EVENT_CONNECTION: ("connection", self._connection),
            abi.EVENT_BAN: ("scan", self._scan),
            abi.EVENT_WOULD_DROP: ("would_drop", episodes.note),
            abi.EVENT_PROBE: ("probe", self._probe),
        }
        self._consumers: dict[int, list[t.Callable[[Event], None]]] = {
            abi.EVENT_BAN: [],
            abi.EVENT_PROBE: [],
        }
        self.records = {name: 0 for name, dummy in self._types.values()} | {"unknown": 0}

    def consume(self, event_type: int, consumer: t.Callable[[Event], None]) -> None:
        """Hand each event of this type to `consumer`: scans, with or without a ban, or new probes.

        A scan has the present end of its ban. After a crash of the agent, the last events come again.
        """
        self._consumers[event_type].append(consumer)

    def log_probe(self, event: Event) -> None:
        """Log a new probe: a consumer of probes where they are logged."""
        self._written.append(self._lines.probe(event))

    def report(self, scan: Event) -> None:
        """Log a scan that another part has found, and hand it over, as if the program had written it."""
        self._written += self._scan(scan)

    def start(self, loop: Loop) -> None:
        loop.after(_EPISODES_PERIOD, self._end_episodes)

    def stop(self) -> None:
        """Write what is in the ring. What is left after so many batches waits for the next start."""
        for dummy in range(_LAST_BATCHES):
            if self.poll() == IDLE:
                break
        self._output.write(self._episodes.end(None))
        self._ring.close()

    def values(self) -> Values:
        return {
            "packetwatch_ring_backlog_bytes": [({}, self._ring.backlog())],
            "packetwatch_agent_records_total": by_label("type", self.records),
        }

    def poll(self) -> int:
        """Read a batch, write its lines, then give the records back to the kernel."""
        count = 0
        for size, length, run in self._ring.runs(BATCH):
            if not count:
                self._lines.set_clock()
            count += length
            self._talkers.sample(size, length, run)
            if size == abi.EVENT_SHORT:
                self._short(run)
            else:
                self._one_by_one(run, size)
        self._flush()
        self._ring.release()
        return IDLE if not count else MORE if count >= BATCH else BUSY

    def _end_episodes(self) -> float:
        self._output.write(self._episodes.end(time.monotonic_ns()))
        return _EPISODES_PERIOD

    def _short(self, run: memoryview) -> None:
        """Read a run of records without ports: mostly connections, and probes among them."""
        kinds = count_kinds(run)
        if not all(kind.is_connection or kind.is_probe for kind in kinds):
            self._one_by_one(run, abi.EVENT_SHORT)
            return
        forms: dict[int, Form | None] = {}
        for kind, (number, count) in kinds.items():
            self.records["probe" if kind.is_probe else "connection"] += count
            is_logged = kind.is_connection and self._wanted(kind.ifindex)
            forms[number] = self._lines.form(kind) if is_logged else None
        if any(forms.values()):
            self._written += self._lines.connections(run, forms)
        if not self._consumers[abi.EVENT_PROBE]:
            return
        for kind, (number, dummy) in kinds.items():
            if kind.is_probe:
                for event in pick(run, number):
                    self._hand_over(event)

    def _one_by_one(self, run: memoryview, size: int) -> None:
        for record in split(run, size):
            event = decode(record)
            if event is None:
                # A newer program may have written it.
                self.records["unknown"] += 1
                continue
            name, lines_of = self._types[event.type]
            self.records[name] += 1
            self._written += lines_of(event)
            if len(self._written) >= _LONG_LINES:
                self._flush()

    def _flush(self) -> None:
        lines, self._written = self._written, []
        self._output.write(lines)

    def _connection(self, event: Event) -> list[str]:
        return [self._lines.connection(event)] if self._wanted(event.ifindex) else []

    def _hand_over(self, event: Event) -> None:
        for consumer in self._consumers[event.type]:
            consumer(event)

    def _probe(self, event: Event) -> list[str]:
        self._hand_over(event)
        return []

    def _scan(self, event: Event) -> list[str]:
        spared = "protected" if event.flags & abi.EVENT_PROTECTED else "monitor"
        self._talkers.note_scan(
            event.saddr, event.kind, event.distinct, "ban" if event.banned else spared
        )
        event = self._on_ban(event) if event.banned else event
        self._hand_over(event)
        if not event.banned:
            return self._episodes.note(event)
        # The size of their table limits all bans but the short ones.
        is_short = event.flags & abi.EVENT_IN_OVERFLOW
        if is_short and not self._quota.allows("ban", event.time):
            return []
        return [self._lines.scan(event)]
