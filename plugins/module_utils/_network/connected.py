# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether this host has a TCP connection with a source.

The kernel compares the addresses itself, and answers with matching sockets only. Layouts: linux/inet_diag.h.
"""

from __future__ import annotations

import socket
import struct

from .._base.address import Prefix
from .sock_diag import Query, sockets

_ATTRIBUTE = struct.Struct("=HH")
_BYTECODE = 1  # INET_DIAG_REQ_BYTECODE
# inet_diag_bc_op: code, step if the condition holds, step if not.
_OPERATION = struct.Struct("=BBH")
_DESTINATION = 8  # INET_DIAG_BC_D_COND
# inet_diag_hostcond: family, prefix length, port; the address follows.
_CONDITION = struct.Struct("=BBxxi")
_ANY_PORT = -1
# States in which the peer has acknowledged our sequence number, so it receives what we send to its address:
# ESTABLISHED, FIN_WAIT2, TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING. FIN_WAIT1 is not one of them: with TCP Fast
# Open, a service may close a connection before the peer has acknowledged anything.
_STATES = 1 << 1 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 11


def is_connected(source: Prefix) -> bool:
    """Return whether a connection with an address of the prefix exists, or has just ended in this host.

    Connections of other network namespaces are not seen. Raises `Unreadable`.
    """
    family = socket.AF_INET if source.family == 4 else socket.AF_INET6
    # A socket of IPv6 may have an IPv4 peer.
    families = (family, socket.AF_INET6) if source.family == 4 else (family,)
    queries = (
        Query(number, socket.IPPROTO_TCP, _STATES, _filter(family, source)) for number in families
    )
    return any(True for dummy in sockets(queries, "connections", "tcp_diag"))


def _filter(family: int, source: Prefix) -> bytes:
    """The attribute with a program of one operation: the peer's address lies in the prefix."""
    address = source.value.to_bytes(4 if source.family == 4 else 16, "big")
    condition = _CONDITION.pack(family, source.length, _ANY_PORT) + address
    size = _OPERATION.size + len(condition)
    # A step to the program's end accepts a socket, one beyond it refuses it.
    program = _OPERATION.pack(_DESTINATION, size, size + 4) + condition
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(program), _BYTECODE) + program
