# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps the books of bans: sees those that others made, ends those that are over, saves them."""

from __future__ import annotations

import os
import time

from packetwatch_core._bans import saved
from packetwatch_core._bans.bans import MAPS, Ban, Bans
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._kernel import abi

from .confirmed import Confirmed
from .events import Event
from .lines import Lines
from .offenders import Offenders
from .output import Output, Trouble

_SECOND = 1_000_000_000
_STEP = 1.0
_LONGEST = 5.0
_SAVE_PERIOD = 5.0
# Of one core, for reading all bans, and for writing them to disk.
_SHARE = 0.05
# Bans that are followed one by one, that are ended in one round, and lines about their ends: a
# flood has many more.
_FOLLOWED = 4096
_ENDED = 8192
_LINES = 1000
FILE = "bans.jsonl"


class Keeper:
    """Looks through the maps when a ban may be over, and every five seconds."""

    def __init__(
        self, bans: Bans, folder: str, confirmed: Confirmed, lines: Lines, output: Output
    ) -> None:
        self._bans = bans
        self._path = os.path.join(folder, FILE)
        self._lines = lines
        self._output = output
        self._offenders = Offenders(bans, confirmed)
        self._followed: dict[bytes, Ban] = {}
        self._seen = time.monotonic_ns()
        self._due = 0.0
        self._earliest = 0.0
        self._save_due = 0.0
        self._fingerprint: tuple[int, ...] = ()
        self._saved_fingerprint: tuple[int, ...] = ()
        self._trouble = Trouble(output)
        self.active = dict.fromkeys(abi.ORIGINS.values(), 0)
        self.entries = dict.fromkeys(MAPS, 0)
        self.made = {"manual": 0, "fleet": 0}
        self.expired = 0
        self.lifted = 0
        self.saved_at = 0.0

    def restore(self) -> None:
        """Write back what a former boot has saved; nothing of it is told as new."""
        try:
            result = saved.restore(self._bans, self._path)
        except PacketwatchError as error:
            self._output.say("error", f"bans of the last boot are not restored: {error}")
            return
        if result:
            counts = {f"packetwatch__{name}": count for name, count in result._asdict().items()}
            self._output.say("info", "bans of the last boot are restored", **counts)
        self._seen = time.monotonic_ns()

    def note(self, event: Event, interface: str) -> Event:
        """A scan was seen; returns the event with the end of the ban as it is now."""
        if not event.banned:
            return event
        event = self._offenders.judge(event, interface)
        self._due = min(self._due, time.monotonic() + _STEP)
        return event

    def look_soon(self) -> None:
        """Somebody has changed bans: look at them at the next tick."""
        self._due = 0.0

    def lift(self, ban: Ban) -> None:
        """A ban was taken off since its source became protected."""
        self.lifted += 1
        self._followed.pop(ban.source.key, None)
        self._output.write([self._lines.lift(ban, "protected")])

    def tick(self) -> float:
        """Look through the bans if it is time to; returns seconds until the next look."""
        started = time.monotonic()
        if started >= max(self._due, self._earliest):
            first_end = self._round()
            now = time.monotonic()
            self._earliest = now + (now - started) / _SHARE
            self._due = min(now + _LONGEST, max(first_end / _SECOND, now + _STEP))
        if self._fingerprint != self._saved_fingerprint and started >= self._save_due:
            self.save()
        return _STEP

    def save(self) -> None:
        """Write the bans to disk; trouble is told once, and tried again."""
        started = time.monotonic()
        fingerprint = self._fingerprint
        try:
            saved.save(self._bans, self._path)
        except OSError as error:
            self._trouble.tell(f"bans are not saved: {error}")
        else:
            self._saved_fingerprint = fingerprint
            self.saved_at = time.time()
            self._trouble.tell("")
        now = time.monotonic()
        self._save_due = now + max(_SAVE_PERIOD, (now - started) / _SHARE)

    def _round(self) -> int:
        """One look at all bans; returns when the next one ends, as CLOCK_MONOTONIC ns, 0 if some have."""
        started = time.monotonic_ns()
        active = dict.fromkeys(abi.ORIGINS.values(), 0)
        entries = dict.fromkeys(MAPS, 0)
        over: list[tuple[str, bytes]] = []
        others: set[bytes] = set()
        count = total = first = 0
        first_end = 1 << 63
        for table in MAPS:
            for key, since, expires, origin in self._bans.times(table):
                entries[table] += 1
                if 0 < expires <= started:
                    first_end = 0
                    if len(over) < _ENDED:
                        over.append((table, key))
                    continue
                name = abi.ORIGINS.get(origin, "scan")
                active[name] += 1
                first_end = min(first_end, expires or first_end)
                first += table == "bans"
                if table != "overflow":
                    count, total = count + 1, total + since + expires
                if name != "scan" and len(others) < _FOLLOWED:
                    others.add(key)
        self._end(over)
        self._follow(others)
        self._seen = started
        self.active, self.entries = active, entries
        self._fingerprint = (count, total)
        self._offenders.room = self._bans.capacity * 3 // 4 - first
        return first_end

    def _end(self, over: list[tuple[str, bytes]]) -> None:
        """Delete bans that are over and tell it; of short ones only the count is kept."""
        now = time.monotonic_ns()
        told: list[str] = []
        untold = 0
        for table, key in over:
            self._followed.pop(key, None)
            ban = self._bans.read(key, table)
            if ban is None or not ban.has_expired(now) or not self._bans.remove(ban):
                continue
            self.expired += 1
            if table == "overflow" or len(told) >= _LINES:
                untold += 1
            else:
                told.append(self._lines.expiry(ban))
        self._output.write(told)
        if untold:
            self._output.say(
                "info", "more bans have expired than are told one by one", packetwatch__count=untold
            )

    def _follow(self, others: set[bytes]) -> None:
        """Tell bans that others have made or lifted since the last look."""
        lines: list[str] = []
        for key in self._followed.keys() - others:
            former = self._followed.pop(key)
            # One that is still there is only one of more than are followed.
            if self._bans.read(key, "bans") is None:
                self.lifted += 1
                lines.append(self._lines.lift(former, "removed"))
        for key in others:
            ban = self._bans.read(key, "bans")
            if ban is None:
                continue
            if ban.since > self._seen:
                self.made[ban.origin_name] = self.made.get(ban.origin_name, 0) + 1
                lines.append(self._lines.ban(ban, ban.origin_name))
            if len(lines) >= _LINES:
                self._output.write(lines)
                lines.clear()
            self._followed[key] = ban
        self._output.write(lines)
