# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host follows of the store: bans and lifts into the fold, lists into a file for root.

Bans in the kernel stay while the store is away: nothing is lifted because something could not be read.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import typing as t

from packetwatch_agent.loop import Loop
from packetwatch_agent.metrics import COUNTER, GAUGE, Rows, Values, by_label
from packetwatch_agent.output import Output, Trouble
from packetwatch_agent.part import Part
from packetwatch_core._base.files import replace_file
from packetwatch_core._base.number import MAX_TIME, is_number
from packetwatch_core._node.keys import BANS, FOLLOWED, LIFTS, LISTS, RULES

from ..driver import Driver
from ..explanation import Explanation
from ..fold import Ban, Board
from ..keys import name_of
from ..pages import Refused, Row, read_object
from ..store.interface import Change, Gone, Lost, Put, Relisted, Snapshot, Store
from .brake import HELD, Place, why_not_lift

# Lists are read again by root, who has the last word about them.
MAX_LIST, MAX_LISTS = 1 << 20, 16
# Seconds between two looks for rows that have ended, and between two notes of the store's place.
_EXPIRY, _NOTE = 5.0, 60.0
# Above this, clocks are wrong.
MAX_SKEW = 5.0
_MAX_INTERVAL = 60.0
_FOLDS = (BANS, LIFTS)


class Picture(Part):
    """Follows the store. touch: gets the sources whose ban may have changed; relisted: called after a listing."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_fleet_connected": (GAUGE, "Whether the store is followed."),
        "packetwatch_fleet_endpoint_info": (GAUGE, "The server that is followed, always 1."),
        "packetwatch_fleet_revision": (GAUGE, "The newest revision of the store that was seen."),
        "packetwatch_fleet_answer_age_seconds": (
            GAUGE,
            "Time since the store was last heard of; without a sample as long as it never was.",
        ),
        "packetwatch_fleet_lists_total": (COUNTER, "How often the whole state was read."),
        "packetwatch_fleet_bans_declared": (GAUGE, "Bans that the store declares now."),
        "packetwatch_fleet_bans_held": (
            GAUGE,
            "Bans that the store does not have any more, and that stay until their ends.",
        ),
        "packetwatch_fleet_values_refused_total": (
            COUNTER,
            "Values and rows of the store that do not count, by reason.",
        ),
        "packetwatch_fleet_clock_offset_seconds": (
            GAUGE,
            "How far the host's clock is ahead of the store's.",
        ),
        "packetwatch_fleet_enforcer_age_seconds": (
            GAUGE,
            "Time since an enforcer has last written what it counts.",
        ),
    }

    def __init__(self, store: Store, board: Board, state_dir: str, output: Output) -> None:
        self.touch: t.Callable[[t.Iterable[str]], None] = lambda sources: None
        self.relisted: t.Callable[[], None] = lambda: None
        self.place = Place()
        self.is_listed = False
        """Whether everything was read at least once."""
        self.is_connected = False
        self.problem = ""
        self._store = store
        self._board = board
        self._output = output
        self._folder = state_dir
        self._follower = store.follow(*FOLLOWED)
        self._driver: Driver | None = None
        self._noted = self._read_note()
        self._lists: dict[str, t.Any] = {}
        self._rules: dict[str, dict[str, t.Any]] = {}
        self._must_write = False
        """Whether lists have changed."""
        self._listings = 0
        self._revisions: dict[str, int] = {}
        """The revision of each value that is known."""
        self._trouble = Trouble(output)
        self._skew = Trouble(output)

    def start(self, loop: Loop) -> None:
        self._driver = Driver(loop, self._follower, self._step)
        loop.after(_EXPIRY, self._expire)
        loop.after(_NOTE, self._note)

    def stop(self) -> None:
        if self._driver:
            self._driver.close()
        self._note()

    # What other parts ask

    def now(self) -> float | None:
        """The store's time; None: not known yet."""
        offset = self._store.offset()
        return None if offset is None else time.monotonic() + offset

    def skew(self) -> float | None:
        """How far the host's clock is ahead of the store's."""
        now = self.now()
        return None if now is None else time.time() - now

    def ban(self, source: str) -> Ban | None:
        now = self.now()
        return None if now is None else self._board.ban(source, now)

    def bans(self) -> t.Iterator[tuple[str, Ban]]:
        now = self.now()
        return iter(()) if now is None else self._board.bans(now)

    def explanation(self, source: str, enforcer: str, rule: str) -> Explanation | None:
        """What an enforcer says about its decision; None: nothing, or it is not among its last ones."""
        recent = self._rules.get(enforcer, {}).get("recent")
        for row in recent if isinstance(recent, list) else ():
            if isinstance(row, dict) and (row.get("source"), row.get("rule")) == (source, rule):
                return Explanation.of(row)
        return None

    def interval(self) -> float:
        """Seconds between two reports of what was seen, as the enforcers want it."""
        wanted: list[t.Any] = [rule.get("batch") for rule in self._rules.values()]
        return max([1.0, *(float(one) for one in wanted if is_number(one, _MAX_INTERVAL))])

    def distrust(self, extra: t.Mapping[str, Row], bans: int) -> None:
        """Keep bans in the kernel that the store does not have, if that is not to be believed. bans: in the kernel."""
        if why := why_not_lift(self._noted, self.place, len(extra), bans):
            self._hold(extra, why)
        # From here on, the kernel has what the store has.
        self._noted = self.place

    def summary(self) -> dict[str, t.Any]:
        """For packetwatchctl."""
        skew = self.skew()
        return {
            "connected": self.is_connected,
            "endpoint": self._follower.endpoint,
            "cluster": self.place.cluster,
            "revision": self.place.revision,
            "age": round(self._age(), 3) if self._follower.heard else None,
            "problem": self.problem,
            "declared": sum(1 for dummy in self.bans()),
            "held": self._held(),
            "clock": None if skew is None else round(skew, 3),
            "values_refused": dict(self._board.refused),
            "rules": {name: self._rules[name].get("t") for name in sorted(self._rules)},
        }

    def values(self) -> Values:
        found: Values = {
            "packetwatch_fleet_connected": [({}, int(self.is_connected))],
            "packetwatch_fleet_revision": [({}, self.place.revision)],
            "packetwatch_fleet_lists_total": [({}, self._listings)],
            "packetwatch_fleet_bans_declared": [({}, sum(1 for dummy in self.bans()))],
            "packetwatch_fleet_bans_held": [({}, self._held())],
            "packetwatch_fleet_values_refused_total": by_label("reason", self._board.refused),
        }
        if self._follower.endpoint:
            endpoint = {"endpoint": self._follower.endpoint}
            found["packetwatch_fleet_endpoint_info"] = [(endpoint, 1)]
        if self._follower.heard:
            found["packetwatch_fleet_answer_age_seconds"] = [({}, self._age())]
        if (skew := self.skew()) is not None:
            found["packetwatch_fleet_clock_offset_seconds"] = [({}, skew)]
        if (now := self.now()) is not None:
            ages = {name: now - moment for name, moment in self._rule_times()}
            found["packetwatch_fleet_enforcer_age_seconds"] = by_label("enforcer", ages)
        return found

    # Changes

    def _step(self) -> None:
        touched: set[str] = set()
        for change in self._follower.step():
            touched |= self._take(change)
        # Also what changes elsewhere tells how old a store is.
        revision = max(self.place.revision, self._follower.revision)
        self.place = self.place._replace(revision=revision)
        if self._must_write:
            self._write_lists()
        if touched:
            self.touch(touched)

    def _take(self, change: Change) -> set[str]:
        if isinstance(change, Put):
            self._revisions[change.key] = change.revision
            return self._put(change.key, change.value)
        if isinstance(change, Gone):
            self._revisions.pop(change.key, None)
            return self._drop(change.key)
        if isinstance(change, Relisted):
            return self._relist(change.snapshot)
        return self._lose(change)

    def _put(self, key: str, value: bytes) -> set[str]:
        if key.startswith(LISTS):
            self._take_list(key, value)
        elif key.startswith(RULES):
            self._take_rule(key, value)
        else:
            return self._board.put(key, value)
        return set()

    def _drop(self, key: str) -> set[str]:
        if key.startswith(LISTS):
            self._lists.pop(key.removeprefix(LISTS), None)
            self._write_soon()
        self._rules.pop(key.removeprefix(RULES), None)
        return self._board.drop(key)

    def _lose(self, lost: Lost) -> set[str]:
        self.is_connected = False
        self.problem = lost.reason
        self._trouble.log(f"the store is not followed: {lost.reason}; the bans that are known stay")
        return set()

    def _relist(self, snapshot: Snapshot) -> set[str]:
        """Take a listing as the difference to what was known."""
        before, place = self.place, Place(snapshot.cluster, snapshot.revision)
        # A value with the revision that is known is known, unless the store began anew.
        is_same = before.cluster == place.cluster and before.revision <= place.revision
        known = self._revisions if is_same else {}
        found = {key: revision for key, (revision, dummy) in snapshot.items.items()}
        changed = {key for key, revision in found.items() if known.get(key) != revision}
        banned = dict(self._bans_of({*self._revisions} - {*found} | changed, snapshot.now))
        touched: set[str] = set()
        for key in self._revisions.keys() - found.keys():
            touched |= self._drop(key)
        for key in changed:
            # What was taken is forgotten: everything twice would be megabytes.
            touched |= self._put(key, snapshot.items.pop(key)[1])
        self._revisions = found
        # Also a list that was deleted while nobody followed must go.
        self._write_soon()
        missing = {
            source: ban
            for source, ban in banned.items()
            # A lift in the new listing is a decision, also if it came while nobody followed.
            if self._board.ban(source, snapshot.now) is None and not self._board.lift(source)
        }
        self.place = place
        if why := why_not_lift(before, place, len(missing), len(banned)):
            self._hold({source: _row(ban) for source, ban in missing.items()}, why)
        if self._follower.endpoint and not self.is_connected:
            self._output.say(
                "info",
                f"following the store at {self._follower.endpoint}, revision {place.revision}",
            )
        self.is_connected, self.problem = True, ""
        self._listings += 1
        self._trouble.log("")
        self.is_listed = True
        self._warn_of_skew()
        self.relisted()
        return touched

    def _bans_of(self, keys: t.Iterable[str], now: float) -> t.Iterator[tuple[str, Ban]]:
        for key in keys:
            for source in self._board.sources(key):
                if ban := self._board.ban(source, now):
                    yield source, ban

    def _hold(self, rows: t.Mapping[str, Row], why: str) -> None:
        self._board.hold(HELD, rows.items())
        self._output.say(
            "error",
            f"{len(rows)} bans are not lifted: {why}; they stay until their ends; lift single ones through the fleet, "
            "or all with packetwatchctl fleet --release",
            event__action="fleet_brake",
        )

    def release(self) -> int:
        """Lift what the brake has kept; return how many bans that were."""
        count = self._held()
        touched = self._board.drop(HELD)
        self.touch(touched)
        return count

    def _held(self) -> int:
        return self._board.size(HELD)

    # Lists and rules

    def _take_list(self, key: str, value: bytes) -> None:
        name = name_of(key, LISTS)
        self._lists.pop(name or "", None)
        self._write_soon()
        try:
            if name is None:
                raise Refused("key")
            if len(self._lists) >= MAX_LISTS:
                raise Refused("full")
            found = read_object(value, MAX_LIST)
            self._lists[name] = {kind: found.get(kind, []) for kind in ("allow", "deny")}
        except Refused as refused:
            self._board.refused[refused.reason] += 1

    def _write_soon(self) -> None:
        self._must_write = True

    def _write_lists(self) -> None:
        """Leave the lists for root, who is started when the file changes."""
        self._must_write = False
        path = os.path.join(self._folder, "lists.json")
        text = json.dumps({"v": 1, "lists": self._lists}, sort_keys=True) + "\n"
        try:
            with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
                if file.read() == text:
                    return
            replace_file(path, text)
        except (OSError, UnicodeDecodeError) as error:
            self._output.say("warn", f"the lists of the fleet cannot be written: {error}")

    def _take_rule(self, key: str, value: bytes) -> None:
        name = name_of(key, RULES)
        try:
            if name is None:
                raise Refused("key")
            self._rules[name] = read_object(value, MAX_LIST >> 4)
        except Refused as refused:
            self._board.refused[refused.reason] += 1

    def _rule_times(self) -> t.Iterator[tuple[str, float]]:
        """When each enforcer has last written, in the store's time."""
        for name, rule in self._rules.items():
            moment: t.Any = rule.get("t")
            if is_number(moment, MAX_TIME):
                yield name, float(moment)

    # Time

    def _age(self) -> float:
        return time.monotonic() - self._follower.heard

    def _expire(self) -> float:
        now = self.now()
        if now is not None:
            self.touch(self._board.expire(now))
        return _EXPIRY

    def _warn_of_skew(self) -> None:
        skew = self.skew() or 0.0
        self._skew.log(
            f"the host's clock is {skew:+.0f} s from that of the fleet: synchronise it (bans are not affected)"
            if abs(skew) > MAX_SKEW
            else ""
        )

    def _note(self) -> float:
        """Keep the place over a restart, so that a store that was wiped meanwhile is noticed."""
        if self.is_listed:
            text = json.dumps({"cluster": self.place.cluster, "revision": self.place.revision})
            with contextlib.suppress(OSError):
                replace_file(os.path.join(self._folder, "place.json"), text + "\n")
        return _NOTE

    def _read_note(self) -> Place:
        try:
            with open(os.path.join(self._folder, "place.json"), encoding="utf-8") as file:
                found = json.loads(file.read(1000))
            return Place(str(found["cluster"]), int(found["revision"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return Place()


def _row(ban: Ban) -> Row:
    return Row(ban.until, ban.made, ban.rule, ban.evidence, ban.seen)
