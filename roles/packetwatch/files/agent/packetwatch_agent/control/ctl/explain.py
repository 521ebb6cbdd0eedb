# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``why``: the verdict on an address, and what it rests on."""

from __future__ import annotations

import functools
import os

from packetwatch_core._bans.facts import name_of
from packetwatch_core._base.address import format_prefix, parse_prefix

from .. import banning, show, wire
from .session import Command, Options, Outcome, Parser, Session


def _arguments(parser: Parser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="address or prefix")


def _why(session: Session, options: Options) -> Outcome:
    from .. import why

    prefix = parse_prefix(options.address)
    lists = functools.partial(
        why.declared, session.state(), prefix, session.clock(), session.note()
    )
    bans: wire.Result | None = None
    # Only these can be banned.
    is_source = prefix.is_host or (prefix.family == 6 and prefix.length == 64)
    if not session.is_root:
        bans = session.ask("why", address=format_prefix(prefix)) if is_source else None
        result = why.explain(prefix, lists(), None, bans, None, chains=session.chains())
        result |= _by_fleet(session, format_prefix(prefix) if is_source else "")
        return Outcome(result, show.why(result))
    from .. import truth

    areas, interfaces = truth.live_areas(session.host)
    chains = truth.chains(session.host)
    in_kernel = None if areas is None else why.verdict_of(areas.tables(), prefix)
    if is_source and areas is not None:
        bans = banning.why(truth.bans_of(session.host), format_prefix(prefix), name_of)
    remedy = functools.partial(truth.what_if_different, session.host)
    result = why.explain(prefix, lists(in_kernel), in_kernel, bans, interfaces, remedy, chains)
    result |= _by_fleet(session, format_prefix(prefix) if is_source else "")
    return Outcome(result, show.why(result))


def _by_fleet(session: Session, source: str) -> wire.Result:
    """What the fleet says about a source; nothing on a host without a fleet."""
    if not source or not os.path.exists(session.places.fleet):
        return {}
    try:
        with session.fleet() as fleet:
            return {"fleet": fleet.ask("fleet_why", address=source)}
    except wire.ControlError as error:
        return {"fleet": {"problem": str(error)}}


COMMANDS = {"why": Command("explain the verdict on an address", _arguments, _why)}
