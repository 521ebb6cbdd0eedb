# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Edits of the lists as root, for ``packetwatchctl`` and for the one-shot of packetwatch-edit.socket.

They change only the drop-in of `OWNER`.
"""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.address import Prefix, format_prefix, parse_prefix
from packetwatch_core._base.clock import read_clock
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.edits import Edit, drop_entries, prefixes_of, put_entries
from packetwatch_core._declared.entries import Entry, entries_from_input, expires_at

from . import wire

if t.TYPE_CHECKING:
    from packetwatch_core._change.results import Plan
    from packetwatch_core._host.host import Host

OWNER = "local"
_KINDS = ("allow", "deny")
_MAX_ADDRESSES = 1000


def perform(host: Host, request: wire.Request) -> wire.Result:
    """Do what a request says, or with `check` only return what would change."""
    command = request["command"]
    if command in _ENDS:
        return end(host, command, wire.text_of(request, "token"))
    prepare = _EDITS.get(command)
    if prepare is None:
        known = ", ".join((*_EDITS, *_ENDS))
        raise wire.ControlError(
            f"{command[:64]!r} is not an edit: write one of {known}", wire.INPUT
        )
    check, force = wire.flag_of(request, "check"), wire.flag_of(request, "force")
    edit = prepare(request)
    if command in _KINDS:
        _refuse_past(host, _entries(request))
    # Without an edit, an administrator has edited files of confirmed state.
    by_hand = edit is None
    if check:
        plan = host.plan(edit or (lambda state: state), force=force, by_hand=by_hand)
    else:
        plan = host.apply(edit, force=force, by_hand=by_hand)
    result = _result(plan, command, check)
    return _with_missing(result, plan, request) if command == "remove" else result


def _with_missing(result: wire.Result, plan: Plan, request: wire.Request) -> wire.Result:
    """Say which prefixes were on no list, so that there was nothing to remove."""
    there = prefixes_of(plan.states[0], OWNER, _kinds(request))
    missing = [format_prefix(prefix) for prefix in _prefixes(request) if prefix not in there]
    if not missing:
        return result
    text = f"{', '.join(missing)}: on no list"
    if not plan.changed:
        return result | {"message": f"nothing to remove: {text}"}
    return result | {"notes": [*result["notes"], text]}


def _put(request: wire.Request) -> Edit:
    return put_entries(OWNER, request["command"], _entries(request))


def _remove(request: wire.Request) -> Edit:
    return drop_entries(OWNER, _prefixes(request), _kinds(request))


def _kinds(request: wire.Request) -> list[str]:
    """The kinds of lists that a request is about."""
    kinds = [wire.text_of(request, "list")] if request.get("list") else list(_KINDS)
    if not set(kinds) <= set(_KINDS):
        raise InvalidInput(f"list is {kinds[0]!r}: write allow or deny")
    return kinds


def _apply(dummy: wire.Request) -> None:
    """No edit: activate what the files say."""


_EDITS: dict[str, t.Callable[[wire.Request], Edit | None]] = {
    "allow": _put,
    "deny": _put,
    "remove": _remove,
    "apply": _apply,
}
_ENDS = ("confirm", "rollback")


def end(host: Host, command: str, token: str = "") -> wire.Result:
    """Confirm or revert the pending change; without a token, any owner's."""
    done = host.confirm(token) if command == "confirm" else host.roll_back(token)
    changed, change, problems = done
    if change is None:
        message = "no change is pending"
    elif command == "confirm":
        message = f"the change of {change.owner} {'is' if changed else 'was already'} confirmed"
    elif changed:
        message = (
            f"the change of {change.owner} was reverted: the state confirmed before it is active"
        )
    else:
        message = f"the change of {change.owner} has already ended: {change.status}"
    return {"command": command, "changed": changed, "message": message, "notes": list(problems)}


def _entries(request: wire.Request) -> list[Entry]:
    """The entries to put on a list, checked like those of an inventory."""
    comment, expires = request.get("comment"), request.get("expires")
    items = [
        {"address": address, "comment": comment, "expires": expires}
        for address in _addresses(request)
    ]
    return entries_from_input(items, "addresses")


def _refuse_past(host: Host, entries: list[Entry]) -> None:
    """Refuse entries that have expired, also by the latest time that this host was sure of."""
    clock = read_clock(host.paths.clock)
    for entry in entries:
        if entry.expires and expires_at(entry.expires) <= max(clock.passed, time.time()):
            known = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.passed))
            raise InvalidInput(
                f"expires is {entry.expires}, which is past: write a later time"
                + (
                    f" (the clock was at {known} already; if it was wrong then, remove {host.paths.clock})"
                    if clock.passed > time.time() + 1
                    else ""
                )
            )


def _prefixes(request: wire.Request) -> list[Prefix]:
    return [parse_prefix(address) for address in _addresses(request)]


def _addresses(request: wire.Request) -> list[str]:
    found = wire.texts_of(request, "addresses")
    if not 1 <= len(found) <= _MAX_ADDRESSES:
        raise InvalidInput(
            f"{len(found)} addresses at once: write from 1 to {_MAX_ADDRESSES}; longer lists belong in "
            "a drop-in of their own (module packetwatch.xdp.access_lists)"
        )
    return found


def _result(plan: Plan, command: str, check: bool) -> wire.Result:
    if plan.paused:
        message = plan.paused
    elif not plan.changed:
        message = "nothing to change"
    elif check:
        message = "this would change"
    elif plan.active:
        message = "active now"
    else:
        message = "declared; no interface is filtered, so it is not active"
    before, after = plan.texts()
    return {
        "command": command,
        "changed": plan.changed,
        "check": check,
        "live": plan.active,
        "digest_before": plan.digest_before,
        "digest_after": plan.digest_after,
        "counts": plan.counts,
        "diff": {"before": before, "after": after},
        "message": message,
        "notes": [
            *plan.expired,
            *(plan.hits.sentences() if plan.hits else []),
            *plan.problems,
        ],
    }
