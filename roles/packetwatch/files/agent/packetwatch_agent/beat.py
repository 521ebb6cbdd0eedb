# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send one heartbeat: in the agent's process, or over TLS in a process of its own.

TLS would take more memory than the agent's bound leaves, and would keep it. So
``python3 -m packetwatch_agent.beat HOST PORT`` reads the request from standard input and writes an error to
standard output.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

_TIMEOUT = 10.0
_MAX_SECONDS = 30
_MAX_ANSWER = 4096


def send(host: str, port: int, request: bytes) -> None:
    """Send a request without TLS; raises `OSError` or `ValueError` unless the answer is a success."""
    with socket.create_connection((host, port), _TIMEOUT) as connection:
        _exchange(connection, request)


def send_by_tls(host: str, port: int, request: bytes) -> None:
    """Send a request over TLS, in a process that ends within half a minute; raises as `send`."""
    there, here = os.pipe(), os.pipe()
    actions = [
        (os.POSIX_SPAWN_DUP2, there[0], 0),
        (os.POSIX_SPAWN_DUP2, here[1], 1),
    ]
    command = [sys.executable, "-Ps", "-m", __spec__.name, host, str(port)]
    try:
        child = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    finally:
        os.close(there[0])
        os.close(here[1])
    with open(there[1], "wb") as stream, open(here[0], "rb") as answer:
        # It fits into the pipe's buffer, so this does not wait for the child to read.
        stream.write(request)
        stream.close()
        error = answer.read(_MAX_ANSWER).decode(errors="replace").strip()
    status = os.waitpid(child, 0)[1]
    if status:
        raise ValueError(error or f"the process for TLS ended with {status}")


def _exchange(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    answer = b""
    while b"\r\n" not in answer and len(answer) < _MAX_ANSWER:
        data = connection.recv(_MAX_ANSWER)
        if not data:
            break
        answer += data
    words = answer.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError("the answer is not HTTP")
    if not words[1].startswith(b"2"):
        raise ValueError(f"answered {words[1].decode()}")


def _main(host: str, port: int) -> None:
    import ssl

    signal.alarm(_MAX_SECONDS)
    request = sys.stdin.buffer.read()
    context = ssl.create_default_context()
    with (
        socket.create_connection((host, port), _TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        _exchange(connection, request)


if __name__ == "__main__":
    try:
        _main(sys.argv[1], int(sys.argv[2]))
    except (OSError, ValueError) as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(1)
