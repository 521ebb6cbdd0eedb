# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Attaching at boot: with the boot image, even if the files it was compiled from are damaged or lost.

A boot needs neither compiler nor kernel headers for this, parses no text, and takes little memory. All
other attachments go through `Host`. This one goes through it too if the image is not that of confirmed state.
If that fails too, the newest image that there is decides: an older filter is better than none.
"""

from __future__ import annotations

import contextlib
import functools
import typing as t

from .._active import attach
from .._active.images import Images
from .._active.loaded import Loaded
from .._base.clock import read_clock
from .._base.errors import (
    InvalidInput,
    LoadFailed,
    Locked,
    NotDeclared,
    PacketwatchError,
    TooLarge,
    Unreadable,
    Unsupported,
)
from .._base.files import replace_json
from .._change.alarm import Alarm, next_end
from .._change.panic import Flag
from .._change.pending import PENDING, Record
from .._declared.nexts import Next
from .._declared.store import State, Store
from .._dispatcher.place import is_dispatcher
from .._health.status import Status
from .._kernel import netlink
from .._kernel.nexts import Wanted, load_compiled
from .._kernel.pins import Pins, check_bpffs
from .._network import protect
from .._network.devices import check_device
from .._network.snapshot import Snapshot
from .renewal import renew_agent

if t.TYPE_CHECKING:
    from .._active.kept import Kept
    from .._base.paths import Paths
    from .._base.types import Run
    from .._kernel.programs import Program

# What damaged files, a missing compiler or missing headers raise.
_DAMAGE = (InvalidInput, LoadFailed, TooLarge, Unreadable, Unsupported, OSError)


class Filtered(t.NamedTuple):
    """mode: of the interface. reason: why `auto` chose it. problem: why not all is as it was confirmed."""

    mode: str
    reason: str = ""
    problem: str = ""


def filter_interface(run: Run, paths: Paths, interface: str, patience: float) -> Filtered:
    """Filter an interface as confirmed state declares it.

    patience: seconds to wait for another writer before `Locked` is raised.
    """
    boot = _Boot(run, paths, interface, patience)
    kept, problem = boot.find()
    if kept and not problem and boot.can_use(kept):
        return boot.attach(kept)
    try:
        # Imported here: it needs much more memory.
        from .host import Host

        host = Host(run, paths, patience)
        attachment = host.reattach(interface)
        said = [problem, *attachment.problems, *host.distrusted]
        return Filtered(attachment.mode, attachment.reason, "; ".join(filter(None, said)))
    except _DAMAGE as error:
        is_left_out = isinstance(error, NotDeclared) and not boot.has_lost_state()
        if kept is None or interface not in kept.interfaces or is_left_out:
            raise
        done = boot.attach(kept)
        why = f"confirmed state cannot be activated: {error}; the filter of state {kept.number} is active"
        boot.status.failed(why)
        return Filtered(done.mode, done.reason, why)


class _Boot:
    """One attachment at boot."""

    def __init__(self, run: Run, paths: Paths, interface: str, patience: float) -> None:
        self.status = Status(paths.status, paths.ages)
        self._run = run
        self._paths = paths
        self._interface = interface
        self._patience = patience
        self._store = Store(paths.state)
        self._pins = Pins(paths.bpffs)
        self._images = Images(paths.images)

    def find(self) -> tuple[Kept | None, str]:
        """The best image, and why it is not that of the confirmed state."""
        try:
            number: int | None = self._store.number()
        except Unreadable as error:
            return self._images.find(None)[0], str(error)
        return self._images.find(number)

    def has_lost_state(self) -> bool:
        """Whether no state is there although one was confirmed once."""
        return self._store.number() == 0

    def can_use(self, kept: Kept) -> bool:
        """Whether the image decides as the confirmed state would, now and on this interface."""
        if self._interface not in kept.interfaces or self._is_change_pending():
            return False
        with Loaded(self._pins) as loaded:
            if loaded.has_links:
                # A list that has expired since, or a device with a new name: the files decide.
                with loaded.generation() as current:
                    if current.header["lists"] != kept.header["lists"]:
                        return False
                ifindex = check_device(self._interface, netlink.links()).ifindex
                if loaded.held_on(ifindex) or loaded.renamed(kept.interfaces):
                    return False
        clock = read_clock(self._paths.clock)
        if 0 < kept.next_expiry <= clock.passed:
            return False
        if clock.is_trusted and clock.passed < kept.valid_from:
            # The clock was ahead when it was compiled. While nobody knows the time, that is not certain.
            return False
        # Nobody knows whether the entry has expired before the clock is trusted.
        return not (kept.has_expiring_allow and not clock.is_trusted)

    def attach(self, kept: Kept) -> Filtered:
        """Filter the interface with the image."""
        with contextlib.suppress(Unreadable):
            Flag(self._paths.state).refuse()
        snapshot = Snapshot(self._paths.settings, lambda: kept.settings)
        ifindex = check_device(self._interface, snapshot.links).ifindex
        check_bpffs(self._paths.bpffs)
        with self._lock(), Loaded(self._pins) as loaded:
            mode = kept.interfaces[self._interface]
            ours, dispatchers = loaded.program_ids, loaded.dispatchers
            attach.check_free(self._interface, ifindex, mode, ours, dispatchers)
            is_first = not self._pins.loaded()
            reason = self._bring_up(loaded, kept, ifindex, snapshot)
            mode = loaded.mode_on(ifindex)
        if is_first:
            renew_agent(self._run, self._paths.units)
        return Filtered(mode, reason)

    def _bring_up(self, loaded: Loaded, kept: Kept, ifindex: int, snapshot: Snapshot) -> str:
        name = self._interface
        others = {
            key: value for key, value in loaded.owned(kept.interfaces).items() if value != ifindex
        }
        image = kept.image(others | {name: ifindex})
        with loaded.generation() as current:
            is_active = loaded.whole and current.digest == image.digest
            is_active = is_active and current.header["bytecode"] == image.bytecode
        joins = is_dispatcher(kept.interfaces[name])
        is_active = is_active and not (joins and loaded.extension is None)
        reason = ""
        with contextlib.ExitStack() as undo:
            if not is_active:
                undo.callback(loaded.replace(image, lambda: kept.code, extends=joins))
            protect.write(snapshot.protection, self._pins.open_run_maps(protect.MAPS))
            self._fill_nexts(loaded, kept, others | {name: ifindex})
            if loaded.held_on(ifindex) is None:
                reason = loaded.attach(name, ifindex, kept.interfaces[name]).reason
            undo.pop_all()
        with contextlib.suppress(OSError):
            loaded.tidy(kept.interfaces)
        state = State(
            interfaces=kept.interfaces,
            next={key: Next(path=path) for key, path in kept.nexts.items()},
        )
        self.status.booted(loaded, kept.number, state, kept.note, image.digest)
        if kept.known is not None:
            with contextlib.suppress(OSError):
                replace_json(self._paths.tables, kept.known, 0o644)
        with contextlib.suppress(PacketwatchError):
            alarm = Alarm(self._run, self._paths.runtime, self._paths.units)
            alarm.set(next_end(image.next_expiry, kept.note.get("feeds")))
        return reason

    def _fill_nexts(self, loaded: Loaded, kept: Kept, ifindexes: t.Mapping[str, int]) -> None:
        """Put the next programs into their places. What is missing is noted later, and stops no filter."""
        nexts = loaded.nexts()
        if nexts is None or not (kept.nexts or loaded.has_nexts):
            return
        wanted = {
            ifindex: self._next(kept.nexts[name]) if name in kept.nexts else None
            for name, ifindex in ifindexes.items()
        }
        with contextlib.suppress(PacketwatchError, OSError):
            nexts.settle(wanted)

    def _next(self, path: str) -> Wanted:
        key = self._pins.compiled_key(path)
        load = functools.partial(self._load_next, key) if key else None
        return Wanted(path, load, stays=True)

    def _load_next(self, key: str) -> Program:
        """Load a next program from the cache; a boot compiles nothing."""
        # Imported here: few hosts need it, and it needs memory.
        from .._change.programs import compilers

        code = compilers(self._run, self._paths.cache).next.cached_as(key)
        if code is None:
            raise LoadFailed(
                "the compiled next program is missing in the cache: packetwatchctl apply compiles it"
            )
        return load_compiled(code)

    @contextlib.contextmanager
    def _lock(self) -> t.Iterator[None]:
        """Hold the lock of all writers; where its file cannot be used, no other writer can either."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._store.lock(self._patience))
            except Locked:
                raise
            except (PacketwatchError, OSError):
                pass
            yield

    def _is_change_pending(self) -> bool:
        try:
            change = Record(self._paths.pending).read()
        except Unreadable:
            return False
        return change is not None and change.status == PENDING
