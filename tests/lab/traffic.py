# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Traffic of stations: connect to machines, serve them, scan them. All is bounded in number and time."""

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

# Enough for a scan of all well-known ports, and not a flood.
MAX_PORTS = 1024
_MAX_ACCEPTED = 1000


class Answer(Enum):
    """The result of an attempt to open a TCP connection."""

    OPEN = "open"
    REFUSED = "refused"
    NONE = "no answer"


def connect(station: Namespace, address: str, port: int, *, timeout: float = 5.0) -> Answer:
    """Open a TCP connection to a numeric address and close it again. timeout: seconds.

    Raises OSError if the result is not success, refusal or silence.
    """
    try:
        dial.connect(str(station.path), address, port, timeout).close()
    except ConnectionRefusedError:
        return Answer.REFUSED
    except TimeoutError:
        return Answer.NONE
    except OSError as error:
        # The neighbour did not answer ARP: it drops everything from this station.
        if error.errno == errno.EHOSTUNREACH:
            return Answer.NONE
        raise
    return Answer.OPEN


def banner(station: Namespace, address: str, port: int, *, timeout: float = 10.0) -> bytes:
    """Connect and return the first bytes that the peer sends, at most 256.

    Raises OSError if the connection fails, and TimeoutError if nothing is sent for `timeout` seconds.
    """
    with dial.connect(str(station.path), address, port, timeout) as connection:
        return connection.recv(256)


@contextmanager
def served(station: Namespace, port: int) -> Iterator[list[str]]:
    """Accept TCP connections to a port of a station, and close each at once.

    Yields a list to which each caller's address is appended.
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
            # This wakes the thread from accept(); closing the socket does not.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5.0)


def _accept(listener: socket.socket, callers: list[str]) -> None:
    while len(callers) < _MAX_ACCEPTED:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        connection.close()
        callers.append(str(peer[0]).removeprefix("::ffff:"))


def scan(
    station: Namespace, address: str, ports: Sequence[int], *, timeout: float = 60.0
) -> dict[int, str]:
    """Scan TCP ports with nmap's SYN scan; return the state of each: open, closed or filtered.

    timeout: seconds after which nmap gives up and reports no port. Raises LabError if nmap is missing or
    fails, and for more than MAX_PORTS.
    """
    require({"nmap": "nmap"})
    if len(ports) > MAX_PORTS:
        raise LabError(f"a scan of {len(ports)} ports; the maximum is {MAX_PORTS}")
    family = ["-6"] if ":" in address else []
    command = [
        *("nmap", *family, "-n", "-Pn", "-sS", "-T4", "--max-retries", "1", "-oX", "-"),
        *("--host-timeout", f"{timeout:g}s", "-p", ",".join(str(port) for port in ports), address),
    ]
    report = run(station.inside(command), timeout=timeout + 15.0).stdout
    return _states(report)


def _states(report: str) -> dict[int, str]:
    """Read nmap's XML: single ports, and ranges of ports that share a state."""
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
    """The port numbers in a text such as `1-21,23`."""
    for part in ranges.split(","):
        first, _dash, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
