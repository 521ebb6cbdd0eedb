# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Frames of AMQP in and out of buffers."""

from __future__ import annotations

import contextlib
import struct

from ..store.interface import Unavailable

_HEADER = struct.Struct(">BHI")
_END = 0xCE
_MAX_FRAME = 1 << 20


class Wire:
    """What a connection of the library takes for its transport."""

    def __init__(self) -> None:
        self.connected = True
        self.out = bytearray(b"AMQP\x00\x00\x09\x01")
        self._received = bytearray()

    def write(self, data: bytes) -> None:
        self.out += data

    def feed(self, data: bytes) -> None:
        self._received += data

    def close(self) -> None:
        self.connected = False

    def having_timeout(self, dummy: float | None) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def read_frame(self) -> tuple[int, int, bytes]:
        """The next frame; raises `TimeoutError` if it is not there yet, `Unavailable` if it is none."""
        if len(self._received) < _HEADER.size:
            raise TimeoutError
        kind, channel, size = _HEADER.unpack_from(self._received)
        if size > _MAX_FRAME:
            raise Unavailable(f"the server sends a frame of {size} bytes")
        end = _HEADER.size + size
        if len(self._received) <= end:
            raise TimeoutError
        payload, last = bytes(self._received[_HEADER.size : end]), self._received[end]
        del self._received[: end + 1]
        if last != _END:
            raise Unavailable("the server sends a frame without an end")
        return kind, channel, payload
