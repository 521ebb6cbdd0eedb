# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A flood into a veth pair, sent by a child process, and what receives the packets that pass.

For a filter in native mode the packets are the frames of a BPF_PROG_TEST_RUN whose program sends
them out of the peer's device: hundreds of thousands a second, which meet the filter like a driver's
packets. A filter in generic mode gets them from a packet socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator

from kernel.hosting import Site, packet, wait

from packetwatch_core._kernel.libbpf import call
from packetwatch_core._kernel.programs import Program, XdpContext, _TestRunOpts, attached

_LIVE_FRAMES = 1 << 1
_BATCH = 64
_AT_ONCE = 4096
_ETH_P_IP = 0x0800
_PACKET_OUTGOING = 4


class Flood:
    """Sends packets from one source without end, until `stop` or until the time is up.

    pause: seconds between two bursts, for tests that need the processor themselves.
    """

    def __init__(
        self,
        site: Site,
        source: str,
        interface: str = "pw0",
        seconds: float = 900,
        pause: float = 0,
    ) -> None:
        self._site = site
        self._pause = pause
        self._start = sum(site.packets().values())
        self.native = attached(socket.if_nametoindex(interface)).mode == "native"
        self._child = os.fork()
        if not self._child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            status = 1
            with contextlib.suppress(BaseException):
                self._send(source, f"peer-{interface}", seconds)
                status = 0
            os._exit(status)

    def seen(self) -> int:
        """Return how many packets have met the filter since the start."""
        return sum(self._site.packets().values()) - self._start

    def wait_more(self, count: int) -> None:
        """Wait until `count` more packets have met the filter."""
        goal = self.seen() + count
        wait(lambda: self.seen() >= goal)

    def stop(self) -> None:
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            dummy, status = os.waitpid(self._child, 0)
            self._child = 0
            assert os.WIFSIGNALED(status), "the flood ended by itself"

    def _send(self, source: str, device: str, seconds: float) -> None:
        """Send packets out of a device of the peer's namespace, in the child process."""
        end = time.monotonic() + seconds
        with self._site.wire.peer.entered():
            some = (_frames if self.native else _socket)(device, packet(source))
            while time.monotonic() < end and os.getppid() != 1:
                some()
                time.sleep(self._pause)


@contextlib.contextmanager
def flooded(site: Site, source: str, interface: str = "pw0", pause: float = 0) -> Iterator[Flood]:
    flood = Flood(site, source, interface, pause=pause)
    try:
        flood.wait_more(1000)
        yield flood
        flood.wait_more(1000)
    finally:
        flood.stop()


class Tap:
    """Counts the packets of a source that pass the filter on an interface."""

    def __init__(self, source: str, interface: str = "pw0") -> None:
        self._source = socket.inet_aton(source)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind((interface, _ETH_P_IP))

    def leaked(self, patience: float = 0.05) -> int:
        """Return how many have passed since the last call."""
        count = 0
        while select.select([self._socket], [], [], patience)[0]:
            frame, address = self._socket.recvfrom(2048)
            if frame[26:30] == self._source and address[2] != _PACKET_OUTGOING:
                count += 1
        return count

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def tapped(source: str, interface: str = "pw0") -> Iterator[Tap]:
    tap = Tap(source, interface)
    try:
        yield tap
    finally:
        tap.close()


def send(site: Site, source: str, count: int, interface: str = "pw0") -> None:
    """Send packets from the peer, and wait until the filter has seen them."""
    before = sum(site.packets().values())
    with site.wire.peer.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as device:
        device.bind((f"peer-{interface}", _ETH_P_IP))
        for dummy in range(count):
            device.send(packet(source))
    wait(lambda: sum(site.packets().values()) >= before + count)


def _socket(device: str, frame: bytes) -> Callable[[], None]:
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind((device, _ETH_P_IP))

    def some() -> None:
        for dummy in range(_BATCH):
            with contextlib.suppress(OSError):
                sender.send(frame)

    return some


def _frames(device: str, frame: bytes) -> Callable[[], None]:
    program = _redirect(socket.if_nametoindex(device))
    context = XdpContext(data_end=len(frame))
    opts = _TestRunOpts(sz=ctypes.sizeof(_TestRunOpts), repeat=_AT_ONCE)
    opts.data_in, opts.data_size_in = frame, len(frame)
    opts.ctx_in, opts.ctx_size_in = ctypes.addressof(context), ctypes.sizeof(context)
    opts.flags, opts.batch_size = _LIVE_FRAMES, _BATCH

    def some() -> None:
        # The options hold only the addresses of the frame and the context: keep both alive.
        dummy = frame, context
        call("bpf_prog_test_run_opts", program.fd, ctypes.byref(opts), what="flood")

    return some


def _redirect(index: int) -> Program:
    """return bpf_redirect(index, 0)"""
    code = (
        struct.pack("=BBhi", 0xB7, 1, 0, index)
        + struct.pack("=BBhi", 0xB7, 2, 0, 0)
        + struct.pack("=BBhi", 0x85, 0, 0, 23)
        + struct.pack("=BBhi", 0x95, 0, 0, 0)
    )
    return Program.load(code, "flood")
