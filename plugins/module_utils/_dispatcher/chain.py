# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The programs in the dispatcher of an interface: read them, and replace the dispatcher by another one.

This is libxdp's protocol (lib/libxdp/protocol.org in xdp-tools), so that its tools and Packetwatch can change
the same dispatcher: one lock, pins with known names, one exchange that fails if another tool was faster.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import typing as t

from .._base.errors import Foreign, LoadFailed, Unreadable, Unsupported
from .._kernel.libbpf import KernelError, Map, wait_for_running_programs
from .._kernel.programs import (
    F_HAS_FRAGS,
    XDP_GENERIC,
    XDP_NATIVE,
    Program,
    attached,
    exchange,
)
from .member import NAME, RETVAL, Chain, Member

if t.TYPE_CHECKING:
    from .._kernel.programs import Attached
    from .builder import Built

FLAGS = {"native": XDP_NATIVE, "generic": XDP_GENERIC}

_ATTEMPTS = 10
_PATIENCE = 10.0
_PAUSE = 0.01
_MAX_AGE = 60.0
_REPLACED = (errno.EEXIST, errno.ENOENT, errno.EBUSY)


Edit = t.Callable[[tuple[Member, ...]], t.Iterable[Member]]


class Dispatchers:
    """The dispatchers of this host. folder: where libxdp pins them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def read(self, ifindex: int) -> Chain | None:
        """The dispatcher of an interface; None if it has another program, or none."""
        for attempt in range(_ATTEMPTS):
            found = attached(ifindex)
            try:
                return self._read(ifindex, found)
            except FileNotFoundError as error:
                # Another tool has replaced it meanwhile, unless nothing has changed.
                if attached(ifindex) == found and attempt:
                    raise Foreign(
                        f"the dispatcher of interface {ifindex} (program {found.program_id}) has no pins in "
                        f"{self._folder}, so its programs are unknown: they were removed, or a tool with other pins, "
                        "such as bpfman, has attached it; detach it with that tool (else: ip link set dev INTERFACE "
                        "xdp off), then attach the programs again by libxdp (xdp-loader)"
                    ) from error
                time.sleep(_PAUSE)
        raise Unreadable(f"the dispatcher of interface {ifindex} changes all the time: try again")

    def change(self, ifindex: int, edit: Edit, mode: str) -> Chain | None:
        """Replace the programs of an interface by those that `edit` makes of them, in one step.

        Every packet meets all programs before the change, or all programs after it. mode: native or generic,
        if there is no dispatcher yet. Returns the new chain; None if no program is left. Raises
        `KernelError` with the driver's errno if the interface refuses the dispatcher.
        """
        for dummy in range(_ATTEMPTS):
            with self._lock():
                chain = self.read(ifindex)
                before = chain.members if chain else ()
                after = tuple(sorted(edit(before), key=_order))
                if after == before:
                    return chain
                try:
                    self._replace(ifindex, chain, after, chain.mode if chain else mode)
                    self._remove_stale(ifindex)
                    return self.read(ifindex)
                except KernelError as error:
                    found = attached(ifindex).program_id
                    is_same = found == (chain.program_id if chain else 0)
                    if error.errno not in _REPLACED or is_same:
                        raise
            time.sleep(_PAUSE)
        raise LoadFailed(
            f"another tool changes the dispatcher of interface {ifindex} all the time: try again"
        )

    def let_go(self, ifindex: int, name: str) -> None:
        """End the part of a program in dispatchers that cannot be replaced, because their device is not here.

        Without its link, the kernel runs the dispatcher's own function, which passes packets on to the next program.
        """
        present = self._pins(ifindex, attached(ifindex).program_id)
        with self._lock():
            for folder in self._pinned(ifindex):
                if folder != present:
                    _unlink(folder, name)

    def _read(self, ifindex: int, found: Attached) -> Chain | None:
        if not found.program_id:
            return None
        config = _config_of(found.program_id)
        if config is None:
            return None
        dummy, version, count, dummy, *columns = config
        from . import builder

        if version != builder.VERSION:
            raise Unsupported(
                f"interface {ifindex} has a dispatcher of version {version}, and this is for version "
                f"{builder.VERSION}: update the tool that has attached it"
            )
        size = builder.MAX_MEMBERS
        rows = zip(columns[:size], columns[size : 2 * size], columns[2 * size :])
        folder = self._pins(ifindex, found.program_id)
        members = [
            _member(os.path.join(folder, f"prog{at}-prog"), *row)
            for at, row in enumerate(list(rows)[:count])
        ]
        return Chain(ifindex, found.program_id, found.mode, tuple(members))

    def _replace(
        self, ifindex: int, chain: Chain | None, members: tuple[Member, ...], mode: str
    ) -> None:
        with contextlib.ExitStack() as stack:
            former = stack.enter_context(Program.by_id(chain.program_id)) if chain else None
            built = None
            if members:
                from . import builder

                built = builder.build(members)
                stack.callback(built.close)
                folder = self._pins(ifindex, built.program.info().id)
                with contextlib.ExitStack() as undo:
                    undo.callback(_remove, folder)
                    _pin(built, folder)
                    exchange(ifindex, built.program, former, FLAGS.get(mode, 0))
                    undo.pop_all()
            else:
                exchange(ifindex, None, former, FLAGS.get(mode, 0))
        if chain:
            # A packet may still be in the former dispatcher. Without its links, it would skip the programs.
            wait_for_running_programs()
            _remove(self._pins(ifindex, chain.program_id))

    def _remove_stale(self, ifindex: int) -> None:
        """Remove the pins of dispatchers that the interface does not have any more.

        Such pins are left if a dispatcher is detached by another way than libxdp. Another tool may just have
        made those of a dispatcher that it is about to attach, so only old ones are removed.
        """
        present = self._pins(ifindex, attached(ifindex).program_id)
        for path in self._pinned(ifindex):
            is_old = time.time() - os.stat(path).st_mtime > _MAX_AGE
            if path != present and is_old:
                _remove(path)

    def _pinned(self, ifindex: int) -> list[str]:
        """The folders of all dispatchers of an interface, also of former ones."""
        names = os.listdir(self._folder)
        mine = (name for name in names if name.startswith(f"dispatch-{ifindex}-"))
        return [os.path.join(self._folder, name) for name in mine]

    def _pins(self, ifindex: int, program_id: int) -> str:
        return os.path.join(self._folder, f"dispatch-{ifindex}-{program_id}")

    @contextlib.contextmanager
    def _lock(self) -> t.Iterator[None]:
        """Hold libxdp's lock: no other tool reads or changes pins meanwhile."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + _PATIENCE
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise Foreign(
                            f"another tool holds libxdp's lock on {self._folder}; waited {_PATIENCE:g} s "
                            "for it: find it (fuser shows it) and try again"
                        ) from error
                    time.sleep(_PAUSE)
            yield
        finally:
            os.close(folder)


def _order(member: Member) -> tuple[int, bytes, bytes, int]:
    """How libxdp sorts loaded programs (`cmp_xdp_programs`)."""
    return member.priority, member.name.encode(), bytes.fromhex(member.tag), member.loaded


def _config_of(program_id: int) -> tuple[int, ...] | None:
    """The configuration of a dispatcher; None if the program is not one."""
    try:
        with Program.by_id(program_id) as program:
            info = program.info()
        if info.name != NAME or len(info.map_ids) != 1:
            return None
        with Map.by_id(info.map_ids[0]) as constants:
            value = constants.lookup(bytes(constants.info.key_size)) or b""
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise FileNotFoundError(errno.ENOENT, f"program {program_id}") from error
        raise
    from . import builder

    if len(value) < builder.CONFIG.size or value[0] != builder.MAGIC:
        return None
    return builder.CONFIG.unpack_from(value)


def _member(path: str, actions: int, priority: int, flags: int) -> Member:
    try:
        with Program.open(path) as program:
            info = program.info()
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise FileNotFoundError(errno.ENOENT, path) from error
        raise Unreadable(f"cannot open the pin {path}: {error}") from error
    return Member(
        info.id,
        info.name,
        info.tag,
        info.loaded,
        priority,
        actions & ~RETVAL,
        bool(flags & F_HAS_FRAGS),
    )


def _pin(built: Built, folder: str) -> None:
    os.mkdir(folder, 0o700)
    for at, (link, member) in enumerate(zip(built.links, built.members)):
        link.pin(os.path.join(folder, f"prog{at}-link"))
        with Program.by_id(member.id) as program:
            program.pin(os.path.join(folder, f"prog{at}-prog"))


def _unlink(folder: str, name: str) -> None:
    """Remove the pins of the links of a program."""
    for pin in os.listdir(folder):
        at, dummy, kind = pin.partition("-")
        if kind == "prog":
            with Program.open(os.path.join(folder, pin)) as program:
                is_it = program.info().name == name
            if is_it:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, f"{at}-link"))


def _remove(folder: str) -> None:
    """Remove the pins of a dispatcher, as far as they are there."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
