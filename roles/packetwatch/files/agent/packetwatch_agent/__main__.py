# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m packetwatch_agent``: the agent, and the one-shots that need root."""

from __future__ import annotations

import argparse
import os
import sys
import typing as t

from packetwatch_core._base.errors import InvalidInput, PacketwatchError
from packetwatch_core._base.interface import text_from_system

from . import __version__, settings

if t.TYPE_CHECKING:
    from packetwatch_core._host.host import Host

FAILED = 1
USAGE = 2
# Seconds to wait for the lock: another one-shot may be compiling, a minute on a slow machine.
_PATIENCE = 240.0


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Run a command; return 0 if it is done, 1 if it failed, 2 if a setting or argument is wrong."""
    options = _parser().parse_args(arguments)
    command: t.Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except InvalidInput as error:
        return _fail(USAGE, str(error))
    except PacketwatchError as error:
        return _fail(FAILED, str(error))
    except PermissionError as error:
        return _fail(FAILED, f"{error}: run as root, or as the owner of the pins")
    except OSError as error:
        return _fail(FAILED, str(error))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="packetwatch_agent", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="follow the program: log, metrics, bans")
    run.set_defaults(command=_run)
    attach = commands.add_parser(
        "attach", help="load the program and attach it to a declared interface"
    )
    attach.add_argument("interface", type=text_from_system)
    attach.set_defaults(command=_attach)
    apply = commands.add_parser("apply", help="compile confirmed state and activate it")
    apply.set_defaults(command=_apply)
    rollback = commands.add_parser(
        "rollback", help="revert the pending change if its time to be confirmed is up"
    )
    rollback.set_defaults(command=_rollback)
    verify = commands.add_parser("verify", help="compare the kernel with confirmed state")
    verify.set_defaults(command=_verify)
    heal = commands.add_parser("heal", help="repair what has drifted from confirmed state")
    heal.set_defaults(command=_heal)
    edit = commands.add_parser("edit", help="edit the lists for the client at standard input")
    edit.set_defaults(command=_edit)
    fleet_lists = commands.add_parser(
        "fleet-lists", help="take the lists that the fleet process has left"
    )
    fleet_lists.set_defaults(command=_fleet_lists)
    return parser


def _run(dummy: argparse.Namespace) -> None:
    values = settings.read(os.environ)
    # Imported here because the agent and the one-shots need different modules, which cost memory.
    from packetwatch_core._kernel.pins import Pins

    from .assembly import assemble
    from .drift import Drift
    from .following import MAPS
    from .output import Complaints, Output
    from .waiting import Waiting

    pins, output = Pins(values.pins), Output()
    complain = Complaints(output)
    for problem in values.problems.values():
        complain(f"a setting is not in force: {problem}")
    drift = Drift(values, output)
    stopping = False
    while not stopping:
        maps = Waiting(pins, MAPS, values, output, drift).run()
        stopping = maps is None or assemble(pins, maps, values, output, drift).run()


def _attach(options: argparse.Namespace) -> None:
    from packetwatch_core._base.paths import Paths
    from packetwatch_core._host.boot import filter_interface

    from .run import run

    done = filter_interface(run, Paths(), options.interface, _PATIENCE)
    reason = f" ({done.reason})" if done.reason else ""
    _say(f"{options.interface} is filtered, mode {done.mode}{reason}")
    if done.problem:
        _complain(done.problem)


def _apply(dummy: argparse.Namespace) -> None:
    host = _host()
    plan = host.apply()
    for text in (*plan.expired, *plan.problems, *host.distrusted):
        _complain(text)
    if plan.paused:
        _say(plan.paused)
    elif not plan.active:
        _say("no interface is filtered: there is nothing to activate")
    else:
        _say(f"{'active now' if plan.changed else 'already active'}: {plan.digest_after}")
        _report_feeds(host)


def _report_feeds(host: Host) -> None:
    """Report feeds that are left out. The other lists are active, so this is not a failure."""
    for name, why in sorted(host.feeds().broken.items()):
        _complain(f"{name} is left out: {why}")


def _rollback(dummy: argparse.Namespace) -> None:
    done = _host().roll_back(due=True)
    change = done.change
    if not done.changed or change is None:
        _say("there is no change to revert")
    elif change.status == "confirmed":
        _say(f"the change of {change.owner} was confirmed")
    else:
        _say(f"the change of {change.owner} was reverted: the state confirmed before it is active")


def _verify(dummy: argparse.Namespace) -> None:
    problems = _host().verify()
    if problems:
        raise PacketwatchError("; ".join(problems))
    _say("the kernel has what is confirmed")


def _heal(dummy: argparse.Namespace) -> None:
    from packetwatch_core._host.heal import heal

    done = heal(_host())
    if done.left:
        raise PacketwatchError("; ".join(done.left))
    if done.paused:
        _say(f"nothing done: {done.paused}")
    elif done.found:
        _say(f"repaired: {'; '.join(done.found)}")
    else:
        _say("the kernel has what is confirmed")


def _edit(dummy: argparse.Namespace) -> None:
    from .control import edit

    # The client has got the error; the unit has not failed.
    edit.main()


def _fleet_lists(dummy: argparse.Namespace) -> None:
    from packetwatch_core._network.fleet import permitted_lists

    from .fleet_lists import follow

    values = settings.read(os.environ)
    kinds = permitted_lists(values.fleet, values.fleet_lists)
    follow(_host(), values.fleet_file, kinds, _say, _complain)


def _host() -> Host:
    from packetwatch_core._host.host import Host

    from .run import run

    return Host(run, patience=_PATIENCE)


def _say(message: str) -> None:
    sys.stdout.write(f"packetwatch: {message}\n")


def _complain(message: str) -> None:
    sys.stderr.write(f"packetwatch: {message}\n")


def _fail(status: int, message: str) -> int:
    _complain(message)
    return status


if __name__ == "__main__":
    sys.exit(main())
