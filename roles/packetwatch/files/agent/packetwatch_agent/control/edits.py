# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of the lists, as root: the same for ``packetwatchctl`` and for the one-shot behind a socket.

They are made in the drop-in `OWNER`; what others have declared stays theirs.
"""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.address import Prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.edits import Edit, drop_entries, put_entries
from packetwatch_core._declared.entries import Entry, entries_from_input

from . import wire

if t.TYPE_CHECKING:
    from packetwatch_core._change.results import Plan
    from packetwatch_core._host.host import Host

OWNER = "local"
COMMANDS = ("allow", "deny", "remove", "apply", "confirm", "rollback")
_KINDS = ("allow", "deny")
_MOST = 1000


def perform(host: Host, request: wire.Request) -> wire.Result:
    """Do what a request names, or with `check` only say what it would do."""
    command = request["command"]
    if command in ("confirm", "rollback"):
        return end(host, command, wire.text_of(request, "token"))
    check, force = wire.flag_of(request, "check"), wire.flag_of(request, "force")
    edit: Edit | None = None
    if command in _KINDS:
        edit = put_entries(OWNER, command, _entries(request))
    elif command == "remove":
        kinds = [wire.text_of(request, "list")] if request.get("list") else list(_KINDS)
        if not set(kinds) <= set(_KINDS):
            raise InvalidInput(f"list is {kinds[0]!r}: write allow or deny")
        edit = drop_entries(OWNER, _prefixes(request), kinds)
    elif command != "apply":
        raise wire.ControlError(f"{command[:64]!r} is no edit: {', '.join(COMMANDS)}", wire.INPUT)
    by_hand = command == "apply"
    if check:
        plan = host.plan(edit or (lambda state: state), force=force, by_hand=by_hand)
    else:
        plan = host.apply(edit, force=force, by_hand=by_hand)
    return _result(plan, command, check)


def end(host: Host, command: str, token: str = "") -> wire.Result:
    """Let the change that is pending stay, or take it back; without a token, whosever it is."""
    changed, change = host.confirm(token) if command == "confirm" else host.roll_back(token)
    if change is None:
        message = "no change is pending"
    elif command == "confirm":
        message = f"the change of {change.owner} {'is' if changed else 'was already'} confirmed"
    elif changed:
        message = (
            f"the change of {change.owner} was taken back: what was confirmed before is in force"
        )
    else:
        message = f"the change of {change.owner} has ended before: {change.status}"
    return {"command": command, "changed": changed, "message": message}


def _entries(request: wire.Request) -> list[Entry]:
    """The entries to put on a list, checked as those of an inventory are."""
    comment, expires = request.get("comment"), request.get("expires")
    items = [
        {"address": address, "comment": comment, "expires": expires}
        for address in _addresses(request)
    ]
    entries = entries_from_input(items, "addresses")
    if expires and entries[0].expires:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if entries[0].expires <= now:
            raise InvalidInput(f"expires is {expires}, which is past: write a time to come")
    return entries


def _prefixes(request: wire.Request) -> list[Prefix]:
    return [parse_prefix(address) for address in _addresses(request)]


def _addresses(request: wire.Request) -> list[str]:
    found = wire.texts_of(request, "addresses")
    if not 1 <= len(found) <= _MOST:
        raise InvalidInput(
            f"{len(found)} addresses at once: write from 1 to {_MOST}; longer lists belong into "
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
    elif plan.live:
        message = "live now"
    else:
        message = "declared; no interface is filtered, so it is not live"
    before, after = plan.texts()
    return {
        "command": command,
        "changed": plan.changed,
        "check": check,
        "live": plan.live,
        "digest_before": plan.digest_before,
        "digest_after": plan.digest_after,
        "counts": plan.counts,
        "diff": {"before": before, "after": after},
        "message": message,
        "notes": plan.hits.sentences() if plan.hits else [],
    }
