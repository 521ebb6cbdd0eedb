# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client's end of the fleet's REST API: which fleet, with which token, and one request.

A fleet is a URL, or the name of a file below ``~/.config/packetwatch/fleets`` with the lines ``url``, ``ca`` and
``token``. A token is never an argument: every user of a host sees the arguments of all processes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import stat
import typing as t
import urllib.parse

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import is_label

from . import wire

if t.TYPE_CHECKING:
    import ssl

FOLDER = "~/.config/packetwatch"
_PATIENCE = 20.0
_MAX_ANSWER = 1 << 24
_DENIED, _INPUT = (401, 403), (400, 413, 414, 422)
_AWAY = 503


class Reply(t.NamedTuple):
    """What the API has answered. tag: its ETag."""

    status: int
    body: wire.Result
    tag: str


class Remote:
    """urls: of the nodes, each of which serves alone. token, ca: paths; no ca: the authorities of the system."""

    def __init__(self, urls: t.Sequence[str], token: str, ca: str) -> None:
        self._urls = [_parsed(url) for url in urls]
        self._token = _secret(token)
        self._ca = ca

    @classmethod
    def of(cls, fleet: str, folder: str = FOLDER) -> Remote:
        """The fleet of an option ``--fleet``; raises `InvalidInput`."""
        folder = os.path.expanduser(folder)
        values = {"token": f"{folder}/token"}
        if "://" in fleet:
            values["url"] = fleet
            ca = f"{folder}/ca.pem"
            values["ca"] = ca if os.path.exists(ca) else ""
        else:
            if not is_label(fleet):
                raise InvalidInput(
                    f"--fleet is {fleet!r}: write a URL, or the name of a file in {folder}/fleets"
                )
            values |= _read(f"{folder}/fleets/{fleet}")
        if not values.get("url"):
            raise InvalidInput(f"{folder}/fleets/{fleet} has no url: write url=https://NODE")
        return cls(
            values["url"].split(),
            os.path.expanduser(values["token"]),
            os.path.expanduser(values.get("ca", "")),
        )

    def ask(self, method: str, *words: str, missing: bool = False, **options: t.Any) -> Reply:
        """One request; raises `ControlError`, also with the problem that the API describes.

        words: parts of the path below ``/v1``. missing: whether an answer 404 is an answer. options: ``body`` and
        ``query``.
        """
        path = "/v1/" + "/".join(urllib.parse.quote(word, safe="") for word in words)
        if query := {name: value for name, value in options.get("query", {}).items() if value}:
            path += f"?{urllib.parse.urlencode(query)}"
        problem = wire.ControlError("there is no node", wire.NO_AGENT)
        for url in self._urls:
            try:
                reply = self._send(url, method, path, options.get("body"))
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = wire.ControlError(f"{url.netloc}: {error}", wire.NO_AGENT)
                continue
            if reply.status < 400 or (missing and reply.status == 404):
                return reply
            problem = _problem(url.netloc, reply)
            if reply.status != _AWAY:
                break
        raise problem

    def items(self, name: str) -> t.Iterator[t.Any]:
        """The items of all pages of a long answer."""
        page = None
        while True:
            query = {"limit": 1000, "page": page}
            body = self.ask("GET", name, query=query).body
            yield from body[name]
            page = body["next"]
            if page is None:
                return

    def _send(self, url: urllib.parse.SplitResult, method: str, path: str, body: t.Any) -> Reply:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPSConnection(
            url.hostname or "", url.port or 443, timeout=_PATIENCE, context=self._context()
        )
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(method, url.path.rstrip("/") + path, data, headers)
            answer = connection.getresponse()
            text = answer.read(_MAX_ANSWER)
        try:
            found = json.loads(text) if text else {}
        except RecursionError:
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"the answer is not an object: {text[:80]!r}")
        return Reply(answer.status, found, answer.headers.get("ETag", ""))

    def _context(self) -> ssl.SSLContext:
        import ssl

        return ssl.create_default_context(cafile=self._ca or None)


def _parsed(url: str) -> urllib.parse.SplitResult:
    try:
        found = urllib.parse.urlsplit(url)
        # It raises if the port is not a number.
        dummy = found.port
        rest = found.username or found.query or found.fragment
        if found.scheme == "https" and found.hostname and not rest:
            return found
    except ValueError:
        pass
    raise InvalidInput(f"{url!r} is not the URL of an API: write https://NODE or https://NODE:PORT")


def _read(path: str) -> dict[str, str]:
    """The lines NAME=VALUE of a file; raises `InvalidInput`."""
    found = {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read(65536).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {error}: write it with url=, ca= and token=") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or name.strip() not in ("url", "ca", "token"):
            raise InvalidInput(
                f"{path}:{number}: {line[:80]!r} is not url=, ca= or token=: correct it"
            )
        found[name.strip()] = value.strip()
    return found


def _secret(path: str) -> str:
    """The token in a file that only its owner can read; raises `InvalidInput`."""
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(1024).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path}: {error}: write the token of packetwatch-api token add into it"
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidInput(f"{path} can be read by other users: chmod 600 {path}")
    if not (secret.startswith("pw_") and secret.isprintable()):
        raise InvalidInput(f"{path} has no token: a token begins with pw_")
    return secret


def _problem(node: str, reply: Reply) -> wire.ControlError:
    detail = reply.body.get("detail")
    text = detail[:1000] if isinstance(detail, str) else f"status {reply.status}"
    if reply.status in _DENIED:
        return wire.ControlError(text, wire.DENIED)
    if reply.status in _INPUT:
        return wire.ControlError(text, wire.INPUT)
    if reply.status == _AWAY:
        return wire.ControlError(f"{node}: {text}", wire.NO_AGENT)
    return wire.ControlError(text)
