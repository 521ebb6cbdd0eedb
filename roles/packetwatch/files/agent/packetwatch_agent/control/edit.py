# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m packetwatch_agent edit``: one edit for the client at standard input.

systemd starts it as root for each connection to ``packetwatch-edit.socket``, which only root and the
administrators' group may open. This program checks the client's rights again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import typing as t

from packetwatch_core._base.errors import InvalidInput, PacketwatchError

from . import audit, wire
from .rights import CHANGE, Peer, Rights, peer_of

if t.TYPE_CHECKING:
    from packetwatch_core._host.host import Host

# Seconds until the request must be complete.
PATIENCE = 10.0


def serve(
    connection: socket.socket,
    host: Host,
    rights: Rights,
    log: t.Callable[[str], None],
    patience: float = PATIENCE,
) -> int:
    """Answer one request; give `log` the audit line, and return the exit status."""
    connection.settimeout(patience)
    peer = peer_of(connection)
    request: wire.Request = {"command": "edit"}
    result: wire.Result = {}
    error: Exception | None = None
    try:
        if not rights.permit(peer, CHANGE):
            raise wire.ControlError(rights.explain(CHANGE), wire.DENIED)
        request = wire.parse_request(_line(connection))
        result = _perform(host, request)
    except (PacketwatchError, OSError) as problem:
        error = problem
    _audit(log, peer, request, result, error)
    answer = wire.failed(error) if error else wire.done(result)
    with contextlib.suppress(OSError):
        connection.sendall(answer.encode())
    return wire.status_of(error) if error else wire.DONE


def _perform(host: Host, request: wire.Request) -> wire.Result:
    # Imported here: a client that is refused must not cost the time to load the compiler.
    from . import edits

    return edits.perform(host, request)


def _line(connection: socket.socket) -> bytes:
    data = b""
    while b"\n" not in data:
        if len(data) > wire.MAX_REQUEST:
            raise InvalidInput(
                f"the request is longer than {wire.MAX_REQUEST} bytes: send fewer addresses at once"
            )
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            raise wire.ControlError(
                f"no request within {connection.gettimeout():g} s: send one object on a line"
            ) from None
        if not piece:
            raise InvalidInput(
                f"the request of {len(data)} bytes does not end with a newline: send one object on a line"
            )
        data += piece
    return data.partition(b"\n")[0]


def _audit(
    log: t.Callable[[str], None],
    peer: Peer,
    request: wire.Request,
    result: wire.Result,
    error: Exception | None,
) -> None:
    if request.get("check") is True and not error:
        return
    line = audit.line(
        socket.gethostname(),
        peer,
        request["command"][:64],
        audit.arguments_of(request),
        error=error,
        message=str(result.get("message", "")),
        reason=str(request.get("comment") or "")[:500],
    )
    log(line)


def main() -> int:
    """Serve the socket at standard input."""
    from packetwatch_core._host.host import Host

    from .. import settings
    from ..run import run

    values = settings.read(os.environ)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as connection:
        return serve(
            connection,
            Host(run),
            Rights(values.readers, values.admins),
            lambda line: print(line, file=sys.stderr),
        )
