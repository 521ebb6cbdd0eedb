# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Community ID, version 1: a flow's name, which all tools agree on (corelight/community-id-spec)."""

from __future__ import annotations

import binascii
import struct
import typing as t

if t.TYPE_CHECKING:
    from hashlib import sha1
else:
    # hashlib would load OpenSSL, which takes megabytes.
    try:
        from _sha1 import sha1
    except ImportError:
        from hashlib import sha1

TCP = 6
SEED = 0
_TAIL = struct.Struct("!BxHH")
_SEED = SEED.to_bytes(2, "big")


def community_id(
    source: bytes, destination: bytes, source_port: int, destination_port: int, protocol: int = TCP
) -> str:
    """The name of a flow between ports; addresses are 4 or 16 bytes in network byte order."""
    if (destination, destination_port) < (source, source_port):
        source, destination = destination, source
        source_port, destination_port = destination_port, source_port
    tail = _TAIL.pack(protocol, source_port, destination_port)
    digest = sha1(_SEED + source + destination + tail, usedforsecurity=False).digest()
    return "1:" + binascii.b2a_base64(digest, newline=False).decode()
