# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``fleet``: what the host knows of its fleet, and what it has of it in the kernel."""

from __future__ import annotations

from packetwatch_core._base.errors import InvalidInput

from .. import show, wire
from .session import Command, Options, Outcome, Parser, Session, no_arguments


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


def _hosts(dummy: Session, dummy_options: Options) -> Outcome:
    raise InvalidInput("hosts is about a fleet: name it, as in packetwatchctl --fleet NAME hosts")


COMMANDS = {
    "fleet": Command("the fleet's store, bans and reports", _arguments, _fleet),
    "hosts": Command("the hosts of a fleet (with --fleet)", no_arguments, _hosts),
}
