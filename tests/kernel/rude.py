# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients of the agent that cost it as much as they can: ``python3 rude.py KIND SOCKET PORT``.

Each takes all connections that it may have, and goes on until it is killed. It prints a line when it has begun.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable

CONNECTIONS = 8
Target = tuple[str, int]


def control(target: Target) -> socket.socket:
    """A connection to the control socket, as soon as the agent takes one."""
    while True:
        found = socket.socket(socket.AF_UNIX)
        found.settimeout(5)
        with contextlib.suppress(OSError):
            found.connect(target[0])
            return found
        found.close()
        time.sleep(0.01)


def scraper(target: Target) -> socket.socket:
    return socket.create_connection(("127.0.0.1", target[1]), 5)


def request(command: str, **arguments: object) -> bytes:
    found = json.dumps({"command": command, **arguments}, separators=(",", ":"))
    assert len(found) < 65536
    return found.encode() + b"\n"


def again(action: Callable[[Target], None], count: int = CONNECTIONS) -> Callable[[Target], None]:
    """Do it without pause, so many times at once."""

    def work(target: Target) -> None:
        while True:
            with contextlib.suppress(OSError):
                action(target)

    def run(target: Target) -> None:
        for dummy in range(count):
            threading.Thread(target=work, args=(target,), daemon=True).start()

    return run


def drain(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def watch(**arguments: object) -> Callable[[Target], None]:
    """Follow, and read everything at once."""

    def follow(target: Target) -> None:
        with control(target) as connection:
            connection.settimeout(None)
            connection.sendall(request("watch", **arguments))
            drain(connection)

    return again(follow)


def watch_unread(target: Target) -> None:
    """Follow everything, and read nothing."""
    held = [control(target) for dummy in range(CONNECTIONS)]
    for connection in held:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.sendall(request("watch"))

    def hold(dummy: object) -> None:
        time.sleep(1e6)

    threading.Thread(target=hold, args=(held,), daemon=True).start()


def watch_and_talk(target: Target) -> None:
    """Follow, and send lines that nobody reads, again and again."""
    with control(target) as connection:
        connection.sendall((request("watch") + b"\n" * 65000)[:65536])
        connection.recv(100)


def repeated(*lines: bytes) -> Callable[[Target], None]:
    """Ask again as soon as there is an answer, without waiting for it to be read."""

    def ask(target: Target) -> None:
        with control(target) as connection:
            while True:
                connection.sendall(b"".join(lines))
                connection.recv(1 << 16)

    return again(ask)


def unread(target: Target) -> None:
    """Ask for long answers, and read none of them."""
    with control(target) as connection:
        connection.sendall(request("bans") * 100)
        time.sleep(1)


def trickle(
    connect: Callable[[Target], socket.socket], start: bytes, byte: bytes
) -> Callable[[Target], None]:
    """Send a request that never ends, a byte each 50 ms, on all connections."""

    def work(target: Target) -> None:
        with connect(target) as connection:
            connection.sendall(start)
            while True:
                connection.sendall(byte)
                time.sleep(0.05)

    return again(work)


def scrape(target: Target) -> None:
    with scraper(target) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        drain(connection)


def scrape_slowly(target: Target) -> None:
    """Ask for a page, and read a byte of it each second."""
    with scraper(target) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        while connection.recv(1):
            time.sleep(1)


def scrape_nothing(target: Target) -> None:
    """Open a connection and say nothing."""
    with scraper(target) as connection:
        connection.recv(1)


def knock(target: Target) -> None:
    """Connect without any right."""
    with control(target) as connection:
        connection.recv(500)


ADDRESSES = [f"10.{n >> 8}.{n & 255}.7" for n in range(15000)]
KINDS: dict[str, Callable[[Target], None]] = {
    "watch, 15,000 actions": watch(actions=["x"] * 15000),
    "watch, one action 9,000 times": watch(actions=["ban"] * 9000),
    "watch, 4,500 sources": watch(sources=ADDRESSES[:4500]),
    "watch, as many filters as it may": watch(
        actions=["connection", "ban"], sources=ADDRESSES[:32]
    ),
    "watch everything": watch(),
    "watch and never read": watch_unread,
    "watch and talk": again(watch_and_talk),
    "top": repeated(request("top", most=50)),
    "bans": repeated(request("bans")),
    "status, why, protect": repeated(
        request("status"), request("why", address="198.18.0.1"), request("protect")
    ),
    "bans, unread": again(unread),
    "half a request": trickle(control, b'{"command":', b" "),
    "nonsense": repeated(b'{"a":[' * 9000 + b"\n"),
    "scrape": again(scrape),
    "scrape, a byte a second": again(scrape_slowly, 40),
    "scrape, half a request": trickle(scraper, b"GET /metrics", b" "),
    "scrape nothing": again(scrape_nothing, 100),
    "knock": again(knock),
}


def main(kind: str, path: str, port: str) -> None:
    KINDS[kind]((path, int(port)))
    print("begun", flush=True)
    selectors.DefaultSelector().select(1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
