# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cost of one packet, by BPF_PROG_TEST_RUN: processor time of this thread per run."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable

from kernel.hosting import Namespace

from bench import addresses
from bench.objects import Object, Settings
from packetwatch_core._kernel.libbpf import library
from packetwatch_core._kernel.programs import Program, XdpContext, _TestRunOpts

WARM_UP = 20_000


class Run:
    """A program, a frame, and the interface on which it comes in."""

    def __init__(self, program: Program, frame: bytes, ifindex: int, home: Namespace) -> None:
        self._program = program
        self._home = home
        self._frame = frame
        self._context = XdpContext(data_end=len(frame), ingress_ifindex=ifindex)
        self._opts = _TestRunOpts(sz=ctypes.sizeof(_TestRunOpts))
        self._opts.data_in, self._opts.data_size_in = frame, len(frame)
        self._opts.ctx_in = ctypes.addressof(self._context)
        self._opts.ctx_size_in = ctypes.sizeof(self._context)

    def verdict(self) -> int:
        """Return the verdict: XDP_PASS, XDP_DROP ..."""
        with self._home.entered():
            self._call(1)
        return int(self._opts.retval)

    def cost(self, repeat: int, warm_up: int = WARM_UP) -> float:
        """Return the nanoseconds per run."""
        with self._home.entered():
            if warm_up:
                self._call(warm_up)
            started = time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID)
            self._call(repeat)
            return (time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID) - started) / repeat

    def _call(self, repeat: int) -> None:
        self._opts.repeat = repeat
        self._opts.data_size_out = self._opts.ctx_size_out = 0
        error = library().bpf_prog_test_run_opts(self._program.fd, ctypes.byref(self._opts))
        if error:
            raise OSError(-error, os.strerror(-error), "test run")


class Varied:
    """A program that gives every packet another source and calls the program under test."""

    def __init__(self, programs: Object, pages: int = 0) -> None:
        self.program = programs.program("vary")
        self._targets = programs.map("targets")
        self._settings = Settings(programs.map("settings"), addresses.TOPS)
        self._pages = pages
        self._used = 0

    def prepare(self, target: Program, numbers: tuple[int, int], layout: int) -> Callable[[], None]:
        """Return a function that selects the target, and sources with these numbers (first, count)."""
        slot = self._used
        self._used += 1
        self._targets.update(slot.to_bytes(4, "little"), target.fd.to_bytes(4, "little"))
        first, count = numbers
        return lambda: self._settings.set(
            first=first,
            count=count,
            layout=layout,
            target=slot,
            clusters=addresses.CLUSTERS,
            pages=self._pages,
        )
