# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Sockets in another network namespace, for this process and for ssh.

A socket belongs to the namespace in which it was made. So a thread enters the namespace, makes the socket
and returns. As a program, this file is an ssh ProxyCommand for `ProxyUseFdpass yes`: it connects inside
the namespace, hands the connection to ssh and exits, so no relay process remains. It imports nothing of
the lab, because a copy of it is in each run directory.

    dial.py /run/netns/NAME ADDRESS PORT
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys

_CLONE_NEWNET = 0x40000000
_SECONDS = 5.0
_libc = ctypes.CDLL(None, use_errno=True)


def socket_in(
    namespace: str, family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0
) -> socket.socket:
    """Make a socket in a network namespace, given by its file, for use from anywhere.

    Raises OSError if there is no such namespace or the process may not enter it.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        away = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(away)
        finally:
            os.close(away)
        try:
            return socket.socket(family, kind, protocol)
        finally:
            _enter(home)
    finally:
        os.close(home)


def connect(namespace: str, address: str, port: int, seconds: float) -> socket.socket:
    """Open a TCP connection from a namespace to a numeric IPv4 or IPv6 address.

    Raises OSError if it is refused, and TimeoutError after `seconds` without an answer.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket_in(namespace, family)
    connection.settimeout(seconds)
    try:
        connection.connect((address, port))
    except BaseException:
        connection.close()
        raise
    return connection


def _enter(handle: int) -> None:
    if _libc.setns(handle, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter network namespace: {os.strerror(number)}")


def _main() -> int:
    namespace, address, port = sys.argv[1:]
    try:
        connection = connect(namespace, address, int(port), _SECONDS)
    except OSError as error:
        print(f"{address} port {port}: {error}", file=sys.stderr)
        return 1
    connection.setblocking(True)
    with connection, socket.socket(fileno=os.dup(1)) as to_ssh:
        socket.send_fds(to_ssh, [b"\0"], [connection.fileno()])
    return 0


if __name__ == "__main__":
    sys.exit(_main())
