# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bans of the fleet on this host, within limits that no network can talk the agent out of.

The fleet process asks for them. It reads what others have written, so it may be taken over.
"""

from __future__ import annotations

import collections
import re
import time
import typing as t

from packetwatch_core._bans.bans import Ban, Bans, Source
from packetwatch_core._bans.facts import FLEET_EVIDENCE, evidence_of
from packetwatch_core._bans.fleet import FleetBans, Trial
from packetwatch_core._base.errors import InvalidInput, TooLarge
from packetwatch_core._base.number import MAX_TIME, is_number
from packetwatch_core._kernel import abi
from packetwatch_core._network.fleet import MONITOR

from .control import wire
from .control.banning import STEP
from .control.follow import Follow
from .control.requests import Command, Items
from .control.rights import FLEET
from .metrics import COUNTER, GAUGE, Rows, Values, by_label
from .part import Part
from .sightings import name_of, seconds_left
from .vetoes import Vetoes

if t.TYPE_CHECKING:
    from .keeper import Keeper
    from .loop import Loop
    from .output import Output
    from .settings import Settings
    from .sightings import Sightings

# Rows of a request, and of all requests: a second, and at once.
MAX_ROWS, RATE, BURST = 500, 2000, 10_000
REFUSALS = ("invalid", "protected", "local", "veto", "quota", "rate")
# Rows that are done in about a millisecond.
_EACH = 32
_RULE = re.compile(r"[A-Za-z0-9._/-]{1,130}")
_SAME = 1_000_000_000
_SECOND = 1_000_000_000
_SAVE_PERIOD = 5.0
# Sources that a line of monitor mode names.
_MAX_NAMED = 20


class Row(t.NamedTuple):
    """A ban that the fleet process asks for."""

    source: Source
    seconds: float
    rule: str
    flags: int


class Fleet(Part):
    """Answers the commands of the fleet process."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_agent_fleet_rows_total": (
            COUNTER,
            "Bans and lifts that the fleet process has asked for, by result.",
        ),
        "packetwatch_agent_fleet_vetoes": (
            GAUGE,
            "Fleet bans that an operator has lifted on this host.",
        ),
    }

    def __init__(
        self, bans: Bans, keeper: Keeper, sightings: Sightings, settings: Settings, output: Output
    ) -> None:
        self._bans = bans
        self._trial = Trial(bans) if settings.fleet == MONITOR else None
        self._table = FleetBans(bans) if self._trial is None else self._trial
        self._keeper = keeper
        self._sightings = sightings
        self._settings = settings
        self._output = output
        self._vetoes = Vetoes(settings.state_dir, settings.fleet_longest, output)
        self._due = 0.0
        self.rows = dict.fromkeys(("banned", "kept", "lifted", *REFUSALS), 0)

    def start(self, loop: Loop) -> None:
        # The first request may come before the first round.
        self._keeper.count_fleet(sum(key is not None for key in FleetBans(self._bans).walk()))
        loop.after(_SAVE_PERIOD, self._save)

    def stop(self) -> None:
        self._vetoes.save()

    def values(self) -> Values:
        return {
            "packetwatch_agent_fleet_rows_total": by_label("result", self.rows),
            "packetwatch_agent_fleet_vetoes": [({}, len(self._vetoes))],
        }

    def commands(self) -> t.Mapping[str, Command]:
        return {
            "fleet_watch": Command(FLEET, self._watch),
            "fleet_apply": Command(FLEET, self._apply),
            "fleet_bans": Command(FLEET, self._list),
        }

    # What operators and the host itself do

    def banned(self, address: str) -> None:
        """End the veto on a source: an operator has banned it."""
        self._vetoes.end(self._bans.source_of(address))

    def unbanned(self, address: str, lifted: t.Sequence[Ban]) -> None:
        """Keep lifted what an operator has lifted, and report bans of this host that have ended."""
        found = [ban for ban in lifted if ban.origin == abi.ORIGIN_FLEET]
        if self._trial is not None:
            ban = self._trial.find(self._bans.source_of(address))
            if ban and ban.origin == abi.ORIGIN_FLEET and self._trial.remove(ban):
                found.append(ban)
        for ban in found:
            self._vetoes.add(ban.source, seconds_left(ban.expires) or 0)
        if self._trial is None:
            self._keeper.count_fleet(-len(found))
        self._sightings.end(lifted)

    def _save(self) -> float:
        self._vetoes.save()
        return _SAVE_PERIOD

    # Commands

    def _watch(self, dummy: wire.Request) -> Follow:
        return Follow(self._sightings, lambda line: True)

    def _list(self, request: wire.Request) -> Items:
        of = wire.text_of(request, "of", "fleet")
        if of not in ("fleet", "host"):
            raise InvalidInput(f"of is {of!r:.80}: send fleet or host")
        return self._listed(self._own() if of == "host" else self._of_fleet())

    def _listed(self, bans: t.Iterator[Ban | None]) -> Items:
        now = time.monotonic_ns()
        for number, ban in enumerate(bans):
            if ban and not ban.has_expired(now):
                item = [name_of(ban.source), seconds_left(ban.expires), evidence_of(ban)]
                yield wire.item(item)
            elif not number % STEP:
                yield ""
        yield wire.done(
            {
                "action": self._settings.fleet,
                "most": self._settings.fleet_most,
                "longest": self._settings.fleet_longest,
                "vetoes": len(self._vetoes),
            }
        )

    def _of_fleet(self) -> t.Iterator[Ban | None]:
        """The fleet's bans. Only keys are in memory meanwhile."""
        keys = bytearray()
        for key in self._table.walk():
            keys += key or b""
            if not key:
                yield None
        size = abi.SOURCE.size
        for at in range(0, len(keys), size):
            yield self._table.get(bytes(keys[at : at + size]))

    def _own(self) -> t.Iterator[Ban | None]:
        """The scanners that this host has banned."""
        keys = []
        for table in ("bans", "scan_bans"):
            for key, dummy, dummy, origin in self._bans.times(table):
                if origin == abi.ORIGIN_SCAN:
                    keys.append((table, key))
                yield None
        for table, key in keys:
            yield self._bans.read(key, table)

    def _apply(self, request: wire.Request) -> Items:
        bans, lifts = (_rows_of(request, name) for name in ("ban", "lift"))
        if len(bans) + len(lifts) > MAX_ROWS:
            raise InvalidInput(
                f"{len(bans)} bans and {len(lifts)} lifts at once: send at most {MAX_ROWS}"
            )
        return self._applied(bans, lifts)

    def _applied(self, bans: list[t.Any], lifts: list[t.Any]) -> Items:
        """Lift and ban some rows in each step. The agent may have other things to do between them."""
        rows = [*((self._lift, row) for row in lifts), *((self._ban, row) for row in bans)]
        allowed = self._allowed(len(rows))
        fates: collections.Counter[str] = collections.Counter(rate=len(rows) - allowed)
        shortened = 0
        made: list[str] = []
        for number, (act, row) in enumerate(rows[:allowed], 1):
            fate, source, is_short = act(row)
            fates[fate] += 1
            shortened += is_short
            if source and self._trial is not None and len(made) < _MAX_NAMED:
                made.append(f"{fate} {name_of(source)}")
            if not number % _EACH:
                yield ""
        for fate in self.rows:
            self.rows[fate] += fates[fate]
        if fates["banned"] or fates["lifted"]:
            self._keeper.read_soon()
        if made:
            self._output.say(
                "info",
                "the fleet's bans are only monitored (PW_FLEET)",
                packetwatch__count=fates["banned"] + fates["lifted"],
                packetwatch__sources=made,
            )
        yield wire.done(
            {
                "banned": fates["banned"],
                "kept": fates["kept"],
                "shortened": shortened,
                "lifted": fates["lifted"],
                "refused": {name: fates[name] for name in REFUSALS},
            }
        )

    def _allowed(self, rows: int) -> int:
        """How many of so many rows the rate allows now."""
        now = time.monotonic()
        self._due = max(self._due, now)
        allowed = min(rows, int((now + BURST / RATE - self._due) * RATE + 1e-6))
        self._due += allowed / RATE
        return allowed

    def _ban(self, given: t.Any) -> tuple[str, Source | None, bool]:
        """What becomes of a row; its source if something has changed; whether the ban is shortened."""
        row = self._read(given)
        if row is None:
            return "invalid", None, False
        if self._bans.protection_of(row.source):
            return "protected", None, False
        now = time.monotonic_ns()
        present = self._table.find(row.source)
        former = None if present is None or present.has_expired(now) else present
        if former and former.origin != abi.ORIGIN_FLEET:
            return "local", None, False
        if self._vetoes.holds(row.source, row.seconds):
            return "veto", None, False
        seconds = min(row.seconds, self._settings.fleet_longest)
        is_short = seconds < row.seconds
        expires = now + round(seconds * _SECOND)
        is_more = present is None or present.origin != abi.ORIGIN_FLEET
        if is_more and self._is_full():
            return "quota", None, False
        if former and former.flags == row.flags and abs(former.expires - expires) < _SAME:
            return "kept", None, is_short
        new = Ban("bans", row.source, now, expires, 0, 0, 0, 0, abi.ORIGIN_FLEET, row.flags)
        if former:
            new = former._replace(expires=expires, flags=row.flags)
        try:
            self._table.put(new)
        except TooLarge:
            return "quota", None, False
        if self._trial is None:
            if is_more:
                self._keeper.count_fleet(1)
            if former is None:
                self._keeper.note_rule(row.source.key, row.rule)
        return "banned", row.source, is_short

    def _lift(self, given: t.Any) -> tuple[str, Source | None, bool]:
        source = self._source(given)
        if source is None:
            return "invalid", None, False
        self._vetoes.end(source)
        ban = self._table.find(source)
        if ban is None or ban.origin != abi.ORIGIN_FLEET or not self._table.remove(ban):
            return "ignored", None, False
        if self._trial is None:
            self._keeper.count_fleet(-1)
        return "lifted", source, False

    def _is_full(self) -> bool:
        """Whether there are as many fleet bans as there may be, or only the room that is kept for others."""
        count = self._keeper.fleet if self._trial is None else self._trial.count()
        room: int = self._bans.capacity * 3 // 4 - self._keeper.own
        return count >= min(self._settings.fleet_most, room)

    def _read(self, row: t.Any) -> Row | None:
        """The ban that a row asks for; None if it is not one."""
        if not isinstance(row, list) or len(row) < 3:
            return None
        address, seconds, rule, evidence = (*row, "syn")[:4] if len(row) == 3 else row[:4]
        if not is_number(seconds, MAX_TIME) or not seconds:
            return None
        if not (isinstance(rule, str) and _RULE.fullmatch(rule)):
            return None
        if not isinstance(evidence, str) or evidence not in FLEET_EVIDENCE:
            return None
        source = self._source(address)
        return Row(source, float(seconds), rule, FLEET_EVIDENCE[evidence]) if source else None

    def _source(self, address: t.Any) -> Source | None:
        try:
            return self._bans.source_of(address) if isinstance(address, str) else None
        except InvalidInput:
            return None


def _rows_of(request: wire.Request, name: str) -> list[t.Any]:
    """An argument that is a list."""
    value = request.get(name, [])
    if not isinstance(value, list):
        raise InvalidInput(f"{name} is {value!r:.80}: send a list")
    return value
