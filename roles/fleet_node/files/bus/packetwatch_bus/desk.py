# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of a command: it is checked, and asked of the API in the name of its sender."""

from __future__ import annotations

import json
import time
import typing as t
from urllib.parse import quote

from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput, PacketwatchError
from packetwatch_core._base.number import is_a, is_number
from packetwatch_fleet.bus.interface import Command

from .rest import Reply, Rest

VERSION = 1
# Seconds. Ids are remembered for as long as a command with them can be taken.
MAX_AGE = 30.0
_REMEMBERED = 2 * MAX_AGE
_MAX_IDS = 10_000
_MAX_BODY, _MAX_ID, _MAX_ADDRESS = 4096, 64, 64
_FIELDS = frozenset(("v", "id", "address", "seconds", "reason", "made"))
VERBS = ("ban", "allow", "deny", "remove", "explain")

Result = dict[str, t.Any]


class Refused(PacketwatchError):
    """A command cannot be asked of the API. status: as the API would answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Order(t.NamedTuple):
    """The fields of a command, checked for their form."""

    id: str
    address: str
    seconds: int | None
    reason: str
    made: float


class Desk:
    """tokens: the API's token by account. list: what `allow` and `deny` change."""

    def __init__(self, rest: Rest, tokens: t.Mapping[str, str], list_name: str) -> None:
        self._rest = rest
        self._tokens = tokens
        self._list = list_name
        self._done: dict[tuple[str, str], tuple[float, Result]] = {}
        """When each id of a user came, and the answer, in their order."""

    def handle(self, command: Command) -> Result:
        """Carry a command out, or not; return the answer."""
        shown = ""
        try:
            fields = read_fields(command.body)
            shown = _id_of(fields)
            token = self._token(command)
            order = read_order(fields)
            key = (command.user, order.id)
            if (known := self._known(key)) is not None:
                if command.is_again:
                    return known
                raise Refused(
                    409, f"the id {order.id!r} was used already: send a new one with each command"
                )
            _check_age(order)
            result = self._result(order.id, self._ask(token, command.verb, order))
        except Refused as error:
            return {"v": VERSION, "id": shown, "status": error.status, "error": str(error)}
        self._done[key] = (time.monotonic(), result)
        return result

    def _token(self, command: Command) -> str:
        if not command.user:
            raise Refused(401, "the message has no user_id: send it with the name of your account")
        if command.user not in self._tokens:
            raise Refused(403, f"the account {command.user[:_MAX_ID]!r} may send no commands")
        if command.verb not in VERBS:
            raise Refused(
                400,
                f"the verb {command.verb[:_MAX_ID]!r} is unknown: write one of {', '.join(VERBS)}",
            )
        return self._tokens[command.user]

    def _known(self, key: tuple[str, str]) -> Result | None:
        limit = time.monotonic() - _REMEMBERED
        while self._done and next(iter(self._done.values()))[0] < limit:
            del self._done[next(iter(self._done))]
        if key in self._done:
            return self._done[key][1]
        if len(self._done) >= _MAX_IDS:
            raise Refused(503, f"{_MAX_IDS} commands have come within a minute: send fewer")
        return None

    def _ask(self, token: str, verb: str, order: Order) -> Reply:
        if "/" in order.address and verb not in ("allow", "deny"):
            raise Refused(400, f"{order.address} is a network: {verb} takes one address")
        address = quote(order.address, safe="")
        entry = f"/v1/lists/{self._list}/{verb}/{address}"
        if verb == "ban":
            # Without seconds, the API says what is missing.
            body = {"seconds": order.seconds} if order.seconds is not None else {}
            reason = {"reason": order.reason} if order.reason else {}
            return self._rest.ask(token, "PUT", f"/v1/bans/{address}", body | reason)
        if verb in ("allow", "deny"):
            comment = {"comment": order.reason} if order.reason else {}
            ends = {}
            if order.seconds is not None:
                ends = {"expires": int(order.made) + order.seconds}
            return self._rest.ask(token, "PUT", entry, comment | ends)
        method = "DELETE" if verb == "remove" else "GET"
        return self._rest.ask(token, method, f"/v1/addresses/{address}")

    @staticmethod
    def _result(name: str, reply: Reply) -> Result:
        found: Result = {"v": VERSION, "id": name, "status": reply.status}
        if reply.status >= 400:
            detail = reply.body.get("detail") if isinstance(reply.body, dict) else None
            return found | {"error": str(detail or "the API refuses")}
        if reply.revision:
            found["revision"] = reply.revision
        return found | {"result": reply.body}


def read_fields(body: bytes) -> dict[str, t.Any]:
    if len(body) > _MAX_BODY:
        raise Refused(413, f"the body has {len(body)} bytes: send at most {_MAX_BODY}")
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "the body is not a JSON object")
    return found


def _no_number(name: str) -> t.NoReturn:
    raise ValueError(name)


def _id_of(fields: t.Mapping[str, t.Any]) -> str:
    """The id if it is one, for the answer to a command that is refused; else empty."""
    found = fields.get("id")
    return found if isinstance(found, str) and 0 < len(found) <= _MAX_ID else ""


def read_order(fields: t.Mapping[str, t.Any]) -> Order:
    name = _id_of(fields)
    if not is_a(fields.get("v"), int) or fields["v"] != VERSION:
        raise Refused(400, f"v is {str(fields.get('v'))[:20]}: this is version {VERSION}")
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise Refused(
            400, f"{unknown[0][:40]!r} is unknown: the fields are {', '.join(sorted(_FIELDS))}"
        )
    if not name:
        raise Refused(400, f"id is missing or wrong: write a text of 1 to {_MAX_ID} characters")
    address, seconds = fields.get("address"), fields.get("seconds")
    reason, made = fields.get("reason", ""), fields.get("made")
    if not isinstance(address, str) or not 0 < len(address) <= _MAX_ADDRESS:
        raise Refused(400, "address is missing or wrong: write an address")
    if not is_a(seconds, int) and seconds is not None:
        raise Refused(400, f"seconds is {str(seconds)[:20]}: write a whole number")
    if not isinstance(reason, str):
        raise Refused(400, "reason is wrong: write a text")
    if not is_number(made, 1e11):
        raise Refused(400, "made is missing or wrong: write the seconds since 1970")
    _check_address(address)
    return Order(name, address, seconds, reason, float(made or 0))


def _check_address(address: str) -> None:
    """In a path of the API, another text could be another path."""
    try:
        parse_prefix(address)
    except InvalidInput as error:
        raise Refused(400, str(error)) from None


def _check_age(order: Order) -> None:
    age = time.time() - order.made
    if abs(age) > MAX_AGE:
        when = "old" if age > 0 else "ahead of this node's clock"
        raise Refused(
            408,
            f"the command is {abs(age):.0f} seconds {when}: send it within {MAX_AGE:.0f} seconds, and set the clock",
        )
