# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands about bans and protected addresses."""

from __future__ import annotations

from packetwatch_core._bans.facts import name_of
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import PacketwatchError

from .. import banning, show, wire, words
from .session import Command, Options, Outcome, Parser, Session, canonical, no_arguments


def _ban_arguments(parser: Parser) -> None:
    _unban_arguments(parser)
    parser.add_argument("--for", dest="duration", metavar="TIME", help="10m, 2d; else until lifted")


def _ban(session: Session, options: Options) -> Outcome:
    request = _request(options)
    if options.duration:
        request["duration"] = words.seconds_from(options.duration)
    result = _ask(session, request)
    result["notes"] = result.get("notes", []) + _without_effect(session, request["address"])
    return Outcome(result, show.change(result))


def _unban_arguments(parser: Parser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="address or IPv6 /64")
    parser.add_argument("--reason", metavar="TEXT", help="for the audit line")


def _unban(session: Session, options: Options) -> Outcome:
    result = _ask(session, _request(options))
    return Outcome(result, show.change(result))


def _request(options: Options) -> wire.Request:
    address, reason = canonical(options.address), options.reason or None
    return {"command": options.name, "address": address, "reason": reason}


def _ask(session: Session, request: wire.Request) -> wire.Result:
    """Ask the agent; root can do without it."""
    try:
        return session.ask(**request)
    except wire.ControlError as error:
        if error.status != wire.NO_AGENT or not session.is_root:
            raise
    result = session.as_root(request, lambda: _change_as_root(session, request))
    result["notes"] = ["the agent does not answer: this was written to the kernel directly"]
    return result


def _change_as_root(session: Session, request: wire.Request) -> wire.Result:
    from .. import truth

    bans = truth.bans_of(session.host)
    if request["command"] == "ban":
        return banning.impose(bans, request["address"], request.get("duration"))
    return banning.lift(bans, request["address"])


def _without_effect(session: Session, address: str) -> list[str]:
    """A note if an allow list passes the address anyway."""
    from .. import why

    try:
        found = why.declared(session.state(), parse_prefix(address), session.note())
    except PacketwatchError:
        return []
    if found["verdict"] != "allow":
        return []
    owners = ", ".join(repr(item["owner"]) for item in found["entries"])
    return [f"it is on an allow list ({owners}), so the ban has no effect"]


def _bans_arguments(parser: Parser) -> None:
    parser.add_argument("within", nargs="?", metavar="ADDRESS", help="only those in this prefix")


def _bans(session: Session, options: Options) -> Outcome:
    within = parse_prefix(options.within) if options.within else None
    if session.is_root:
        from .. import truth

        items = list(banning.listed(truth.bans_of(session.host), name_of))
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
    result = {"bans": items}
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
    "ban": Command("ban a source", _ban_arguments, _ban),
    "unban": Command("lift all bans of a source", _unban_arguments, _unban),
    "bans": Command("bans, and when they expire", _bans_arguments, _bans),
    "protect": Command("protected addresses, and why", no_arguments, _protect),
}
