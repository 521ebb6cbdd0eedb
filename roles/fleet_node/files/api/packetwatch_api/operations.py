# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each operation of the contract does."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.address import Prefix, format_prefix, parse_address, parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._node.keys import LISTS
from packetwatch_fleet.sources import Sources

from .changes import Changes, Done, tag_of
from .fleet import Entry, Fleet, View
from .paging import page_of
from .problem import Problem
from .spec import Values
from .values import Json


class Call(t.NamedTuple):
    """A request in the form of the contract. by: name of its token."""

    values: Values
    body: Json
    by: str


class Answer(t.NamedTuple):
    """body: None: nothing. tag: revision for the header `ETag`, if the operation has one."""

    body: Json | None
    status: int = 200
    tag: int | None = None


Perform = t.Callable[[Call], Answer]


class Operations:
    """By the names that the contract gives them."""

    def __init__(self, fleet: Fleet, changes: Changes, sources: Sources) -> None:
        self._fleet = fleet
        self._changes = changes
        self._sources = sources

    def find(self, name: str) -> Perform:
        """The function of an operation."""
        words = "".join(f"_{char.lower()}" if char.isupper() else char for char in name)
        found: Perform = getattr(self, words)
        return found

    # Bans

    def list_bans(self, call: Call) -> Answer:
        with self._fleet.view() as view:
            return _paged(call, "bans", view.bans(), lambda ban: (ban["source"],), view.revision)

    def get_ban(self, call: Call) -> Answer:
        return self._ban(self._source(call)[0])

    def put_ban(self, call: Call) -> Answer:
        source = self._source(call)[0]
        seconds, reason = call.body["seconds"], call.body.get("reason", "")
        done = self._changes.ban(source, seconds, reason, call.by, call.values["If-Match"])
        answer = self._ban(source)
        return answer._replace(status=201 if done.is_new else 200, tag=done.revision)

    def delete_ban(self, call: Call) -> Answer:
        source = self._source(call)[0]
        hold, tag = call.values["hold"], call.values["If-Match"]
        return _gone(self._changes.lift(source, hold, call.by, tag))

    def _ban(self, source: str) -> Answer:
        with self._fleet.view() as view:
            found = view.ban(source)
            if found is None:
                raise Problem(404, f"{source} is not banned")
            return Answer(found, tag=view.changed(source))

    # Addresses

    def get_address(self, call: Call) -> Answer:
        source, prefix = self._source(call)
        with self._fleet.view(with_own=True) as view:
            fleet, hosts = view.explain(source, prefix)
            body = {
                "address": format_prefix(prefix),
                "source": source,
                **fleet,
                "ban": view.ban(source),
                "decisions": view.decisions(source),
                "lift": view.lift(source),
                "entries": [
                    one.shown() | {"list": one.list, "kind": one.kind}
                    for one in view.entries()
                    if one.matches(prefix)
                ],
                "never": view.never_banned(source),
                "events": [
                    one
                    for one in view.events()
                    if one["address"] in (source, format_prefix(prefix))
                ],
                "hosts": hosts,
            }
            return Answer(body, tag=tag_of(view, source, prefix))

    def delete_address(self, call: Call) -> Answer:
        source, prefix = self._source(call)
        hold, tag = call.values["hold"], call.values["If-Match"]
        return _gone(self._changes.remove(prefix, source, hold, call.by, tag))

    # Lists

    def list_lists(self, dummy: Call) -> Answer:
        with self._fleet.view() as view:
            found = {
                name: {
                    kind: sum(entry.kind == kind for entry in entries) for kind in ("allow", "deny")
                }
                for name, entries in view.lists().items()
            }
            return Answer({"lists": found}, tag=view.revision)

    def get_list(self, call: Call) -> Answer:
        name = call.values["name"]
        with self._fleet.view() as view:
            entries = view.lists().get(name)
            if entries is None:
                raise Problem(404, f"there is no list {name}")
            shown = {
                kind: [entry.shown() for entry in entries if entry.kind == kind]
                for kind in ("allow", "deny")
            }
            return Answer({"name": name, **shown}, tag=_list_tag(view, name))

    def get_entry(self, call: Call) -> Answer:
        return self._entry(_place(call))

    def put_entry(self, call: Call) -> Answer:
        place = _place(call)
        entry = place._replace(
            comment=call.body.get("comment", ""), expires=call.body.get("expires")
        )
        done = self._changes.put_entry(entry, call.by, call.values["If-Match"])
        answer = self._entry(place)
        return answer._replace(status=201 if done.is_new else 200, tag=done.revision)

    def delete_entry(self, call: Call) -> Answer:
        place = _place(call)
        return _gone(self._changes.delete_entry(place, call.by, call.values["If-Match"]))

    def _entry(self, place: Entry) -> Answer:
        with self._fleet.view() as view:
            for entry in view.lists().get(place.list, ()):
                if (entry.kind, entry.prefix) == (place.kind, place.prefix):
                    return Answer(entry.shown(), tag=_list_tag(view, place.list))
        raise Problem(404, f"the list {place.list} has no {place.kind} {place.address}")

    # Reports

    def list_hosts(self, call: Call) -> Answer:
        with self._fleet.view() as view:
            return _paged(call, "hosts", view.hosts(), lambda host: (host["name"],), view.revision)

    def get_host(self, call: Call) -> Answer:
        name = call.values["host"]
        with self._fleet.view() as view:
            for host in view.hosts():
                if host["name"] == name:
                    return Answer(host, tag=view.revision)
        raise Problem(404, f"the host {name} has not reported")

    def get_rules(self, dummy: Call) -> Answer:
        with self._fleet.view() as view:
            return Answer({"enforcers": view.enforcers()}, tag=view.revision)

    def list_events(self, call: Call) -> Answer:
        with self._fleet.view() as view:
            return _paged(
                call,
                "events",
                view.events(),
                lambda event: (-event["t"], event["by"], event["address"], event["action"]),
                view.revision,
            )

    def get_health(self, dummy: Call) -> Answer:
        with self._fleet.view() as view:
            return Answer({"status": "ok", "revision": view.revision})

    def _source(self, call: Call) -> tuple[str, Prefix]:
        """The source and the address of a path; raises `Problem`."""
        try:
            prefix = parse_address(call.values["address"])
            return self._sources.of(format_prefix(prefix)), prefix
        except InvalidInput as error:
            raise Problem(422, str(error)) from None


def _place(call: Call) -> Entry:
    """The place of an entry that a path names; raises `Problem`."""
    try:
        prefix = parse_prefix(call.values["prefix"])
    except InvalidInput as error:
        raise Problem(422, str(error)) from None
    values = call.values
    return Entry(values["name"], values["kind"], prefix, format_prefix(prefix), "", None)


def _list_tag(view: View, name: str) -> int:
    return view.value(LISTS + name)[0]


def _gone(done: Done) -> Answer:
    return Answer(None, 204, done.revision)


def _paged(
    call: Call,
    name: str,
    items: t.Iterable[Json],
    key: t.Callable[[Json], tuple[str | float, ...]],
    revision: int,
) -> Answer:
    found, token = page_of(items, key, call.values["limit"], call.values["page"])
    return Answer({name: found, "next": token}, tag=revision)
