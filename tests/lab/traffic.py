# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""What stations do to machines: connect, serve, scan. All bounded in number and time."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lab import dial
from lab.errors import LabError
from lab.process import require, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.network import Namespace

# As many as a scan of all well-known ports needs; nothing here is a flood.
MOST_PORTS = 1024
_MOST_ACCEPTED = 1000


class Answer(Enum):
    """What a TCP connection attempt met."""

    OPEN = "open"
    REFUSED = "refused"
    NONE = "no answer"


def connect(station: Namespace, address: str, port: int, *, timeout: float = 5.0) -> Answer:
    """Try one TCP connection to a numeric address and close it again; `timeout` in seconds.

    Raises OSError for anything but success, refusal and silence.
    """
    try:
        dial.connect(str(station.path), address, port, timeout).close()
    except ConnectionRefusedError:
        return Answer.REFUSED
    except TimeoutError:
        return Answer.NONE
    except OSError as error:
        # The neighbour did not answer: everything from there is dropped, ARP included.
        if error.errno == errno.EHOSTUNREACH:
            return Answer.NONE
        raise
    return Answer.OPEN


def banner(station: Namespace, address: str, port: int, *, timeout: float = 10.0) -> bytes:
    """Connect and return the first bytes that the other side sends, at most 256.

    Raises OSError when there is no connection and TimeoutError, after `timeout` seconds, when
    nothing is sent.
    """
    with dial.connect(str(station.path), address, port, timeout) as connection:
        return connection.recv(256)


@contextmanager
def served(station: Namespace, port: int) -> Iterator[list[str]]:
    """Accept TCP connections to a port of a station, and close each at once.

    Yields the list, growing meanwhile, of the addresses that connected.
    """
    listener = dial.socket_in(str(station.path), socket.AF_INET6)
    with listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        listener.listen(64)
        callers: list[str] = []
        thread = threading.Thread(target=_accept, args=(listener, callers), daemon=True)
        thread.start()
        try:
            yield callers
        finally:
            # Wakes the thread from accept(), which closing alone does not.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5.0)


def _accept(listener: socket.socket, callers: list[str]) -> None:
    while len(callers) < _MOST_ACCEPTED:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        connection.close()
        callers.append(str(peer[0]).removeprefix("::ffff:"))


def scan(
    station: Namespace, address: str, ports: Sequence[int], *, timeout: float = 60.0
) -> dict[int, str]:
    """Scan TCP ports with nmap's SYN scan; returns its word for each: open, closed or filtered.

    `timeout` is in seconds; nmap then gives the host up and tells of no port. Raises LabError when
    nmap is missing or fails, and for more than MOST_PORTS.
    """
    require({"nmap": "nmap"})
    if len(ports) > MOST_PORTS:
        raise LabError(f"a scan of {len(ports)} ports; at most {MOST_PORTS}")
    family = ["-6"] if ":" in address else []
    command = [
        *("nmap", *family, "-n", "-Pn", "-sS", "-T4", "--max-retries", "1", "-oX", "-"),
        *("--host-timeout", f"{timeout:g}s", "-p", ",".join(str(port) for port in ports), address),
    ]
    report = run(station.inside(command), timeout=timeout + 15.0).stdout
    return _states(report)


def _states(report: str) -> dict[int, str]:
    """Read nmap's XML: single ports, and ranges where many share a state."""
    states = {}
    for host in ElementTree.fromstring(report).iter("host"):
        for extra in host.iter("extraports"):
            for reason in extra.iter("extrareasons"):
                states.update(
                    dict.fromkeys(_ports(reason.get("ports", "")), extra.get("state", ""))
                )
        for port in host.iter("port"):
            found = port.find("state")
            if found is not None:
                states[int(port.get("portid", "0"))] = found.get("state", "")
    return states


def _ports(ranges: str) -> Iterator[int]:
    """The numbers that `1-21,23` stands for."""
    for part in ranges.split(","):
        first, _dash, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
