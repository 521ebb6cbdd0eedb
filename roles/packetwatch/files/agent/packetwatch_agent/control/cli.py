# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``packetwatchctl``: the command line, and how the outcome of a command is written."""

from __future__ import annotations

import os
import sys
import syslog
import typing as t

from packetwatch_core._base.errors import PacketwatchError

from .. import __version__
from . import wire, words
from .ctl import bans, drill, explain, fleet, lists, live, replay, state
from .ctl.session import Command, Options, Outcome, Parser, Places, Session, write

_EPILOG = """
exit status: 0 done, and what was asked after is well; 1 failed, or is not well (status, fleet, selftest);
2 wrong input; 3 not permitted; 4 the agent does not answer. See packetwatchctl(8).
"""
_INTERRUPTED = 130

COMMANDS: dict[str, Command] = (
    state.COMMANDS
    | lists.COMMANDS
    | bans.COMMANDS
    | live.COMMANDS
    | explain.COMMANDS
    | fleet.COMMANDS
    | drill.COMMANDS
    | replay.COMMANDS
)


def parser() -> Parser:
    """The whole command line."""
    found = Parser(
        prog="packetwatchctl",
        description="Show and change the packet filter of this host.",
        epilog=_EPILOG,
    )
    found.add_argument("--version", action="version", version=__version__)
    found.add_argument(
        "--fleet",
        metavar="FLEET",
        help="ask the API of a fleet instead: a URL, or the name of a file in ~/.config/packetwatch/fleets",
    )
    commands = found.add_subparsers(dest="name", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        one = commands.add_parser(
            name, help=command.summary, description=command.summary, epilog=_EPILOG
        )
        one.add_argument("--json", action="store_true", help="for programs")
        command.add_arguments(one)
    return found


def main(
    arguments: t.Sequence[str] | None = None,
    places: Places | None = None,
    log: t.Callable[[str], None] | None = None,
) -> int:
    """Run one command; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        outcome = _run(options, places, log or _to_journal)
        if outcome is None:
            return wire.DONE
        write(
            wire.encode(outcome.result) + "\n"
            if options.json
            else "".join(f"{line}\n" for line in outcome.lines)
        )
        return outcome.status
    except BrokenPipeError:
        # The reader has enough. Python would complain at its end about what is still buffered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return wire.DONE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (PacketwatchError, OSError) as error:
        sys.stderr.write(f"packetwatchctl: {words.printable(str(error))}\n")
        if options.json:
            write(wire.failed(error))
        return wire.status_of(error)


def _run(options: Options, places: Places | None, log: t.Callable[[str], None]) -> Outcome | None:
    if options.fleet is not None:
        from .ctl import remote

        return remote.run(options)
    session = Session(places or Places.of(os.environ), log)
    return COMMANDS[options.name].run(session, options)


def _to_journal(line: str) -> None:
    syslog.openlog("packetwatchctl", 0, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_NOTICE, line)
    syslog.closelog()
