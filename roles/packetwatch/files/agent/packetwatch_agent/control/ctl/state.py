# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``status`` and ``lists``: what is filtered, and what is declared."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._change.panic import Flag

from .. import show, wire
from .session import Command, Options, Outcome, Parser, Session, no_arguments

if t.TYPE_CHECKING:
    from packetwatch_core._declared.store import State


def _status(session: Session, dummy: Options) -> Outcome:
    from .. import truth

    agent: wire.Result | None = None
    trouble = ""
    try:
        agent = session.ask("status")
    except wire.ControlError as error:
        if not session.is_root:
            raise
        trouble = str(error)
    if session.is_root:
        result = truth.status(session.host, agent, trouble)
    else:
        assert agent is not None
        panic = Flag(session.places.paths.state).read()
        notes = truth.about_clock(session.clock(), session.places.paths.clock)
        result = truth.status_by_agent(session.state(), panic, agent, notes)
    return Outcome(result, show.status(result), wire.FAILED if result["problems"] else wire.DONE)


def _lists_arguments(parser: Parser) -> None:
    parser.add_argument("owner", nargs="?", metavar="OWNER", help="only this drop-in, as ansible")
    parser.add_argument("--entries", action="store_true", help="each entry")


def _lists(session: Session, options: Options) -> Outcome:
    from packetwatch_core._declared.describe import list_entries

    from .. import truth

    state = session.state()
    result: wire.Result = dict(truth.list_counts(state)) | {"notes": []}
    if options.entries:
        result["entries"] = [
            item
            for item in list_entries(state, session.clock())
            if options.owner in (None, item["owner"])
        ]
    if options.owner:
        owners = sorted({*state.allow, *state.deny})
        if options.owner not in owners:
            raise InvalidInput(
                f"there is no list {options.owner!r}: there are {', '.join(owners) or 'none'}"
            )
        for kind in ("allow", "deny"):
            result[kind] = {o: n for o, n in result[kind].items() if o == options.owner}
    result["live"], note = _compare(session, state)
    result["notes"] += note + truth.about_clock(session.clock(), session.places.paths.clock)
    return Outcome(result, show.lists(result))


def _compare(session: Session, state: State) -> tuple[bool | None, list[str]]:
    """Whether the kernel has the declared lists, None if only root can know; and a note about it."""
    if not session.is_root:
        return None, ["this is what is declared; what the kernel has, only root can read"]
    from packetwatch_core._active.lists import is_current

    from .. import truth

    areas, dummy = truth.live_areas(session.host)
    if areas is None:
        return False, ["no interface is filtered, so none of it is active"]
    if is_current(areas, state, session.clock()):
        return True, []
    return False, [f"the kernel has other lists: {truth.what_if_different(session.host)}"]


COMMANDS = {
    "status": Command("what is filtered, and what is wrong", no_arguments, _status),
    "lists": Command("what is declared, by owner", _lists_arguments, _lists),
}
