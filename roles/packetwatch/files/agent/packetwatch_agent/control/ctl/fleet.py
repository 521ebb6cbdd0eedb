# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``fleet``: what the host knows of its fleet, and what it has of it in the kernel."""

from __future__ import annotations

from .. import show, wire
from .session import Command, Options, Outcome, Parser, Session


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "--release",
        action="store_true",
        help="lift the bans that were kept although the store does not have them any more",
    )


def _fleet(session: Session, options: Options) -> Outcome:
    with session.fleet() as fleet:
        if options.release:
            result = fleet.ask("fleet_release")
            return Outcome(result, show.change(result))
        result = fleet.ask("fleet")
    is_well = result["store"]["connected"] and not result["agent"]["problem"]
    return Outcome(result, show.fleet(result), wire.DONE if is_well else wire.FAILED)


COMMANDS = {"fleet": Command("the fleet's store, bans and reports", _arguments, _fleet)}
