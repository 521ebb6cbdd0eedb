# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands about bans and protected addresses."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._bans.facts import name_of
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._declared.store import State, Store

from .. import banning, show, wire, words
from .session import Command, Options, Outcome, Parser, Session, canonical, no_arguments

if t.TYPE_CHECKING:
    from packetwatch_core._declared.entries import Entry


def _ban_arguments(parser: Parser) -> None:
    _unban_arguments(parser)
    parser.add_argument("--for", dest="duration", metavar="TIME", help="10m, 2d; else until lifted")


def _ban(session: Session, options: Options) -> Outcome:
    seconds = None if options.duration is None else words.seconds_from(options.duration)
    return _change(session, options, _without_effect, duration=seconds)


def _unban_arguments(parser: Parser) -> None:
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS", help="address or IPv6 /64")
    parser.add_argument("--reason", metavar="TEXT", help="for the audit line")


def _unban(session: Session, options: Options) -> Outcome:
    return _change(session, options, _still_denied)


def _change(
    session: Session,
    options: Options,
    note: t.Callable[[Session, str], list[str]],
    **arguments: float | None,
) -> Outcome:
    """Ban or lift one source after the other; a refused one does not keep the others from it.

    note: says what the lists do with a source, whatever its bans are.
    """
    addresses = [canonical(address) for address in options.addresses]
    given = arguments | {"reason": options.reason or None}
    common = {name: value for name, value in given.items() if value is not None}
    done: list[wire.Result] = []
    errors: list[Exception] = []
    for address in addresses:
        request = {"command": options.name, "address": address} | common
        try:
            result = _ask(session, request)
        except (PacketwatchError, OSError) as error:
            errors.append(error)
            continue
        done.append(result | {"notes": result.get("notes", []) + note(session, address)})
    if errors and len(addresses) == 1:
        raise errors[0]
    lines = [line for result in done for line in show.change(result)]
    lines += [f"FAILED: {words.printable(str(error))}" for error in errors]
    status = wire.status_of(errors[0]) if errors else wire.DONE
    if len(addresses) == 1:
        return Outcome(done[0], lines)
    changed = any(result["changed"] for result in done)
    found = {"changed": changed, "sources": done, "errors": [str(error) for error in errors]}
    return Outcome(found, lines, status)


def _ask(session: Session, request: wire.Request) -> wire.Result:
    """Ask the agent. Root compares its answer with the kernel, and can do without it."""
    if not session.is_root:
        return session.ask(**request)
    from .. import truth

    began = time.monotonic_ns()
    try:
        result = session.ask(**request)
        if truth.is_done(session.host, request, began):
            return result
        why = "the agent reports that it is done, but the kernel does not have it"
    except wire.ControlError as error:
        is_silent = error.status == wire.NO_AGENT
        why = f"the agent {'does not answer' if is_silent else 'refused'}: {error}"
    result = session.as_root(request, lambda: _change_as_root(session, request))
    result["notes"] = [f"{why}: this was written to the kernel directly"]
    return result


def _change_as_root(session: Session, request: wire.Request) -> wire.Result:
    from .. import truth

    bans = truth.bans_of(session.host)
    if request["command"] == "ban":
        return banning.impose(bans, request["address"], request.get("duration"))
    return banning.lift(bans, request["address"])


def _without_effect(session: Session, address: str) -> list[str]:
    """A note if an allow list passes the address anyway."""
    return [
        f"{address} is on the allow list ({owner!r}), by the entry {_named(entry)}: "
        "the ban has no effect"
        for owner, entry in _listed(session, address, "allow")
    ]


def _still_denied(session: Session, address: str) -> list[str]:
    """A note if a deny list drops the address anyway."""
    if _listed(session, address, "allow"):
        return []
    return [
        f"{address} is still denied, by the list {owner!r} ({_named(entry)}): "
        + ("packetwatchctl remove" if owner == "local" else "remove it where that list is written")
        + ", or packetwatchctl allow"
        for owner, entry in _listed(session, address, "deny")
    ]


def _named(entry: Entry) -> str:
    return f"{entry.text} of {entry.origin}" if entry.origin else entry.text


def _listed(session: Session, address: str, kind: str) -> list[tuple[str, Entry]]:
    """Owner and entry of each list of this kind that has the address now; empty if they cannot be read."""
    from packetwatch_core._active.verdict import find

    try:
        if kind == "allow":
            # A ban must not wait for long deny lists.
            state = State(allow=Store(session.places.paths.state).read_allowed())
        else:
            state = session.state()._replace(allow={})
        found = find(state, parse_prefix(address), session.clock(), session.note())
    except PacketwatchError:
        return []
    return [(item.owner, item.entry) for item in found if item.counts]


def _bans_arguments(parser: Parser) -> None:
    parser.add_argument("within", nargs="?", metavar="ADDRESS", help="only those in this prefix")


def _bans(session: Session, options: Options) -> Outcome:
    within = parse_prefix(options.within) if options.within else None
    notes: list[str] = []
    if session.is_root:
        from .. import truth

        listed = banning.listed(truth.bans_of(session.host), name_of)
        items = [item for item in listed if item is not None]
        notes = session.host.damaged_bans()
    else:
        with session.agent() as agent:
            items = list(agent.items("bans"))
    if within:
        prefixes = [(parse_prefix(item["source"]), item) for item in items]
        items = [
            item
            for prefix, item in prefixes
            if prefix.family == within.family
            and prefix.value <= within.last
            and within.value <= prefix.last
        ]
    items.sort(key=lambda item: parse_prefix(item["source"]))
    result = {"bans": items, "notes": notes}
    return Outcome(result, show.bans(result))


def _protect(session: Session, dummy: Options) -> Outcome:
    if session.is_root:
        from .. import truth

        items = truth.protected_of(session.host)
    else:
        with session.agent() as agent:
            items = list(agent.items("protect"))
    items.sort(key=lambda item: (item["reason"], parse_prefix(item["prefix"])))
    result = {"protected": items}
    return Outcome(result, show.protect(result))


COMMANDS = {
    "ban": Command("ban sources", _ban_arguments, _ban),
    "unban": Command("lift all bans of sources", _unban_arguments, _unban),
    "bans": Command("bans, and when they expire", _bans_arguments, _bans),
    "protect": Command("protected addresses, and why", no_arguments, _protect),
}
