# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What all operations on a host share: its files and pins, the lock, and the steps of an activation."""

from __future__ import annotations

import contextlib
import typing as t

from .._active.images import Images
from .._active.lists import keep_known
from .._active.loaded import Loaded
from .._base.clock import keep_time, read_clock
from .._base.errors import InvalidInput, PacketwatchError
from .._base.files import read_json
from .._change.alarm import Alarm, next_end
from .._change.changes import Changes
from .._change.pending import AT_ONCE
from .._change.planner import Planner
from .._declared.store import Store
from .._feeds.spare import write_note
from .._kernel.bytecode import Compiler
from .._kernel.pins import Paths, Pins
from .._kernel.programs import attached
from .._network import protect
from .._network.snapshot import Snapshot
from .renewal import renew_agent

if t.TYPE_CHECKING:
    from .._active.generation import Image
    from .._active.lists import Lists
    from .._base.types import Run
    from .._change.links import Links
    from .._change.pending import Change, Terms
    from .._change.planner import Draft
    from .._change.results import Attachment, Plan
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
        self.images = Images(paths.images)
        self.changes = Changes(run, paths, self.store, self.pins, self.compiler, self._catch_up)

    @property
    def status(self) -> Status:
        # Imported here: operations that only read do not need it, and it would cost them memory.
        from .._health.status import Status

        return Status(self.paths.status, self.paths.ages)

    def snapshot(self) -> Snapshot:
        """The host's network, settings and protection: read when asked for, kept for one operation."""
        return Snapshot(self.paths.settings, self.images.last_settings)

    @contextlib.contextmanager
    def work(self, *, check: bool = False, while_pending: bool = False) -> t.Iterator[Work]:
        """Open an operation under the lock; first end the pending change if its time is up.

        Raises `Locked`. Raises `Pending` unless the operation is allowed `while_pending`. check: nothing
        will be changed, so the lock is not taken.
        """
        with contextlib.nullcontext() if check else self.store.lock(self.patience):
            pending = self.changes.pending() if check else self.changes.settle()
            if not while_pending:
                self.changes.refuse_second(pending)
            with self._open(pending) as work:
                yield work

    @contextlib.contextmanager
    def reporting(self, *, by_hand: bool = False) -> t.Iterator[None]:
        """Note for the agent if confirmed state cannot be activated.

        by_hand: if an edit by hand is refused, that is not a failure of the host.
        """
        try:
            yield
        except (PacketwatchError, OSError) as error:
            if not (by_hand and isinstance(error, InvalidInput)):
                self.status.failed(str(error))
            raise

    def quiet(self) -> None:
        """Stop the expiry timer and remove the note: nothing is filtered any more."""
        self.alarm.set(0)
        self.status.clear()

    def renew_agent(self) -> None:
        renew_agent(self.run, self.paths.units)

    @contextlib.contextmanager
    def _open(self, pending: Change | None) -> t.Iterator[Work]:
        with Loaded(self.pins) as loaded:
            planner = Planner(self.paths, self.store, self.compiler, loaded, self.snapshot())
            yield Work(self, loaded, planner, pending)

    def _catch_up(self) -> None:
        """Do what had to wait while a change was pending: activate confirmed state without expired entries."""
        with (
            contextlib.suppress(PacketwatchError, OSError),
            self._open(None) as work,
        ):
            if work.loaded.active:
                work.carry_out(work.planner.draft(None), AT_ONCE)
            else:
                self.status.clear()


class Work:
    """One operation: what is loaded, its planner, and the pending change if there is one."""

    def __init__(
        self, site: Site, loaded: Loaded, planner: Planner, pending: Change | None
    ) -> None:
        self.site = site
        self.loaded = loaded
        self.planner = planner
        self.pending = pending

    def carry_out(self, draft: Draft, terms: Terms) -> Plan:
        """Activate a draft and declare its state; if a step fails, all steps are undone.

        Interfaces are attached after the generation was activated, and detached last: until then, a
        failure leaves them filtered. Returns the plan with what became of the interfaces, and with the
        change if it is pending.
        """
        loaded = self.loaded
        first = not self.site.pins.loaded()
        declared = draft.state if draft.declares else None
        around = self.site.changes.around(loaded, declared, terms, draft.met)
        with around as (undo, change):
            if draft.renews:
                undo.callback(loaded.replace(draft.image, draft.bytecode))
            if loaded.program and draft.links.filters(loaded):
                if draft.protects:
                    undo.callback(self._unprotect)
                self.write_protection()
            done = self._move(draft.links, undo)
        self._settle(draft, change)
        if first and self.site.pins.loaded():
            self.site.renew_agent()
        return draft.plan._replace(attachments=done, pending=change)

    def _move(self, links: Links, undo: contextlib.ExitStack) -> tuple[Attachment, ...]:
        """Make and remove links; return what became of each interface."""
        done = []
        for target in links.targets:
            reason = ""
            if target.links:
                mode = target.mode if target.moves else "none"
                former = target.name, target.ifindex, mode, target.label
                undo.callback(self.loaded.restore, *former)
                found = self.loaded.attach(target.name, target.ifindex, target.wanted)
                reason = found.reason
            now = attached(target.ifindex)
            done.append(target.result(now.mode, now.program_id, reason))
        for drop in links.drops:
            if drop.ifindex:
                former = drop.name, drop.ifindex, drop.mode, drop.held.label
                undo.callback(self.loaded.restore, *former)
            self.loaded.drop(drop.held)
            done.append(drop.result())
        return tuple(done)

    def _settle(self, draft: Draft, change: Change | None) -> None:
        """Note what is active now, and set the timer of entries that expire."""
        loaded = self.loaded
        # While a change is pending, what is loaded stays for its revert.
        if change is None:
            with contextlib.suppress(OSError):
                loaded.tidy(draft.state.interfaces)
            if draft.links.drops and not loaded.has_links:
                self.site.pins.remove()
        self.report(draft.state, draft.image, draft.lists, change)
        if loaded.active:
            feeds = self.site.status.of_lists().get("feeds")
            self.wake_at(next_end(draft.image.next_expiry, feeds), change)
        elif draft.links.drops:
            self.site.quiet()

    def _unprotect(self) -> None:
        """Write the protected sources by the settings on disk, which a failed change has not changed."""
        with contextlib.suppress(PacketwatchError, OSError):
            protect.write(self.site.snapshot().protection, self.protection_maps())

    def write_protection(self) -> None:
        """Write the snapshot's protected sources to their maps."""
        protect.write(self.planner.snapshot.protection, self.protection_maps())

    def protection_maps(self) -> dict[str, Map]:
        return self.site.pins.open_run_maps(protect.MAPS)

    def report(
        self, state: State, image: Image, lists: Lists | None, change: Change | None
    ) -> None:
        """Note for the agent what is active now. Errors are ignored: the change has already happened."""
        with contextlib.suppress(PacketwatchError, OSError):
            number = change.number if change else self.site.store.number()
            if lists:
                write_note(self.site.paths.spared, lists.note)
                self._keep_known(lists)
            self.site.status.applied(self.loaded, number, state, image, lists)
            self._keep(number, state, image, pending=change is not None)

    def _keep(self, number: int, state: State, image: Image, *, pending: bool) -> None:
        """Keep what is active as the boot image of its state. If that fails, the agent reports it."""
        site = self.site
        with self.loaded.generation() as current:
            if current.digest != image.digest:
                return
        source = self.planner.programs.source(state)
        code = self.planner.programs.cached(source)
        if code is None or code.digest != image.bytecode:
            return
        from .._active.kept import keep

        kept = keep(number, state, image, code, site.compiler.key(source))._replace(
            settings=self.planner.snapshot.settings.texts,
            note=site.status.of_lists(),
            known=_json_in(site.paths.tables),
        )
        try:
            site.images.keep(kept, pending=pending)
        except OSError as error:
            site.status.failed(
                f"the boot image cannot be written to {site.paths.images}: {error.strerror}; make room "
                "there, then packetwatchctl apply"
            )

    def _keep_known(self, lists: Lists) -> None:
        """Keep what the next change of a few entries needs, and the time if entries depend on it."""
        paths = self.site.paths
        if lists.counts["expired"] or lists.areas.next_expiry:
            keep_time(paths.clock, read_clock(paths.clock))
        keep_known(paths.tables, lists)

    def wake_at(self, moment: int, change: Change | None) -> None:
        """Set the timer for the next entry or copy that expires; if that fails, revert a pending change."""
        try:
            self.site.alarm.set(moment)
        except PacketwatchError:
            if change:
                self.site.changes.revert(change)
            raise


def _json_in(path: str) -> t.Any:
    """The value in a file; None without one."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
