# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Sockets of this host, read from the kernel over sock_diag. Any user may read them.

The kernel lists only the sockets that are asked for, however many others there are. Those of other network
namespaces are not seen. Layouts: linux/inet_diag.h.
"""

from __future__ import annotations

import socket
import struct
import typing as t

from .._base.errors import Unreadable
from .._kernel import netlink

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
# inet_diag_req_v2: family, protocol, states; all else is zero.
_REQUEST = struct.Struct("=BBxxI48x")
# Of inet_diag_msg: the local port and the local address.
_REPLY = struct.Struct("!4xH2x16s")


class Query(t.NamedTuple):
    """states: a bit for each TCP state. attributes: such as a program that selects sockets."""

    family: int
    protocol: int
    states: int
    attributes: bytes = b""


class Local(t.NamedTuple):
    """The local end of a socket. address: 16 bytes; of IPv4, the first four count."""

    family: int
    port: int
    address: bytes


def sockets(queries: t.Iterable[Query], what: str, modules: str) -> t.Iterator[Local]:
    """Yield the sockets; raises `Unreadable`, which says what cannot be read, and which modules the kernel needs."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as channel:
            channel.settimeout(10)
            for family, protocol, states, attributes in queries:
                request = _REQUEST.pack(family, protocol, states) + attributes
                for kind, dummy, body in netlink.dump(
                    channel, _SOCK_DIAG_BY_FAMILY, request, family
                ):
                    if kind == _SOCK_DIAG_BY_FAMILY:
                        yield Local(family, *_REPLY.unpack_from(body))
    except netlink.BROKEN as error:
        raise Unreadable(
            f"cannot read the {what}: {error}; the unit or container must allow AF_NETLINK sockets, and the "
            f"kernel needs the module {modules}"
        ) from error
