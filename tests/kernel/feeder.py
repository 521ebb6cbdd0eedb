# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes real records to a real ring: a small XDP program copies them out of a test packet."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from packetwatch_core._kernel import abi
from packetwatch_core._kernel.libbpf import Map, call
from packetwatch_core._kernel.programs import Program
from packetwatch_core._kernel.ring import RingBuffer

_XDP = 6
_LOAD_BYTES = 189
_RINGBUF_OUTPUT = 130
_NO_WAKEUP = 1
_PER_PACKET = 16


def _instruction(code: int, dst: int = 0, src: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, 0, imm)


def _copy_record(ring: Map, offset: int, size: int) -> bytes:
    """bpf_xdp_load_bytes(context, offset, stack, size); bpf_ringbuf_output(ring, stack, size)."""
    return b"".join(
        (
            _instruction(0xBF, 1, 6),
            _instruction(0xB7, 2, imm=offset),
            _instruction(0xBF, 3, 10),
            _instruction(0x07, 3, imm=-size),
            _instruction(0xB7, 4, imm=size),
            _instruction(0x85, imm=_LOAD_BYTES),
            _instruction(0x18, 1, 1, ring.fd),
            _instruction(0),
            _instruction(0xBF, 2, 10),
            _instruction(0x07, 2, imm=-size),
            _instruction(0xB7, 3, imm=size),
            _instruction(0xB7, 4, imm=_NO_WAKEUP),
            _instruction(0x85, imm=_RINGBUF_OUTPUT),
        )
    )


class Feeder:
    """Writes records of one size (a multiple of 8) to a ring."""

    def __init__(self, ring: Map, size: int) -> None:
        self._size = size
        self._ring = ring
        self._single = self._load(1)
        self._many = self._load(_PER_PACKET)

    def close(self) -> None:
        self._single.close()
        self._many.close()

    def feed(self, records: Sequence[bytes]) -> None:
        """Write all records; wait while the ring is more than half full."""
        view = RingBuffer(self._ring)
        for at in range(0, len(records), _PER_PACKET):
            self._wait(view)
            batch = records[at : at + _PER_PACKET]
            if len(batch) == _PER_PACKET:
                self._many.test_run(b"".join(batch))
            else:
                for record in batch:
                    self._single.test_run(record)
        view.close()

    def _wait(self, view: RingBuffer) -> None:
        deadline = time.monotonic() + 30
        while view.backlog() > self._ring.info.max_entries // 2:
            assert time.monotonic() < deadline, "nobody reads the ring"
            time.sleep(0.001)

    def _load(self, records: int) -> Program:
        code = _instruction(0xBF, 6, 1)
        for number in range(records):
            code += _copy_record(self._ring, number * self._size, self._size)
        code += _instruction(0xB7, 0, imm=2) + _instruction(0x95)
        return Program(call("bpf_prog_load", _XDP, b"feeder", b"GPL", code, len(code) // 8, None))


def connection(sequence: int, source: bytes = bytes.fromhex("cb007107")) -> bytes:
    """Return the record of an IPv4 connection."""
    return abi.EVENT.pack(
        time=time.monotonic_ns(),
        sequence=sequence,
        ifindex=1,
        type=abi.EVENT_CONNECTION,
        family=4,
        saddr=bytes(10) + b"\xff\xff" + source,
        daddr=bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 1)),
        sport=40000,
        dport=443,
    )[: abi.EVENT_SHORT]
