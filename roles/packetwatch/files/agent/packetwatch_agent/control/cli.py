# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``packetwatchctl``: the operator's commands, one row of `COMMANDS` each."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
import syslog
import typing as t

from packetwatch_core._bans.facts import name_of
from packetwatch_core._base.address import format_prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput, PacketwatchError
from packetwatch_core._change.panic import Flag
from packetwatch_core._declared.store import State, Store
from packetwatch_core._feeds.spare import read_note
from packetwatch_core._kernel.pins import Paths
from packetwatch_core._network.settings import read_values

from .. import __version__
from ..settings import DEFAULTS
from . import audit, banning, screen, show, wire, words
from .client import EDIT, Connection
from .rights import Peer

if t.TYPE_CHECKING:
    from packetwatch_core._feeds.spare import Note
    from packetwatch_core._host.host import Host

EDIT_SOCKET = "/run/packetwatch-edit.sock"
# Another writer may be compiling, which takes a slow machine a minute.
_PATIENCE = 240.0
_EPILOG = """
exit status: 0 done, and what was asked after is well; 1 failed, or is not well (status, selftest);
2 wrong input; 3 not permitted; 4 the agent does not answer. See packetwatchctl(8).
"""


class Places(t.NamedTuple):
    """Where things are on this host."""

    paths: Paths
    control: str
    edit: str = EDIT_SOCKET

    @classmethod
    def of(cls, environment: t.Mapping[str, str]) -> Places:
        """From the environment, else the agent's settings, else the defaults."""
        paths = Paths()
        values = DEFAULTS | read_values(paths.settings) | dict(environment)
        paths = paths._replace(
            bpffs=values["PW_PINS"],
            state=values["PW_CONFIG_DIR"],
            spared=values["PW_SPARED_FILE"],
        )
        return cls(paths, values["PW_CONTROL_SOCKET"])


class Outcome(t.NamedTuple):
    """What a command gives: for programs, for people, for the shell."""

    result: wire.Result
    lines: list[str]
    status: int = wire.DONE


class Session:
    """One call of the command, by one user."""

    def __init__(self, places: Places, tell: t.Callable[[str], None]) -> None:
        self.places = places
        self.is_root = os.geteuid() == 0
        self._tell = tell
        self._host: Host | None = None

    @property
    def host(self) -> Host:
        """The host library's view, for root."""
        if self._host is None:
            from packetwatch_core._host.host import Host

            from ..run import run

            self._host = Host(run, self.places.paths, patience=_PATIENCE)
        return self._host

    def agent(self) -> Connection:
        """A connection to the agent; raises `ControlError`."""
        return Connection(self.places.control, "is the agent up (systemctl status packetwatch)?")

    def ask(self, command: str, **arguments: t.Any) -> wire.Result:
        with self.agent() as agent:
            return agent.ask(command, **arguments)

    def state(self) -> State:
        """What is declared: anybody may read it."""
        return Store(self.places.paths.state).read_current()[1]

    def note(self) -> Note:
        """What root has noted of feeds; anybody may read that too."""
        return read_note(self.places.paths.spared)

    def as_root(self, request: wire.Request, act: t.Callable[[], wire.Result]) -> wire.Result:
        """Do something without the agent or the one-shot, and leave the audit line ourselves."""
        error: Exception | None = None
        result: wire.Result = {}
        try:
            result = act()
            return result
        except (PacketwatchError, OSError) as problem:
            error = problem
            raise
        finally:
            if request.get("check") is not True:
                peer = Peer(os.getpid(), os.getuid(), frozenset())
                reason = str(request.get("reason") or request.get("comment") or "")
                line = audit.line(
                    socket.gethostname(),
                    peer,
                    request["command"],
                    audit.arguments_of(request),
                    error=error,
                    message=str(result.get("message", "")),
                    reason=reason,
                )
                self._tell(line)


# What each command does


def _status(session: Session, options: argparse.Namespace) -> Outcome:
    from . import truth

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
        result = truth.status_by_agent(session.state(), panic, agent)
    return Outcome(result, show.status(result), wire.FAILED if result["problems"] else wire.DONE)


def _count_lists(state: State) -> dict[str, dict[str, int]]:
    from . import truth

    return truth.list_counts(state)


def _lists(session: Session, options: argparse.Namespace) -> Outcome:
    from packetwatch_core._declared.describe import list_entries

    state = session.state()
    result: wire.Result = dict(_count_lists(state)) | {"notes": []}
    if options.entries:
        result["entries"] = [
            item for item in list_entries(state) if options.owner in (None, item["owner"])
        ]
    if options.owner:
        owners = sorted({*state.allow, *state.deny})
        if options.owner not in owners:
            raise InvalidInput(
                f"there is no list {options.owner!r}: there are {', '.join(owners) or 'none'}"
            )
        for kind in ("allow", "deny"):
            result[kind] = {o: n for o, n in result[kind].items() if o == options.owner}
    result["live"] = None
    if session.is_root:
        from packetwatch_core._active.lists import is_current

        from . import truth

        areas, dummy = truth.live_areas(session.host)
        result["live"] = areas is not None and is_current(areas, state)
        if areas is None:
            result["notes"].append("no interface is filtered, so none of it is live")
        elif not result["live"]:
            result["notes"].append("the kernel has other lists: packetwatchctl apply")
    else:
        result["notes"].append("this is what is declared; what the kernel has, only root can read")
    return Outcome(result, show.lists(result))


def _edit(session: Session, options: argparse.Namespace) -> Outcome:
    request: wire.Request = {"command": options.name, "check": options.check}
    request["force"] = options.force
    if options.name not in ("apply", "confirm", "rollback"):
        request["addresses"] = [_canonical(address) for address in options.addresses]
    if options.name in ("allow", "deny"):
        request["comment"] = options.comment
        request["expires"] = words.time_from(options.expires) if options.expires else None
    if options.name == "remove":
        request["list"] = options.list
    if options.name in ("confirm", "rollback"):
        request["token"] = options.token
    if session.is_root:
        from . import edits

        host = session.host
        result = session.as_root(request, lambda: edits.perform(host, request))
    else:
        remedy = (
            "be root or a member of the group packetwatch-admin, and see that "
            "packetwatch-edit.socket is started"
        )
        with Connection(session.places.edit, remedy, EDIT) as connection:
            result = connection.ask(**request)
    return Outcome(result, show.change(result))


def _canonical(address: str) -> str:
    return format_prefix(parse_prefix(address))


def _ban(session: Session, options: argparse.Namespace) -> Outcome:
    request: wire.Request = {
        "command": options.name,
        "address": _canonical(options.address),
        "reason": options.reason or None,
    }
    if options.name == "ban" and options.duration:
        request["duration"] = words.seconds_from(options.duration)
    try:
        with session.agent() as agent:
            result = agent.ask(**request)
    except wire.ControlError as error:
        if error.status != wire.NO_AGENT or not session.is_root:
            raise
        result = session.as_root(request, lambda: _ban_as_root(session, request))
        result["notes"] = ["the agent does not answer: the kernel was told directly"]
    if options.name == "ban":
        result["notes"] = result.get("notes", []) + _without_effect(session, request["address"])
    return Outcome(result, show.change(result))


def _ban_as_root(session: Session, request: wire.Request) -> wire.Result:
    from . import truth

    bans = truth.bans_of(session.host)
    if request["command"] == "ban":
        return banning.impose(bans, request["address"], request.get("duration"))
    return banning.lift(bans, request["address"])


def _without_effect(session: Session, address: str) -> list[str]:
    """That a list decides anyway."""
    from . import why

    try:
        found = why.declared(session.state(), parse_prefix(address), session.note())
    except PacketwatchError:
        return []
    if found["verdict"] == "allow":
        owners = ", ".join(repr(item["owner"]) for item in found["entries"])
        return [f"it is on an allow list ({owners}), so the ban hits nothing"]
    return []


def _bans(session: Session, options: argparse.Namespace) -> Outcome:
    within = parse_prefix(options.within) if options.within else None
    if session.is_root:
        from . import truth

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


def _protect(session: Session, options: argparse.Namespace) -> Outcome:
    if session.is_root:
        from . import truth

        items = truth.protected_of(session.host)
    else:
        with session.agent() as agent:
            items = list(agent.items("protect"))
    items.sort(key=lambda item: (item["reason"], parse_prefix(item["prefix"])))
    result = {"protected": items}
    return Outcome(result, show.protect(result))


def _why(session: Session, options: argparse.Namespace) -> Outcome:
    from . import why

    prefix = parse_prefix(options.address)
    lists = why.declared(session.state(), prefix, session.note())
    bans: wire.Result | None = None
    on_single = prefix.is_host or (prefix.family == 6 and prefix.length == 64)
    if not session.is_root:
        bans = session.ask("why", address=format_prefix(prefix)) if on_single else None
        result = why.explain(prefix, lists, None, bans, None)
        return Outcome(result, show.why(result))
    from . import truth

    areas, interfaces = truth.live_areas(session.host)
    in_kernel = None if areas is None else why.live(areas.tables(), prefix)
    if on_single and areas is not None:
        bans = banning.why(truth.bans_of(session.host), format_prefix(prefix), name_of)
    result = why.explain(prefix, lists, in_kernel, bans, interfaces)
    return Outcome(result, show.why(result))


def _top(session: Session, options: argparse.Namespace) -> Outcome | None:
    with session.agent() as agent:

        def ask() -> wire.Result:
            return agent.ask("top", most=options.most)

        if options.json or options.once or not sys.stdout.isatty():
            result = ask()
            return Outcome(result, screen.page(result))
        try:
            screen.run(ask, _write, options.interval, lambda: shutil.get_terminal_size().lines)
        except KeyboardInterrupt:
            pass
    return None


def _watch(session: Session, options: argparse.Namespace) -> Outcome | None:
    sources = [_canonical(address) for address in options.source]
    with session.agent() as agent:
        agent.send("watch", actions=options.action, sources=sources)
        left = options.count
        try:
            while left is None or left > 0:
                answer = agent.receive()
                agent.wait(None)
                if answer.get("ok") is False:
                    raise wire.error_of(answer)
                if "missed" in answer:
                    sys.stderr.write(f"packetwatchctl: {answer['missed']} lines were missed\n")
                line = answer.get("item")
                if isinstance(line, dict):
                    _write((wire.encode(line) if options.json else show.event(line)) + "\n")
                    left = None if left is None else left - 1
        except KeyboardInterrupt:
            pass
    return None


def _selftest(session: Session, options: argparse.Namespace) -> Outcome:
    if not session.is_root:
        raise wire.ControlError("not permitted: only root may run a program", wire.DENIED)
    from .selftest.drill import Drill

    drill = Drill(session.host, session.agent, options.interface, options.family)

    def act() -> wire.Result:
        result = drill.run()
        state = "all stages are green" if result["passed"] else "a stage is red"
        return result | {"message": f"{state}; {result['source'] or 'no source'}"}

    result = session.as_root({"command": "selftest"}, act)
    return Outcome(result, show.selftest(result), wire.DONE if result["passed"] else wire.FAILED)


# What each command is called with

Parser = argparse.ArgumentParser


def _no_arguments(parser: Parser) -> None:
    """None beside those that all commands have."""


def _lists_arguments(parser: Parser) -> None:
    parser.add_argument("owner", nargs="?", metavar="OWNER", help="only this drop-in, as ansible")
    parser.add_argument("--entries", action="store_true", help="each entry")


def _end_arguments(parser: Parser) -> None:
    parser.add_argument("token", nargs="?", default="", help="of the change; none: whosever it is")
    parser.set_defaults(check=False, force=False)


def _apply_arguments(parser: Parser) -> None:
    parser.add_argument("--check", action="store_true", help="only say what would change")
    parser.add_argument("--force", action="store_true", help="deny protected addresses too")


def _put_arguments(parser: Parser) -> None:
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS", help="address or prefix")
    parser.add_argument("--comment", metavar="TEXT", help="why")
    parser.add_argument("--expires", metavar="TIME", help="2027-01-01T00:00:00Z, or 12h from now")
    _apply_arguments(parser)


def _remove_arguments(parser: Parser) -> None:
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS", help="address or prefix")
    parser.add_argument("--list", choices=("allow", "deny"), help="only off this one")
    _apply_arguments(parser)


def _ban_arguments(parser: Parser) -> None:
    _unban_arguments(parser)
    parser.add_argument("--for", dest="duration", metavar="TIME", help="10m, 2d; else until lifted")


def _unban_arguments(parser: Parser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="address or IPv6 /64")
    parser.add_argument("--reason", metavar="TEXT", help="for the audit line")


def _bans_arguments(parser: Parser) -> None:
    parser.add_argument("within", nargs="?", metavar="ADDRESS", help="only those in this prefix")


def _why_arguments(parser: Parser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="address or prefix")


def _top_arguments(parser: Parser) -> None:
    parser.add_argument("--once", action="store_true", help="one page, without control characters")
    parser.add_argument("--interval", type=_interval, default=2.0, metavar="SECONDS")
    parser.add_argument("--most", type=int, default=10, metavar="COUNT", help="rows of each part")


def _interval(text: str) -> float:
    seconds = float(text)
    if not 0.2 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds from 0.2 to 3600")
    return seconds


def _watch_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--action", action="append", default=[], type=_action, metavar="ACTION", help="as ban, scan"
    )
    parser.add_argument("--source", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--count", type=int, metavar="LINES", help="end after so many")


def _action(text: str) -> str:
    if not (text.isascii() and text.replace("_", "").isalpha()):
        raise argparse.ArgumentTypeError(f"{text!r}: write an event.action, such as ban")
    return text


def _selftest_arguments(parser: Parser) -> None:
    parser.add_argument("--interface", metavar="NAME", help="else the first that enforces")
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, default=4)
    family.add_argument("-6", dest="family", action="store_const", const=6)


class Command(t.NamedTuple):
    """A row of the table."""

    summary: str
    arguments: t.Callable[[Parser], None]
    run: t.Callable[[Session, argparse.Namespace], Outcome | None]


COMMANDS = {
    "status": Command("what is filtered, and what is wrong", _no_arguments, _status),
    "lists": Command("what is declared, by owner", _lists_arguments, _lists),
    "allow": Command("put prefixes on the allow list", _put_arguments, _edit),
    "deny": Command("put prefixes on the deny list", _put_arguments, _edit),
    "remove": Command("take prefixes off the lists again", _remove_arguments, _edit),
    "apply": Command("let hand edits of the lists go live", _apply_arguments, _edit),
    "confirm": Command("let the change that is pending stay", _end_arguments, _edit),
    "rollback": Command("take back the change that is pending", _end_arguments, _edit),
    "ban": Command("ban a source", _ban_arguments, _ban),
    "unban": Command("lift all bans of a source", _unban_arguments, _ban),
    "bans": Command("who is banned, and for how long", _bans_arguments, _bans),
    "protect": Command("who is never banned, and why", _no_arguments, _protect),
    "top": Command("talkers, scanners and drops, live", _top_arguments, _top),
    "watch": Command("events as they come", _watch_arguments, _watch),
    "why": Command("explain the verdict on an address", _why_arguments, _why),
    "selftest": Command("a fire drill on the live filter", _selftest_arguments, _selftest),
}


def parser() -> Parser:
    """The whole command line."""
    found = Parser(
        prog="packetwatchctl",
        description="Look at the packet filter of this host, and change it.",
        epilog=_EPILOG,
    )
    found.add_argument("--version", action="version", version=__version__)
    commands = found.add_subparsers(dest="name", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        one = commands.add_parser(
            name, help=command.summary, description=command.summary, epilog=_EPILOG
        )
        one.add_argument("--json", action="store_true", help="for programs")
        command.arguments(one)
    return found


def main(
    arguments: t.Sequence[str] | None = None,
    places: Places | None = None,
    tell: t.Callable[[str], None] | None = None,
) -> int:
    """Run one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        session = Session(places or Places.of(os.environ), tell or _to_journal)
        outcome = COMMANDS[options.name].run(session, options)
        if outcome is None:
            return wire.DONE
        _write(
            wire.encode(outcome.result) + "\n"
            if options.json
            else "".join(f"{line}\n" for line in outcome.lines)
        )
        return outcome.status
    except BrokenPipeError:
        # Whoever read has had enough; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return wire.DONE
    except KeyboardInterrupt:
        return 130
    except (PacketwatchError, OSError) as error:
        sys.stderr.write(f"packetwatchctl: {words.printable(str(error))}\n")
        if options.json:
            _write(wire.failed(error))
        return wire.status_of(error)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _to_journal(line: str) -> None:
    syslog.openlog("packetwatchctl", 0, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_NOTICE, line)
    syslog.closelog()
