# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of the store: bans, lifts, lists. Each is one transaction, together with its event: all of it, or nothing.

A change is planned on what the store has, and written if that has not changed meanwhile. Otherwise it is planned anew.
"""

from __future__ import annotations

import json
import time
import typing as t

from packetwatch_core._base.address import Prefix, format_prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput, PacketwatchError
from packetwatch_core._declared import fleet as declared
from packetwatch_core._node.decisions import ATTEMPTS, OWN, Draft, Snapshot
from packetwatch_core._node.keys import EVENTS, LISTS

from . import events
from .fleet import Entry, Fleet, View
from .problem import Away, Problem
from .store import Store
from .values import Json

if t.TYPE_CHECKING:
    from packetwatch_core._node.gateway import Gateway

_MAX_LIST = 1_000_000
# An allowed address is never banned, so the hold only bridges the moment until enforcers have read the list.
_HOLD_OF_ALLOWED = 86400.0
Tag = str | None


class Done(t.NamedTuple):
    """The result of a change. revision: of what it is about. is_new: whether it did not exist.

    has_more: whether another transaction has to follow.
    """

    revision: int
    is_new: bool = False
    has_more: bool = False


class Plan(t.NamedTuple):
    """What a change is planned on, and what it will write."""

    view: View
    snapshot: Snapshot
    draft: Draft
    by: str

    def log(self, action: str, address: str, **fields: t.Any) -> None:
        """Write an event with the change."""
        revision, value = self.view.value(EVENTS)
        row = {
            "t": round(self.snapshot.now, 1),
            "by": self.by,
            "action": action,
            "address": address,
        }
        self.draft.put(EVENTS, revision, events.with_change(value, row | fields))

    def put_list(self, name: str, entries: t.Sequence[Entry]) -> None:
        """Write a list; one without entries is deleted."""
        key = LISTS + name
        revision = self.view.value(key)[0]
        text = json.dumps(_list(entries), separators=(",", ":")) if entries else None
        if text and len(text) > _MAX_LIST:
            raise Problem(422, f"the list {name} would have more than {_MAX_LIST} bytes")
        self.draft.put(key, revision, text)

    def lift_within(self, prefix: Prefix, hold: float) -> bool:
        """Lift all bans of a prefix, as far as a transaction has room; return whether there are more."""
        for source, ban in self.snapshot.bans().items():
            other = parse_prefix(source)
            if other.family == prefix.family and prefix.value <= other.value <= prefix.last:
                if self.draft.is_full:
                    return True
                self.draft.lift(source, hold, ban.until)
        return False


class Changes:
    """Changes by tokens. tag: what the client wrote in If-Match."""

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet

    def ban(self, source: str, seconds: float, reason: str, by: str, tag: Tag) -> Done:
        """Ban a source, unless the API has banned it for so long already."""
        _check_text(reason, "reason")

        def plan(made: Plan) -> Done:
            _check_tag(tag, made.snapshot.changed(source), source)
            _refuse(made.view.never_banned(source), f"{source} is never banned")
            present = made.snapshot.bans().get(source)
            is_same = present and present.enforcer == OWN and present.lasts(seconds)
            if present and is_same and present.reason == reason:
                return Done(made.snapshot.changed(source))
            ban = made.draft.ban(source, seconds, by, reason)
            made.log(
                "ban", source, seconds=seconds, until=ban.until, evidence=ban.evidence, why=reason
            )
            return Done(0, present is None)

        return self._carry_out(plan, by)

    def lift(self, source: str, hold: float, by: str, tag: Tag) -> Done:
        """Lift all bans of a source."""

        def plan(made: Plan) -> Done:
            _check_tag(tag, made.snapshot.changed(source), source)
            present = made.snapshot.bans().get(source)
            if present:
                made.draft.lift(source, hold, present.until)
                made.log("lift", source, seconds=hold)
            return Done(made.snapshot.changed(source))

        return self._carry_out(plan, by)

    def remove(self, prefix: Prefix, source: str, hold: float, by: str, tag: Tag) -> Done:
        """Lift all bans of an address, and take it off all lists."""

        def plan(made: Plan) -> Done:
            lists = made.view.lists()
            listed = [name for name in lists if any(one.prefix == prefix for one in lists[name])]
            revision = tag_of(made.view, source, prefix)
            _check_tag(tag, revision, source)
            present = made.snapshot.bans().get(source)
            if present:
                made.draft.lift(source, hold, present.until)
            for name in listed:
                made.put_list(name, [one for one in lists[name] if one.prefix != prefix])
            if present or listed:
                made.log(
                    "remove", format_prefix(prefix), seconds=hold, list=" ".join(listed) or None
                )
            return Done(revision)

        return self._carry_out(plan, by)

    def put_entry(self, entry: Entry, by: str, tag: Tag) -> Done:
        """Write an entry of a list in place of one with the same address."""
        _check_text(entry.comment, "comment")
        if not entry.counts(time.time()):
            raise Problem(
                422, f"expires is {entry.expires:.0f}, which has passed: write a later time"
            )

        def plan(made: Plan, expected: Tag = tag) -> Done:
            lists = made.view.lists()
            others = [one for one in lists.get(entry.list, ()) if not _is_same(one, entry)]
            former = [one for one in lists.get(entry.list, ()) if _is_same(one, entry)]
            revision = made.view.value(LISTS + entry.list)[0] if former else 0
            _check_tag(expected, revision, entry.address)
            if entry.kind == "deny":
                _refuse(made.view.never_denied(entry.prefix), f"{entry.address} is never denied")
            if former != [entry]:
                _check_lists(lists | {entry.list: [*others, entry]})
                made.put_list(entry.list, [*others, entry])
                made.log(
                    entry.kind,
                    entry.address,
                    list=entry.list,
                    until=entry.expires,
                    why=entry.comment,
                )
            has_more = False
            if entry.kind == "allow":
                hold = (entry.expires - made.view.now) if entry.expires else _HOLD_OF_ALLOWED
                has_more = made.lift_within(entry.prefix, hold)
            return Done(revision if former == [entry] else 0, not former, has_more)

        done = rest = self._carry_out(plan, by)
        try:
            while rest.has_more:
                # The list has the entry, so nobody bans its sources any more.
                rest = self._carry_out(lambda made: plan(made, None), by)
        except Away as problem:
            raise Away(
                f"the list has the entry, but some bans of its sources are not lifted yet: send the request again: "
                f"{problem.detail}"
            ) from None
        return done

    def delete_entry(self, entry: Entry, by: str, tag: Tag) -> Done:
        """Remove an entry of a list. entry: its place."""

        def plan(made: Plan) -> Done:
            entries = made.view.lists().get(entry.list, [])
            others = [one for one in entries if not _is_same(one, entry)]
            is_there = len(others) < len(entries)
            revision = made.view.value(LISTS + entry.list)[0] if is_there else 0
            _check_tag(tag, revision, entry.address)
            if is_there:
                made.put_list(entry.list, others)
                made.log(f"remove {entry.kind}", entry.address, list=entry.list)
            return Done(revision)

        return self._carry_out(plan, by)

    def _carry_out(self, plan: t.Callable[[Plan], Done], by: str) -> Done:
        """Plan and write; raises `Problem`."""

        def attempt(gateway: Gateway) -> Done:
            for dummy in range(ATTEMPTS):
                with self._fleet.view() as view:
                    snapshot = Snapshot(gateway)
                    draft = Draft(snapshot)
                    done = plan(Plan(view, snapshot, draft, by))
                revision = draft.commit(gateway)
                if revision is not None:
                    return done._replace(revision=revision or done.revision)
            raise Away(f"the store has changed {ATTEMPTS} times meanwhile, and nothing was written")

        try:
            return self._store.run(attempt)
        except InvalidInput as error:
            raise Problem(422, str(error)) from None
        except PacketwatchError as error:
            raise Away(str(error)) from None


def tag_of(view: View, source: str, prefix: Prefix) -> int:
    """The revision of what is decided and listed about an address."""
    lists = [
        LISTS + name
        for name, found in view.lists().items()
        for one in found
        if one.prefix == prefix
    ]
    return max([view.changed(source), *(view.value(key)[0] for key in lists)])


def _check_tag(tag: Tag, revision: int, what: str) -> None:
    if tag is None:
        return
    if not revision or (tag != "*" and tag != f'"{revision}"'):
        present = f'the ETag is "{revision}"' if revision else "it does not exist"
        raise Problem(412, f"{what} is not as If-Match expects, {present}: read it again")


def _check_text(text: str, name: str) -> None:
    if not text.isprintable():
        raise Problem(422, f"{name} is {text[:80]!r}: write one line of printable characters")


def _refuse(why: str | None, what: str) -> None:
    if why:
        raise Problem(409, f"{what}: {why}")


def _is_same(one: Entry, other: Entry) -> bool:
    return (one.kind, one.prefix) == (other.kind, other.prefix)


def _list(entries: t.Iterable[Entry]) -> Json:
    found: Json = {"v": 1, "allow": [], "deny": []}
    for entry in entries:
        row = {"address": entry.address, "comment": entry.comment, "expires": entry.expires}
        found[entry.kind].append({name: value for name, value in row.items() if value})
    return found


def _check_lists(lists: t.Mapping[str, t.Sequence[Entry]]) -> None:
    """Raise `Problem` if hosts would refuse the lists."""
    whole = {"v": 1, "lists": {name: _list(entries) for name, entries in lists.items()}}
    try:
        declared.parse(json.dumps(whole).encode(), declared.KINDS)
    except PacketwatchError as error:
        raise Problem(422, f"hosts would refuse the lists: {error}") from None
