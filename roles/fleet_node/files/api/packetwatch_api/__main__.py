# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``packetwatch-api token``: tokens of this node, for root."""

from __future__ import annotations

import argparse
import os
import sys
import time
import typing as t

from packetwatch_core._base.duration import parse_duration
from packetwatch_core._base.errors import InvalidInput, PacketwatchError

from . import tokens
from .settings import FOLDER
from .tokens import DECLARED, MADE, Token

_MAX_DAYS = 3660
_FAILED, _INPUT = 1, 2


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="packetwatch-api", description="Tokens of the fleet's API on this node."
    )
    topics = found.add_subparsers(metavar="token", required=True)
    verbs = topics.add_parser("token", help="make, show and revoke tokens").add_subparsers(
        dest="verb", metavar="add|list|revoke", required=True
    )
    add = verbs.add_parser("add", help="make a token, and print it once")
    add.add_argument("name", metavar="NAME", help="of the person or program; the audit log has it")
    add.add_argument("--role", required=True, choices=tokens.ROLES)
    add.add_argument("--for", dest="duration", metavar="TIME", default="90d", help="90d, 12h")
    verbs.add_parser("list", help="show all tokens; their secrets are not kept")
    revoke = verbs.add_parser("revoke", help="make a token invalid at once")
    revoke.add_argument("name", metavar="NAME")
    return found


def main(arguments: t.Sequence[str] | None = None, folder: str = f"{FOLDER}/tokens") -> int:
    options = parser().parse_args(arguments)
    try:
        declared = tokens.read(os.path.join(folder, DECLARED))
        made = tokens.read(os.path.join(folder, MADE))
        if options.verb == "list":
            _show(declared, made)
        elif options.verb == "add":
            print(_add(folder, declared, made, options))
        else:
            _revoke(folder, declared, made, options.name)
    except (PacketwatchError, OSError) as error:
        sys.stderr.write(f"packetwatch-api: {error}\n")
        return _INPUT if isinstance(error, InvalidInput) else _FAILED
    return 0


def _add(folder: str, declared: list[Token], made: list[Token], options: argparse.Namespace) -> str:
    """Make a token; return its secret."""
    tokens.checked(options.name, options.role)
    for token in (*declared, *made):
        if token.name == options.name and token.is_valid(time.time()):
            raise InvalidInput(
                f"there is a token {options.name}: revoke it first, or choose another name"
            )
    seconds = parse_duration(options.duration, "--for", 1, _MAX_DAYS * 86400.0)
    secret = tokens.new_secret()
    token = Token(
        options.name, options.role, tokens.digest_of(secret), round(time.time() + seconds)
    )
    others = [one for one in made if one.name != options.name]
    tokens.write(os.path.join(folder, MADE), [*others, token])
    return secret


def _revoke(folder: str, declared: list[Token], made: list[Token], name: str) -> None:
    left = [one for one in made if one.name != name]
    if len(left) == len(made):
        if any(one.name == name for one in declared):
            raise InvalidInput(
                f"{name} is of the inventory: remove it from fleet_node_api_tokens there"
            )
        raise InvalidInput(f"there is no token {name}: packetwatch-api token list shows all")
    tokens.write(os.path.join(folder, MADE), left)


def _show(declared: list[Token], made: list[Token]) -> None:
    now = time.time()
    for origin, found in (("inventory", declared), ("command", made)):
        for token in sorted(found, key=lambda one: one.name):
            end = "never" if token.expires is None else _moment(token.expires)
            state = "valid" if token.is_valid(now) else "EXPIRED"
            print(f"{token.name}  {token.role}  {state}  expires {end}  ({origin})")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


if __name__ == "__main__":
    sys.exit(main())
