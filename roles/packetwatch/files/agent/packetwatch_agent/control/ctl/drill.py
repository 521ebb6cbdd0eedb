# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``selftest``: the fire drill."""

from __future__ import annotations

from packetwatch_core._base.interface import text_from_system

from .. import show, wire
from .session import Command, Options, Outcome, Parser, Session


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "--interface",
        metavar="NAME",
        type=text_from_system,
        help="else the first that enforces",
    )
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, default=4)
    family.add_argument("-6", dest="family", action="store_const", const=6)


def _selftest(session: Session, options: Options) -> Outcome:
    if not session.is_root:
        raise wire.ControlError("not permitted: only root may run a program", wire.DENIED)
    from ..selftest.drill import Drill

    drill = Drill(session.host, session.agent, options.interface, options.family)

    def act() -> wire.Result:
        result = drill.run()
        state = "all stages are green" if result["passed"] else "a stage is red"
        return result | {"message": f"{state}; {result['source'] or 'no source'}"}

    result = session.as_root({"command": "selftest"}, act)
    return Outcome(result, show.selftest(result), wire.DONE if result["passed"] else wire.FAILED)


COMMANDS = {"selftest": Command("a fire drill on the live filter", _arguments, _selftest)}
