# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The protocol of the sockets: one JSON object a line, in both directions.

A request names a ``command`` and its arguments. An answer is any number of ``{"item": ...}`` and
``{"missed": COUNT}``, then one ``{"ok": true, "result": ...}`` or ``{"ok": false, "error": ...}``.
"""

from __future__ import annotations

import json
import typing as t

from packetwatch_core._base.errors import InvalidInput, PacketwatchError
from packetwatch_core._base.number import MAX_TIME, is_number

MAX_REQUEST = 65536
# Of a request to watch: the events (docs/events.md) that it may name, and how many sources.
ACTIONS = (
    *("connection", "probe", "scan", "scan_end", "would_drop", "would_drop_end"),
    *("ban", "expiry", "lift", "audit", "drift", "repair", "next_program"),
)
MAX_SOURCES = 32
# Rows of each part of `top`.
MAX_ROWS = 50
_MAX_MESSAGE = 10_000
Request = dict[str, t.Any]
Result = dict[str, t.Any]

# Exit statuses, and the kind of error that each stands for.
DONE, FAILED, INPUT, DENIED, NO_AGENT = range(5)
KINDS = {"failed": FAILED, "input": INPUT, "denied": DENIED, "no_agent": NO_AGENT}
_NAMES = {status: kind for kind, status in KINDS.items()}
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


class ControlError(PacketwatchError):
    """A command has failed; `status` is the exit status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: BaseException) -> int:
    """The exit status for an error."""
    if isinstance(error, ControlError):
        return error.status
    if isinstance(error, InvalidInput):
        return INPUT
    return DENIED if isinstance(error, PermissionError) else FAILED


def encode(value: object) -> str:
    """Compact JSON on one line."""
    return in_utf8(_ENCODER.encode(value))


def in_utf8(text: str) -> str:
    """JSON in which half a surrogate pair is escaped: JSON may have one, UTF-8 may not."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def item(value: object) -> str:
    """A line of an answer that is not the last."""
    return f'{{"item":{encode(value)}}}\n'


def done(result: Result) -> str:
    """The last line of the answer to a command that succeeded."""
    return encode({"ok": True, "result": result}) + "\n"


def failed(error: BaseException) -> str:
    """The last line of the answer to a command that failed."""
    kind = _NAMES.get(status_of(error), "failed")
    return encode({"ok": False, "error": {"kind": kind, "message": str(error)}}) + "\n"


def parse_request(line: bytes) -> Request:
    """The request in a line; raises `InvalidInput`."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidInput("the request is not JSON: send one object a line") from None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise InvalidInput('the request names no command: send {"command": "status"}')
    return request


def text_of(request: Request, name: str, default: str | None = None) -> str:
    """An argument that is a text; raises `InvalidInput`."""
    value = request.get(name, default)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is {value!r}: send a text")
    return value


def texts_of(request: Request, name: str) -> list[str]:
    """An argument that is a list of texts."""
    value = request.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidInput(f"{name} is {value!r}: send a list of texts")
    return value


def flag_of(request: Request, name: str) -> bool:
    """An argument that is true or false."""
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is {value!r}: send true or false")
    return value


def seconds_of(request: Request, name: str) -> float | None:
    """An argument that is a number of seconds, or none."""
    value = request.get(name)
    if value is None:
        return None
    if not is_number(value, MAX_TIME):
        raise InvalidInput(f"{name} is {value!r:.80}: send a number of seconds")
    return float(value)


def error_of(answer: dict[str, t.Any]) -> ControlError:
    """The error that an answer contains."""
    found = answer.get("error")
    error = found if isinstance(found, dict) else {}
    kind, message = error.get("kind"), error.get("message")
    if not isinstance(kind, str) or not isinstance(message, str):
        return ControlError("the answer is not understood")
    return ControlError(message[:_MAX_MESSAGE], KINDS.get(kind, FAILED))
