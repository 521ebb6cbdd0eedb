# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands that change the lists, and that end a pending change."""

from __future__ import annotations

from .. import show, wire, words
from ..client import Connection
from .session import Command, Options, Outcome, Parser, Session, canonical


def _apply_arguments(parser: Parser) -> None:
    parser.add_argument("--check", action="store_true", help="only say what would change")
    parser.add_argument("--force", action="store_true", help="deny protected addresses too")


def _apply(session: Session, options: Options) -> Outcome:
    return _edit(session, options, {})


def _put_arguments(parser: Parser) -> None:
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS", help="address or prefix")
    parser.add_argument("--comment", metavar="TEXT", help="why")
    parser.add_argument("--expires", metavar="TIME", help="2027-01-01T00:00:00Z, or 12h from now")
    _apply_arguments(parser)


def _put(session: Session, options: Options) -> Outcome:
    request = {
        "addresses": [canonical(address) for address in options.addresses],
        "comment": options.comment,
        "expires": None if options.expires is None else words.time_from(options.expires),
    }
    return _edit(session, options, request)


def _remove_arguments(parser: Parser) -> None:
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS", help="address or prefix")
    parser.add_argument("--list", choices=("allow", "deny"), help="only off this one")
    _apply_arguments(parser)


def _remove(session: Session, options: Options) -> Outcome:
    addresses = [canonical(address) for address in options.addresses]
    return _edit(session, options, {"addresses": addresses, "list": options.list})


def _end_arguments(parser: Parser) -> None:
    parser.add_argument(
        "token", nargs="?", default="", help="of the change; without it, any owner's change"
    )
    parser.set_defaults(check=False, force=False)


def _end(session: Session, options: Options) -> Outcome:
    return _edit(session, options, {"token": options.token})


def _edit(session: Session, options: Options, arguments: wire.Request) -> Outcome:
    """Root edits; for an administrator, the one-shot of packetwatch-edit.socket does."""
    common = {"command": options.name, "check": options.check, "force": options.force}
    request = common | arguments
    if session.is_root:
        from .. import edits

        host = session.host
        result = session.as_root(request, lambda: edits.perform(host, request))
    else:
        remedy = (
            "be root or a member of the group packetwatch-admin, and see that "
            "packetwatch-edit.socket is started"
        )
        with Connection.for_edit(session.places.edit, remedy) as connection:
            result = connection.ask(**request)
    return Outcome(result, show.change(result))


COMMANDS = {
    "allow": Command("put prefixes on the allow list", _put_arguments, _put),
    "deny": Command("put prefixes on the deny list", _put_arguments, _put),
    "remove": Command("take prefixes off the lists again", _remove_arguments, _remove),
    "apply": Command("activate hand edits of the lists", _apply_arguments, _apply),
    "confirm": Command("confirm the pending change", _end_arguments, _end),
    "rollback": Command("revert the pending change", _end_arguments, _end),
}
