# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps account of bans: logs those made by hand or by the fleet, ends expired ones, saves all.

The tables may have tens of thousands of bans, so everything that goes through them works in steps.
"""

from __future__ import annotations

import math
import os
import time
import typing as t

from packetwatch_core._bans import saved
from packetwatch_core._bans.bans import MAPS, Ban, Bans, Source, is_source, sources_of
from packetwatch_core._base.errors import PacketwatchError, remedy_of
from packetwatch_core._base.steps import finish
from packetwatch_core._declared.kinds import nanoseconds
from packetwatch_core._kernel import abi

from .confirmed import Confirmed
from .events import Event
from .lines import Lines
from .metrics import COUNTER, GAUGE, Rows, Values, by_label
from .offenders import Offenders
from .output import Output, Trouble
from .part import Part
from .witness import Witness

if t.TYPE_CHECKING:
    from packetwatch_core._health.problems import Facts

    from .loop import Loop, Steps

_SECOND = 1_000_000_000
_STEP = 1.0
_MAX_PAUSE = 5.0
_SAVE_PERIOD = 5.0
# Of one core, for reading all bans, and for writing them to disk.
_SHARE = 0.05
# In a flood there are many more bans. So many are followed one by one, are ended in one round, and
# get a line at their end.
_MAX_FOLLOWED = 4096
_MAX_ENDED = 8192
_MAX_LINES = 1000
# Entries that are read, and bans that are read one by one, in about a millisecond.
_READ, _EACH = 512, 64
_MAX_KEYS = 5
FILE = "bans.jsonl"


class Keeper(Part):
    """Reads all bans when one may have expired, and every five seconds."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_bans_active": (GAUGE, "Bans that have not expired, by origin."),
        "packetwatch_bans_expired_total": (COUNTER, "Bans that ended at their time."),
        "packetwatch_bans_lifted_total": (COUNTER, "Bans that ended before their time."),
        "packetwatch_bans_damaged_total": (
            COUNTER,
            "Records that were not bans: lines of the saved bans, set aside, and entries of tables, removed.",
        ),
        "packetwatch_agent_last_save_timestamp_seconds": (
            GAUGE,
            "When the bans were last written to disk, 0 if not since the agent's start.",
        ),
        "packetwatch_agent_save_success": (
            GAUGE,
            "0 if the agent could not write the bans to disk at its last attempt, else 1.",
        ),
    }

    def __init__(
        self, bans: Bans, folder: str, confirmed: Confirmed, lines: Lines, output: Output
    ) -> None:
        self._bans = bans
        self._path = os.path.join(folder, FILE)
        self._lines = lines
        self._output = output
        self._confirmed = confirmed
        self._offenders = Offenders(bans, confirmed)
        self._witness = Witness(output)
        self.on_forget: t.Callable[[Source], None] = lambda dummy: None
        """Called with each source of which nothing may count that it did before."""
        self._followed: dict[bytes, Ban] = {}
        self._seen = time.monotonic_ns()
        self._due = 0.0
        self._earliest = 0.0
        self._save_due = 0.0
        self._fingerprint: tuple[int, ...] = ()
        self._saved_fingerprint: tuple[int, ...] = ()
        self._trouble = Trouble(output)
        self._unended = Trouble(output)
        self.active = dict.fromkeys(abi.ORIGINS.values(), 0)
        self.entries = dict.fromkeys(MAPS, 0)
        self.made = {"manual": 0, "fleet": 0}
        self.expired = 0
        self.lifted = 0
        self.damaged = 0
        self.saved_at = 0.0
        self.unsaved = ""
        """Why the last attempt to save the bans failed."""
        self.fleet = 0
        """Fleet bans in the map ``bans``."""
        self.own = 0
        """Bans of this host in that map, in the last round."""
        self._fleet_changes = 0
        self._rules: dict[bytes, str] = {}
        self.on_end: t.Callable[[t.Sequence[Ban]], None] = lambda dummy: None
        """Gets bans that the keeper has ended, and those whose sources became protected."""

    def start(self, loop: Loop) -> None:
        self.restore()
        loop.after(0, self.tick)

    def stop(self) -> None:
        self.save()

    def values(self) -> Values:
        return {
            "packetwatch_bans_total": by_label("origin", self.made),
            "packetwatch_bans_active": by_label("origin", self.active),
            "packetwatch_bans_expired_total": [({}, self.expired)],
            "packetwatch_bans_lifted_total": [({}, self.lifted)],
            "packetwatch_bans_damaged_total": [({}, self.damaged)],
            "packetwatch_agent_last_save_timestamp_seconds": [({}, self.saved_at)],
            "packetwatch_agent_save_success": [({}, int(not self.unsaved))],
        }

    def facts(self, known: Facts) -> Facts:
        return known._replace(unsaved=self.unsaved, damaged_bans=self.evidence())

    def evidence(self) -> list[str]:
        """What was set aside of the saved bans, until an operator has removed it."""
        path = saved.evidence_of(self._path)
        text = f"saved bans were damaged and are set aside: read {path}, then remove it"
        return [text] if os.path.lexists(path) else []

    def restore(self) -> None:
        """Write the bans that were saved before a reboot back into the maps, without log lines."""
        try:
            result = saved.restore(self._bans, self._path)
        except PacketwatchError as error:
            self.damaged += 1
            self._output.say("error", f"bans of the last boot are not restored: {error}")
            return
        if result and result.damaged:
            self.damaged += result.damaged
            self._output.say("error", f"{result.damaged} records: {'; '.join(self.evidence())}")
        if result:
            counts = {f"packetwatch__{name}": count for name, count in result._asdict().items()}
            self._output.say("info", "bans of the last boot are restored", **counts)
        self._seen = time.monotonic_ns()

    def note(self, event: Event, interface: str) -> Event:
        """Note a scan; return the event with the present end of its ban, and with its evidence."""
        if not event.banned:
            return event
        event = self._offenders.prove(self._witness.examine(event))
        event = self._offenders.judge(event, interface)
        self._due = min(self._due, time.monotonic() + _STEP)
        return event

    def impose(self, scan: Event, interface: str) -> Event | None:
        """Ban the source of a scan that the agent has found; `note` may prolong the ban.

        Returns the scan with what became of it; None if its source is already banned, or if the policy is
        off. Raises `TooLarge` if there is no room for the ban.
        """
        policy = self._confirmed.policy(interface)
        source = scan.source
        if policy.action == "off" or self._bans.is_banned(source):
            return None
        protected = self._bans.protection_of(source) or self._bans.protection_of(
            Source(128, scan.saddr)
        )
        if protected:
            return scan._replace(flags=scan.flags | abi.EVENT_PROTECTED)
        if policy.action == "monitor":
            return scan._replace(flags=scan.flags | abi.EVENT_MONITOR)
        self._offenders.take_room()
        expires = scan.time + nanoseconds(policy.ban_time)
        kind = abi.kind_flags(scan.kind)
        self._bans.put(
            Ban(
                "bans",
                source,
                since=scan.time,
                expires=expires,
                dropped=0,
                slot=0,
                ifindex=scan.ifindex,
                ports=scan.distinct,
                origin=abi.ORIGIN_SCAN,
                flags=kind,
            )
        )
        return scan._replace(expires=expires)

    def pardon(self, address: str) -> None:
        """Note that a command has lifted all bans of an address."""
        for source in sources_of(address):
            self.on_forget(source)
        self.read_soon()

    def read_soon(self) -> None:
        """Read the bans at the next tick: a command has changed them."""
        self._due = 0.0

    def count_fleet(self, change: int) -> None:
        """Count fleet bans that were made, or ended if negative."""
        self.fleet += change
        self._fleet_changes += 1

    def note_rule(self, key: bytes, rule: str) -> None:
        """Note the rule of a new fleet ban, for its line."""
        if len(self._rules) < _MAX_FOLLOWED:
            self._rules[key] = rule

    def lift(self, ban: Ban) -> None:
        """Log a ban that was lifted because its source became protected."""
        self.lifted += 1
        self._followed.pop(ban.source.key, None)
        self.on_forget(ban.source)
        self._ended([ban])
        self._output.write([self._lines.lift(ban, "protected")])

    def tick(self) -> Steps:
        """Read and save the bans if that is due; return seconds until the next call."""
        started = time.monotonic()
        if started >= max(self._due, self._earliest):
            # What changes while they are read brings the next round forward.
            self._due = math.inf
            first_end = started * _SECOND
            try:
                first_end = yield from self._round()
                self._unended.log("")
            except (PacketwatchError, OSError) as error:
                self._unended.log(f"bans are not followed: {error}")
            now = time.monotonic()
            self._earliest = now + (now - started) / _SHARE
            self._due = min(self._due, now + _MAX_PAUSE, max(first_end / _SECOND, now + _STEP))
        if self._fingerprint != self._saved_fingerprint and started >= self._save_due:
            yield from self._saving()
        return _STEP

    def save(self) -> None:
        """Do all of `_saving` at once."""
        finish(self._saving())

    def _saving(self) -> Steps:
        """Write the bans to disk; log an error once, and try again at a later tick."""
        started = time.monotonic()
        fingerprint = self._fingerprint
        try:
            yield from saved.saving(self._bans, self._path)
        except OSError as error:
            self.unsaved = f"{self._path}: {error.strerror or error}{remedy_of(error)}"
            self._trouble.log(f"bans are not saved: {self.unsaved}")
        else:
            self._saved_fingerprint = fingerprint
            self.saved_at = time.time()
            self.unsaved = ""
            self._trouble.log("")
        now = time.monotonic()
        self._save_due = now + max(_SAVE_PERIOD, (now - started) / _SHARE)
        return None

    def _round(self) -> t.Generator[None, None, int]:
        """Read all bans; return when the next one expires (CLOCK_MONOTONIC ns), 0 if one has."""
        started = time.monotonic_ns()
        changes = self._fleet_changes
        of_fleet = 0
        rules, self._rules = self._rules, {}
        active = dict.fromkeys(abi.ORIGINS.values(), 0)
        entries = dict.fromkeys(MAPS, 0)
        expired: list[tuple[str, bytes]] = []
        damaged: list[tuple[str, bytes]] = []
        by_others: dict[str, set[bytes]] = {"manual": set(), "fleet": set()}
        count = total = first = 0
        first_end = 1 << 63
        for table in MAPS:
            for key, since, expires, origin in self._bans.times(table):
                entries[table] += 1
                if not entries[table] % _READ:
                    yield
                of_fleet += table == "bans" and origin == abi.ORIGIN_FLEET
                if not is_source(key):
                    damaged.append((table, key))
                    continue
                if 0 < expires <= started:
                    first_end = 0
                    if len(expired) < _MAX_ENDED:
                        expired.append((table, key))
                    continue
                name = abi.ORIGINS.get(origin, "scan")
                active[name] += 1
                first_end = min(first_end, expires or first_end)
                first += table == "bans"
                if table != "overflow":
                    count, total = count + 1, total + since + expires
                if name != "scan" and len(by_others[name]) < _MAX_FOLLOWED:
                    by_others[name].add(key)
        yield from self._discard(damaged)
        yield from self._end(expired)
        yield from self._follow(by_others["manual"] | by_others["fleet"], started, rules)
        self._seen = started
        self.active, self.entries = active, entries
        self.own = entries["bans"] - of_fleet
        # Root may have lifted some. What changes during a round is counted by itself.
        if changes == self._fleet_changes:
            self.fleet = of_fleet
        self._fingerprint = (count, total)
        self._offenders.room = self._bans.capacity * 3 // 4 - first
        return first_end

    def _discard(self, damaged: list[tuple[str, bytes]]) -> t.Iterator[None]:
        """Delete entries that are not bans, and log some of them."""
        for number, (table, key) in enumerate(damaged):
            self._bans.discard(table, key)
            if not number % _EACH:
                yield
        if damaged:
            self.damaged += len(damaged)
            self._output.say(
                "error",
                "entries of the tables of bans were not bans, and are removed",
                packetwatch__count=len(damaged),
                packetwatch__entries=[f"{table} {key.hex()}" for table, key in damaged[:_MAX_KEYS]],
            )

    def _end(self, expired: list[tuple[str, bytes]]) -> t.Iterator[None]:
        """Delete expired bans and log them; short ones are only counted."""
        now = time.monotonic_ns()
        lines: list[str] = []
        ended: list[Ban] = []
        others = 0
        for number, (table, key) in enumerate(expired):
            if not number % _EACH:
                yield
            self._followed.pop(key, None)
            ban = self._bans.read(key, table)
            if ban is None or not ban.has_expired(now) or not self._bans.remove(ban):
                continue
            self.expired += 1
            ended.append(ban)
            if table == "overflow" or len(lines) >= _MAX_LINES:
                others += 1
            else:
                lines.append(self._lines.expiry(ban))
        self._output.write(lines)
        self._ended(ended)
        if others:
            self._output.say(
                "info", "more bans have expired without a line each", packetwatch__count=others
            )

    def _ended(self, bans: t.Sequence[Ban]) -> None:
        of_fleet = sum(ban.origin == abi.ORIGIN_FLEET for ban in bans)
        if of_fleet:
            self.count_fleet(-of_fleet)
        self.on_end(bans)

    def _follow(
        self, by_others: set[bytes], started: int, rules: t.Mapping[bytes, str]
    ) -> t.Iterator[None]:
        """Log bans by hand and by the fleet that were made or lifted since the last round.

        started: when this round began; later bans are left to the next one. rules: of new fleet bans.
        """
        lines: list[str] = []
        for key in self._followed.keys() - by_others:
            former = self._followed.pop(key)
            # If it is still there, there are more than `_MAX_FOLLOWED`.
            if self._bans.read(key, "bans") is None:
                self.lifted += 1
                lines.append(self._lines.lift(former, "removed"))
        for number, key in enumerate(by_others):
            if not number % _EACH:
                self._output.write(lines)
                lines = []
                yield
            ban = self._bans.read(key, "bans")
            if ban is None:
                continue
            if self._seen < ban.since <= started:
                self.made[ban.origin_name] = self.made.get(ban.origin_name, 0) + 1
                if ban.origin == abi.ORIGIN_MANUAL:
                    self.on_forget(ban.source)
                lines.append(self._lines.ban(ban, ban.origin_name, rules.get(key, "")))
            self._followed[key] = ban
        self._output.write(lines)
