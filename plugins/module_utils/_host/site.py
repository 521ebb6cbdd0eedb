# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What all operations on a host share: its files and pins, the lock, and the steps of going live."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._active.loaded import Loaded
from .._base.errors import InvalidInput, PacketwatchError
from .._change.alarm import Alarm
from .._change.changes import Changes
from .._change.pending import AT_ONCE
from .._change.planner import Planner
from .._declared.store import Store
from .._feeds.spare import write_note
from .._kernel.bytecode import Compiler
from .._kernel.pins import Paths, Pins
from .._network import protect
from .._network.snapshot import Snapshot

if t.TYPE_CHECKING:
    from .._active.generation import Image
    from .._active.lists import Lists
    from .._base.types import Run
    from .._change.pending import Change, Terms
    from .._change.planner import Draft
    from .._declared.store import State
    from .._health.status import Status
    from .._kernel.libbpf import Map


class Site:
    """This host, as root sees it. patience: seconds to wait for the lock."""

    def __init__(self, run: Run, paths: Paths, patience: float) -> None:
        self.run = run
        self.paths = paths
        self.patience = patience
        self.store = Store(paths.state)
        self.pins = Pins(paths.bpffs)
        self.compiler = Compiler(run, paths.cache)
        self.alarm = Alarm(run, paths.runtime, paths.units)
        self.changes = Changes(run, paths, self.store, self.pins, self.compiler, self._catch_up)

    @property
    def status(self) -> Status:
        # Imported here: operations that only read do not need it.
        from .._health.status import Status

        return Status(self.paths.status)

    def snapshot(self) -> Snapshot:
        """The host as it is from now on: for one operation."""
        return Snapshot(self.paths.settings)

    @contextlib.contextmanager
    def work(
        self,
        snapshot: Snapshot | None = None,
        *,
        check: bool = False,
        while_pending: bool = False,
    ) -> t.Iterator[Work]:
        """An operation: under the lock, with the pending change ended if its time is up.

        Raises `Locked`, and `Pending` unless the operation is one for `while_pending`. check: nothing
        will be changed, so the lock is not taken.
        """
        with contextlib.nullcontext() if check else self.store.lock(self.patience):
            pending = self.changes.pending() if check else self.changes.settle()
            if not while_pending:
                self.changes.refuse_second(pending)
            with self._open(snapshot or self.snapshot(), pending) as work:
                yield work

    @contextlib.contextmanager
    def reporting(self, *, by_hand: bool = False) -> t.Iterator[None]:
        """Report to the agent if confirmed state cannot be activated.

        by_hand: an edit by hand that is refused is no failure of the host.
        """
        try:
            yield
        except (PacketwatchError, OSError) as error:
            if not (by_hand and isinstance(error, InvalidInput)):
                self.status.failed()
            raise

    def quiet(self) -> None:
        """Nothing is filtered any more: there is no expiry to wait for and nothing to report."""
        self.alarm.set(0)
        self.status.clear()

    def renew_agent(self) -> None:
        """Restart a running agent: it sees the maps through a mount that was made when it started."""
        if os.path.exists(os.path.join(self.paths.units, "packetwatch.service")):
            # The filter works whether this does or not.
            self.run(["systemctl", "--no-block", "try-restart", "packetwatch.service"], None)

    @contextlib.contextmanager
    def _open(self, snapshot: Snapshot, pending: Change | None) -> t.Iterator[Work]:
        with Loaded(self.pins) as loaded:
            planner = Planner(self.paths, self.store, self.compiler, loaded, snapshot)
            yield Work(self, loaded, planner, pending)

    def _catch_up(self) -> None:
        """Do what had to wait while a change was pending: entries may have expired."""
        with (
            contextlib.suppress(PacketwatchError, OSError),
            self._open(self.snapshot(), None) as work,
        ):
            if work.loaded.active:
                work.carry_out(work.planner.draft(None), AT_ONCE)
            else:
                self.status.clear()


class Work(t.NamedTuple):
    """One operation: what is loaded, its planner, and the change that is pending meanwhile."""

    site: Site
    loaded: Loaded
    planner: Planner
    pending: t.Optional[Change]

    def carry_out(self, draft: Draft, terms: Terms) -> Change | None:
        """Activate a draft and declare its state; all of it is undone if a step fails.

        Returns the change that waits to be confirmed, if one does.
        """
        declared = draft.state if draft.declares else None
        with self.site.changes.around(self.loaded, declared, terms, draft.met) as (undo, change):
            if self.loaded.active:
                self.write_protection()
            if self.loaded.active and draft.renews:
                undo.callback(self.loaded.replace(draft.image, draft.bytecode))
        self.report(draft.state, draft.image, draft.lists, change)
        if self.loaded.active:
            self.wake_at(draft.image.next_expiry, change)
        return change

    def write_protection(self) -> None:
        """Bring the maps of protected sources in line with the snapshot."""
        protect.write(self.planner.snapshot.protection, self.protection_maps())

    def protection_maps(self) -> dict[str, Map]:
        return self.site.pins.open_run_maps(("hosts", "nets", "local"))

    def report(
        self, state: State, image: Image, lists: Lists | None, change: Change | None
    ) -> None:
        """Note what is active now, for the agent. The change has happened even if this fails."""
        with contextlib.suppress(PacketwatchError, OSError):
            number = change.number if change else self.site.store.number()
            if lists:
                write_note(self.site.paths.spared, lists.note)
            self.site.status.applied(self.loaded, number, state, image, lists)

    def wake_at(self, moment: int, change: Change | None) -> None:
        """Set the timer for the next entry that expires; a pending change is reverted if that fails."""
        try:
            self.site.alarm.set(moment)
        except PacketwatchError:
            if change:
                self.site.changes.revert(change)
            raise
