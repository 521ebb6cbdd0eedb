# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real program in a network namespace, and what tests do with it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kernel.hosting import Namespace, ip, run

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._bans.bans import Ban, Bans
from packetwatch_core._base.paths import Paths
from packetwatch_core._declared import edits
from packetwatch_core._declared.policy import DEFAULT, keys_from_options
from packetwatch_core._declared.store import State
from packetwatch_core._host.host import Host
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.counters import packets, read_counters
from packetwatch_core._kernel.first_ports import Firsts
from packetwatch_core._kernel.libbpf import Map, library
from packetwatch_core._kernel.pins import Pins, specs
from packetwatch_core._kernel.programs import Program, XdpContext, _TestRunOpts
from packetwatch_core._kernel.ring import RingBuffer

POLICY = {"scan_counts": "any", "scan_ports": 3}
PASS, DROP = 2, 1
GRACE = 30
PORTS = 65536
CLEARED = ("bans", "scan_bans", "overflow", "hosts", "nets", "local", "rates")

_ZERO = bytes(4)


class Runner:
    """BPF_PROG_TEST_RUN with as little overhead as Python allows."""

    def __init__(self, program: Program, ifindex: int) -> None:
        self._context = XdpContext(ingress_ifindex=ifindex)
        self._opts = _TestRunOpts(sz=ctypes.sizeof(_TestRunOpts), repeat=1)
        self._opts.ctx_in = ctypes.addressof(self._context)
        self._opts.ctx_size_in = ctypes.sizeof(self._context)
        self._call = library().bpf_prog_test_run_opts
        self._reference = ctypes.byref(self._opts)
        self._fd = program.fd

    def __call__(self, frame: bytes, linear: int | None = None) -> int:
        """Return the verdict. linear: bytes in the first buffer; fewer than all need Linux 6.18."""
        opts = self._opts
        opts.data_in = frame
        opts.data_size_in = len(frame)
        self._context.data_end = len(frame) if linear is None else linear
        opts.data_size_out = opts.ctx_size_out = 0  # libbpf leaves the last frame's length there
        error = self._call(self._fd, self._reference)
        assert error == 0, os.strerror(-error)
        return int(opts.retval)


class Datapath:
    """The loaded filter, its maps, and the namespaces at both ends of the cable."""

    def __init__(self, host: Namespace, peer: Namespace, paths: Paths) -> None:
        self.host_namespace = host
        self.peer_namespace = peer
        self.paths = paths
        self.host = Host(run, paths)
        self.host.attach("v0", "native")
        self.pins = Pins(paths.bpffs)
        self.maps: dict[str, Map] = {name: Map.open(self.pins.map(name)) for name in specs()}
        self.ifindex = socket.if_nametoindex("v0")
        self.bans = Bans(self.maps)
        self._ring = RingBuffer(self.maps["events"])
        self._firsts = Firsts(self.maps["firsts2"], self.maps["shared"])
        self._sets = mmap.mmap(self.maps["firsts2"].fd, abi.FIRST_SETS * abi.FIRSTS.size)
        self._program: Program | None = None
        self._runner: Runner | None = None

    def close(self) -> None:
        self._forget()
        self._ring.close()
        self._sets.close()
        for opened in self.maps.values():
            opened.close()
        self.host.detach("v0")

    # Settings

    def reset(self) -> None:
        """Declare nothing, and empty all maps."""
        Path(self.paths.settings).write_text("PW_PROTECT_AUTO=0\n")
        for name in CLEARED:
            for key, dummy in self.maps[name].items():
                self.maps[name].delete(key)
        self.forget_hits()
        self.maps["shared"].update(_ZERO, bytes(abi.SHARED.size))
        policy = {DEFAULT: keys_from_options(POLICY)}
        self.host.apply(lambda state: State(policy=policy, interfaces=state.interfaces))
        self._forget()
        self.events()

    def policy(self, **options: Any) -> None:
        """Make `POLICY` with these options the default policy."""
        keys = keys_from_options(POLICY | options)
        self.host.apply(edits.set_policy(None, keys, replace=True))
        self._forget()

    def lists(self, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        """Declare exactly these entries."""
        texts = {"allow": "\n".join(allow), "deny": "\n".join(deny)}
        self.host.apply(edits.set_lists("test", texts, allow_empty=True), force=True)
        self._forget()

    def protect(self, *prefixes: str, auto: bool = False) -> None:
        """Declare what is protected."""
        text = f'PW_PROTECT_AUTO={int(auto)}\nPW_PROTECT="{" ".join(prefixes)}"\n'
        Path(self.paths.settings).write_text(text)
        self.host.apply()

    def peer(self) -> contextlib.AbstractContextManager[None]:
        """Enter the namespace at the other end of the cable."""
        return self.peer_namespace.entered()

    # Packets

    @property
    def program(self) -> Program:
        """Return the program that is attached now."""
        if self._program is None:
            with Loaded(self.pins) as loaded:
                assert loaded.program is not None
                self._program = Program.by_id(loaded.program.info().id)
        return self._program

    @property
    def run(self) -> Runner:
        """Run the program on a frame that comes in on v0, and return its verdict."""
        if self._runner is None:
            self._runner = Runner(self.program, self.ifindex)
        return self._runner

    def fate(self, frame: bytes, linear: int | None = None) -> str:
        """Run one frame; return the one cell in which it counts, which must agree with its verdict.

        linear: as for `Runner`.
        """
        before = self.cells()
        verdict = self.run(frame, linear)
        grown = difference(self.cells(), before)
        assert list(grown.values()) == [1], grown
        name = next(iter(grown))
        assert verdict == (DROP if name.startswith("drop ") else PASS), (name, verdict)
        return name

    def fates(self, *frames: bytes) -> list[str]:
        return [self.fate(frame) for frame in frames]

    def _forget(self) -> None:
        if self._program is not None:
            self._program.close()
        self._program = self._runner = None

    # Observations

    def counters(self) -> dict[str, Any]:
        """All counters, summed over the processors."""
        return read_counters(self.maps["counters4"])

    def cells(self) -> dict[str, int]:
        """Packets by "verdict reason family"."""
        return {
            f"{verdict} {reason} {family}": number
            for verdict, reason, family, number in packets(self.counters())
        }

    def ban_of(self, address: str) -> Ban | None:
        """Return the ban that matches an address."""
        found = self.bans.why(address).bans
        return found[0] if found else None

    def banned(self) -> set[str]:
        """Return all banned sources as text."""
        return {ban.source.text for ban in self.bans.active()}

    def events(self) -> list[dict[str, Any]]:
        """Return the events since the last call, with the length of their records as "size"."""
        found = []
        while records := self._ring.read(4096):
            self._ring.release()
            for record in records:
                fields = abi.EVENT.unpack(record.ljust(abi.EVENT.size, b"\0"))
                found.append(fields | {"size": len(record)})
        return found

    def hits(self) -> int:
        """Return how many ports are remembered, of all sources together."""
        tracks = self.maps["tracks2"].items()
        slots: int = sum(
            slot != 0 for _k, value in tracks for slot in abi.TRACK.unpack(value)["slot"]
        )
        # The ports with which a track began are in both maps.
        twice = sum(len(self._firsts.hits(key)) for key, _value in tracks)
        with memoryview(self._sets) as raw, raw.cast("Q") as words:
            return slots + sum(who != 0 for who in words[0::2]) - twice

    def forget_hits(self) -> None:
        """Forget all ports that sources have hit."""
        self._sets[:] = bytes(len(self._sets))
        for key, _value in self.maps["tracks2"].items():
            self.maps["tracks2"].delete(key)

    def age(self, seconds: float) -> None:
        """Let time pass for all hits: move their times back, at most to boot."""
        back = (
            -(-round(seconds * 1e9) >> abi.TIME_SHIFT) << 32
        )  # whole ticks, and no time too little
        with memoryview(self._sets) as raw, raw.cast("Q") as words:
            for index in range(1, len(words), 2):
                if words[index]:
                    words[index] = max(words[index] - back, words[index] & 0xFFFFFFFF)
        for key, value in self.maps["tracks2"].items():
            slots = abi.TRACK.unpack(value)["slot"]
            older = [max(slot - back, slot & 0xFFFFFFFF) for slot in slots]
            self.maps["tracks2"].update(key, abi.TRACK.pack(slot=older))


def join(device: str, *addresses: str) -> None:
    """Bring a device up with addresses."""
    for address in addresses:
        ip(f"address replace {address} dev {device}" + (" nodad" if ":" in address else ""))
    ip(f"link set {device} up")


@contextlib.contextmanager
def listening(family: int, address: str, port: int, v6only: bool = False) -> Iterator[None]:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        server.bind((address, port))
        server.listen(64)
        yield


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


def reaches(address: str) -> bool:
    """Return whether the host at the address refuses a connection, because nothing listens there."""
    try:
        socket.create_connection((address, 9), 1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def in_step(rounds: int, jobs: Sequence[Callable[[int], None]]) -> None:
    """Run the jobs of each round at the same time, each on its own processor."""
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        progress = memoryview(memory).cast("Q")

        def work(me: int) -> None:
            for number in range(1, rounds + 1):
                progress[me] = number
                while min(progress[: len(jobs)]) < number:
                    os.sched_yield()
                jobs[me](number)

        on_cpus(*(lambda me=me: work(me) for me in range(len(jobs))))
        progress.release()


def difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Return the counters that have grown, and by how much."""
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def on_cpus(*jobs: Callable[[], None], timeout: int = 120) -> None:
    """Run each job in its own process, on its own processor if there are enough."""
    cpus = sorted(os.sched_getaffinity(0))
    children = []
    for number, job in enumerate(jobs):
        child = os.fork()
        if child == 0:
            _be_child(job, cpus[number % len(cpus)], timeout)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert statuses == [0] * len(jobs), statuses


def _be_child(job: Callable[[], None], cpu: int, timeout: int) -> NoReturn:
    status = 1
    try:
        signal.alarm(timeout)
        os.sched_setaffinity(0, {cpu})
        job()
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)
