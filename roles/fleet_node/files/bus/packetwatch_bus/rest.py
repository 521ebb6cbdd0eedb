# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to the API of this node over its Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
import typing as t

# A bus without a sign of life for twice as long as this would be lost.
_PATIENCE = 5.0
_MAX_ANSWER = 1 << 20


class Reply(t.NamedTuple):
    """revision: that of the store, 0 if the answer has none. body: None: there is none."""

    status: int
    revision: int
    body: t.Any


class _Local(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


class Rest:
    """path: of the socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, token: str, method: str, path: str, body: t.Any = None) -> Reply:
        """One request. An API that does not answer gives the status 503, too."""
        connection = _Local(self._path)
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read(_MAX_ANSWER)
            tag = (answer.getheader("ETag") or "").strip('"')
            revision = int(tag) if tag.isascii() and tag.isdigit() else 0
            return Reply(answer.status, revision, json.loads(text) if text else None)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = {"detail": f"the API does not answer: {error or type(error).__name__}"}
            return Reply(503, 0, problem)
        finally:
            connection.close()
