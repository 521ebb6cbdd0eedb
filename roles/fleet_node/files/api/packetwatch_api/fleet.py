# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the store says, folded: bans, lists, hosts, enforcers, events. Read only."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from packetwatch_core._base.address import Prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.number import MAX_TIME
from packetwatch_core._node.keys import BANS, EVENTS, HOSTS, LIFTS, LISTS, RULES
from packetwatch_core._node.never import Never
from packetwatch_fleet.fold import Ban, Board
from packetwatch_fleet.keys import enforcer_of, name_of
from packetwatch_fleet.pages import Row
from packetwatch_fleet.sources import Sources

from . import events, values
from .explain import Policy, verdict
from .mirror import Mirror
from .store import Store
from .values import Json

_STATUS, _OWN_BANS = "/status", "/bans"


class Entry(t.NamedTuple):
    """An entry of a list of the fleet. expires: Unix seconds."""

    list: str
    kind: str
    prefix: Prefix
    address: str
    comment: str
    expires: float | None

    def counts(self, now: float) -> bool:
        return self.expires is None or self.expires > now

    def matches(self, other: Prefix) -> bool:
        """Whether it has all addresses of a prefix."""
        mine = self.prefix
        return mine.family == other.family and mine.value <= other.value and other.last <= mine.last

    def shown(self) -> Json:
        return {"address": self.address, "comment": self.comment, "expires": self.expires}


class OwnBan(t.NamedTuple):
    """A ban that a host has made itself. ports, evidence: untrusted, of any type."""

    host: str
    source: str
    until: float
    made: float
    ports: t.Any
    evidence: t.Any


class Fleet:
    """The state of the fleet, as of each use. One thread at a time uses it."""

    def __init__(self, store: Store, sources: Sources, never: Never) -> None:
        self.sources = sources
        self._never = never
        self._store = store
        self._lock = threading.Lock()
        self._mirror = Mirror(_is_common)
        self._own = Mirror(lambda key: key.startswith(HOSTS) and key.endswith(_OWN_BANS))
        self._board = Board(sources)
        self._reasons: dict[str, dict[str, str]] = {}
        """Reasons of decisions by page and source."""

    @contextlib.contextmanager
    def view(self, with_own: bool = False) -> t.Iterator[View]:
        """The present state; raises `Away`. with_own: also what hosts have banned themselves."""
        with self._lock:
            self._store.run(self._refresh)
            if with_own:
                self._store.run(self._own.refresh)
            own = self._own.values if with_own else {}
            mirror = self._mirror
            yield View(mirror.revision, mirror.values, own, self._board, self._never, self._reasons)

    def _refresh(self, gateway: t.Any) -> None:
        difference = self._mirror.refresh(gateway)
        for key in difference.gone:
            self._board.drop(key)
            self._never.drop(key)
            self._reasons.pop(key, None)
        for key in difference.changed:
            value = self._mirror.values[key][1]
            self._never.put(key, value)
            if key.startswith((BANS, LIFTS)):
                self._board.put(key, value)
                self._reasons[key] = self._reasons_of(value)

    def _reasons_of(self, value: bytes) -> dict[str, str]:
        """The reasons in a page, which the fold does not have."""
        found = {}
        for row in values.rows(values.object_of(value).get("bans")):
            if isinstance(row, list) and len(row) > 6 and values.text(row[6]):
                with contextlib.suppress(InvalidInput):
                    found[self.sources.of(values.text(row[0]))] = values.text(row[6])
        return found


class View:
    """The state of the fleet at one moment; valid as long as its `Fleet.view` is."""

    def __init__(
        self,
        revision: int,
        found: t.Mapping[str, tuple[int, bytes]],
        own: t.Mapping[str, tuple[int, bytes]],
        board: Board,
        never: Never,
        reasons: t.Mapping[str, t.Mapping[str, str]],
    ) -> None:
        self.revision = revision
        self.now = time.time()
        self._values = found
        self._own = own
        self._board = board
        self._never = never
        self._reasons = reasons

    # Bans

    def bans(self) -> t.Iterator[Json]:
        """All bans in force."""
        for source, ban in self._board.bans(self.now):
            yield self._shown(source, ban)

    def banned(self) -> t.Iterator[tuple[str, float]]:
        """All banned sources, and when the bans were made."""
        return ((source, ban.made) for source, ban in self._board.bans(self.now))

    def ban(self, source: str) -> Json | None:
        """The ban of a source; None if it is not banned."""
        ban = self._board.ban(source, self.now)
        return self._shown(source, ban) if ban else None

    def decisions(self, source: str) -> list[Json]:
        """All decisions on a source, also those that do not count, newest first."""
        lift = self._board.lift(source)
        before = lift.before if lift else -1.0
        rows = sorted(self._board.rows(source), key=lambda row: -row.made)
        return [
            self._row(source, row) | {"counts": row.until > self.now and row.made > before}
            for row in rows
        ]

    def lift(self, source: str) -> Json | None:
        """The latest lift of a source."""
        found = self._board.lift(source)
        return {"before": found.before, "hold": found.hold} if found else None

    def changed(self, source: str) -> int:
        """The revision of the last change of a page that has the source; 0 without one."""
        pages = {row.page for row in self._board.rows(source)}
        if lift := self._board.lift(source):
            pages.add(lift.page)
        return max((self.value(page)[0] for page in pages), default=0)

    def _shown(self, source: str, ban: Ban) -> Json:
        for row in self._board.rows(source):
            if (row.made, row.rule, row.evidence) == (ban.made, ban.rule, ban.evidence):
                return self._row(source, row) | {"until": ban.until}
        return _ban(source, ban, ban.enforcer, "")

    def _row(self, source: str, row: Row) -> Json:
        reason = self._reasons.get(row.page, {}).get(source, "")
        return _ban(source, row, enforcer_of(row.page) or "", reason)

    # Lists

    def value(self, key: str) -> tuple[int, bytes]:
        """Revision and value of a key; 0 and nothing if there is none."""
        return self._values.get(key, (0, b""))

    def lists(self) -> dict[str, list[Entry]]:
        """Entries by list."""
        return {name: list(_entries(name, value)) for name, dummy, value in self._named(LISTS)}

    def entries(self) -> t.Iterator[Entry]:
        """Entries of all lists that have not expired."""
        for found in self.lists().values():
            yield from (entry for entry in found if entry.counts(self.now))

    # Hosts

    def hosts(self) -> t.Iterator[Json]:
        """What each host has reported last."""
        newest = self.newest
        for key, (dummy, value) in self._values.items():
            name = _host_of(key, _STATUS)
            if name:
                yield _host(name, values.object_of(value), self.now, newest)

    @property
    def newest(self) -> int:
        """The revision of the newest decision or list."""
        followed = (BANS, LIFTS, LISTS)
        return max(
            (
                revision
                for key, (revision, dummy) in self._values.items()
                if key.startswith(followed)
            ),
            default=0,
        )

    def never_banned(self, source: str) -> str | None:
        """Why a source must never be banned; None: it may be."""
        return self._never.refused(source)

    def never_denied(self, prefix: Prefix) -> str | None:
        """Why a prefix must never be denied; None: it may be."""
        return self._never.refused_network(prefix)

    def explain(self, source: str, prefix: Prefix) -> tuple[Json, dict[str, Json]]:
        """What the fleet does with an address, and what each host does."""
        entries = [entry for entry in self.entries() if entry.matches(prefix)]
        decisions = self.decisions(source)
        fleet = verdict(entries, decisions, Policy())
        hosts = {}
        for key, (dummy, value) in self._values.items():
            if name := _host_of(key, _STATUS):
                status = values.object_of(value)
                own = self._own_ban(name, source)
                found = verdict(entries, decisions, Policy.of(status), own)
                hosts[name] = found | {"current": _is_current(status, self.newest)}
        return fleet, hosts

    def own_bans(self) -> t.Iterator[OwnBan]:
        """The bans that hosts have made for scans themselves, as far as they report them."""
        for key, (dummy, value) in self._own.items():
            host = _host_of(key, _OWN_BANS)
            for row in values.rows(values.object_of(value).get("bans")) if host else ():
                # There may be a hundred thousand of them, so only what all readers need is checked.
                if isinstance(row, list) and len(row) > 4 and isinstance(row[0], str):
                    ban = OwnBan(t.cast("str", host), *row[:5])
                    if _is_time(ban.until) and _is_time(ban.made) and ban.until > self.now:
                        yield ban

    def _own_ban(self, host: str, source: str) -> float | None:
        """Until when a host has banned a source itself."""
        value = self._own.get(f"{HOSTS}{host}{_OWN_BANS}", (0, b""))[1]
        for row in values.rows(values.object_of(value).get("bans")):
            if isinstance(row, list) and len(row) > 1 and row[0] == source:
                until = values.moment(row[1])
                if until is not None and until > self.now:
                    return until
        return None

    # Enforcers

    def enforcers(self) -> dict[str, Json]:
        """What each enforcer has reported last."""
        return {
            name: _enforcer(values.object_of(value), self.now)
            for name, dummy, value in self._named(RULES)
        }

    def events(self) -> list[Json]:
        """Recent decisions of all enforcers, and changes through the API, newest first."""
        found = [
            events.decision(name, row)
            for name, dummy, value in self._named(RULES)
            for row in values.rows(values.object_of(value).get("recent"))
        ]
        recent = values.rows(values.object_of(self.value(EVENTS)[1]).get("recent"))
        found += [events.change(row) for row in recent]
        return sorted((one for one in found if one), key=lambda one: -one["t"])

    def _named(self, prefix: str) -> t.Iterator[tuple[str, int, bytes]]:
        for key, (revision, value) in sorted(self._values.items()):
            if key.startswith(prefix) and (name := name_of(key, prefix)):
                yield name, revision, value


def _is_time(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= MAX_TIME


def _is_common(key: str) -> bool:
    if key.startswith(HOSTS):
        return key.endswith(_STATUS)
    return key == EVENTS or key.startswith((BANS, LIFTS, LISTS, RULES))


def _host_of(key: str, report: str) -> str | None:
    if not (key.startswith(HOSTS) and key.endswith(report)):
        return None
    return name_of(key.removesuffix(report), HOSTS)


def _ban(source: str, found: Row | Ban, enforcer: str, reason: str) -> Json:
    return {
        "source": source,
        "until": found.until,
        "made": found.made,
        "enforcer": enforcer,
        "rule": found.rule,
        "evidence": found.evidence,
        "hosts": found.seen,
        "reason": reason,
    }


def _entries(name: str, value: bytes) -> t.Iterator[Entry]:
    found = values.object_of(value)
    for kind in ("allow", "deny"):
        for item in values.rows(found.get(kind)):
            entry = values.table(item)
            try:
                prefix = parse_prefix(values.text(entry.get("address")))
            except InvalidInput:
                continue
            text = values.text(entry.get("address"))
            comment = values.text(entry.get("comment"))
            yield Entry(name, kind, prefix, text, comment, _expires(entry.get("expires")))


def _expires(value: t.Any) -> float | None:
    """The end of an entry: seconds, or RFC 3339 as a host takes it too."""
    if not isinstance(value, str):
        return values.moment(value)
    from packetwatch_core._declared.entries import expires_at

    try:
        return float(expires_at(value))
    except (InvalidInput, ValueError):
        return None


def _host(name: str, status: Json, now: float, newest: int) -> Json:
    reported = values.moment(status.get("t"))
    return {
        "name": name,
        "age": None if reported is None else round(now - reported, 1),
        "version": values.text(status.get("version")),
        "applied": values.count(status.get("applied")),
        "current": _is_current(status, newest),
        "bans": values.count(status.get("bans")),
        "missing": values.count(status.get("missing")),
        "refused": values.counts(status.get("refused")),
        "addresses": values.texts(status.get("addresses")),
    }


def _is_current(status: Json, newest: int) -> bool:
    applied = values.count(status.get("applied"))
    return applied is not None and applied >= newest


def _enforcer(found: Json, now: float) -> Json:
    then = values.moment(found.get("t"))
    return {
        "age": None if then is None else round(now - then, 1),
        "version": values.text(found.get("version")),
        "started": values.moment(found.get("started")),
        "blind": found.get("blind") is True,
        "lost": values.count(found.get("lost")) or 0,
        "refused": values.counts(found.get("refused")),
        "rules": {
            str(name)[:64]: _rule(values.table(rule))
            for name, rule in list(values.table(found.get("rules")).items())[:64]
        },
    }


def _rule(found: Json) -> Json:
    return {
        "action": values.text(found.get("action")),
        "thresholds": values.numbers(found.get("thresholds")),
        "values": values.numbers(found.get("values")),
        "decided": values.count(found.get("decided")) or 0,
        "fault": values.text_or_none(found.get("fault")),
    }
