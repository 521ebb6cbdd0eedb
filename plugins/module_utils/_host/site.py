# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What all operations on a host share: its files and pins, the lock, and the steps of an activation."""

from __future__ import annotations

import contextlib
import typing as t

from .._active.images import Images
from .._active.loaded import Loaded
from .._base.errors import InvalidInput, PacketwatchError
from .._base.paths import Paths
from .._change.alarm import Alarm
from .._change.changes import Changes
from .._change.pending import AT_ONCE
from .._change.planner import Planner
from .._change.programs import Programs, compilers
from .._declared.store import Store
from .._kernel.nexts import LACKING
from .._kernel.pins import Pins
from .._network import protect
from .._network.snapshot import Snapshot
from .followup import Activated, FollowUp
from .renewal import renew_agent

if t.TYPE_CHECKING:
    from .._base.types import Run
    from .._change.links import Links
    from .._change.pending import Change, Terms
    from .._change.planner import Draft
    from .._change.results import Attachment, Plan
    from .._declared.store import State
    from .._health.status import Status
    from .._kernel import netlink
    from .._kernel.libbpf import Map


class Site:
    """This host, as root sees it. patience: seconds to wait for the lock."""

    def __init__(self, run: Run, paths: Paths, patience: float) -> None:
        self.run = run
        self.paths = paths
        self.patience = patience
        self.store = Store(paths.state)
        self.pins = Pins(paths.bpffs)
        self.compilers = compilers(run, paths.cache)
        self.alarm = Alarm(run, paths.runtime, paths.units)
        self.images = Images(paths.images)
        self.distrusted: list[str] = []
        self.changes = Changes(run, paths, self.store, self.pins, self.compilers, self._catch_up)

    @property
    def status(self) -> Status:
        # Imported here: operations that only read do not need it, and it would cost them memory.
        from .._health.status import Status

        return Status(self.paths.status, self.paths.ages)

    @property
    def follow_up(self) -> FollowUp:
        return FollowUp(
            self.run, self.paths, self.status, self.images, self.alarm, self.check_compiled
        )

    def snapshot(self, links: list[netlink.Link] | None = None) -> Snapshot:
        """The host's network, settings and protection: read when asked for, kept for one operation."""
        return Snapshot(self.paths.settings, self.images.last_settings, links=links)

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

    def check_compiled(self, state: State) -> list[str]:
        """Which compiled files of a state were not used, or would not be used by the next boot, and why.

        They are noted until the next activation, which makes them anew.
        """
        with contextlib.suppress(InvalidInput):
            programs = Programs(self.compilers.filter, self.images, self.paths.source)
            self.compilers.filter.cached(programs.source(state))
        for item in state.next.values():
            if item.source:
                self.compilers.next.cached(item.source)
        refused = [compiler.refused for compiler in self.compilers]
        found = [*self.status.distrusted(), *refused, self.images.distrusted()]
        for compiler in self.compilers:
            compiler.refused = ""
        self.distrusted = [*dict.fromkeys(filter(None, found))]
        self.status.distrusts(self.distrusted)
        return self.distrusted

    def note(self, problems: t.Collection[str]) -> None:
        """Note for the agent what failed after a change had happened."""
        if problems:
            self.status.failed("; ".join(problems))

    def quiet(self) -> None:
        """Stop the expiry timer and remove the note: nothing is filtered any more."""
        self.alarm.set(0)
        self.status.clear()

    def renew_agent(self) -> None:
        renew_agent(self.run, self.paths.units)

    @contextlib.contextmanager
    def _open(self, pending: Change | None) -> t.Iterator[Work]:
        with Loaded(self.pins) as loaded:
            planner = Planner(
                self.paths, self.store, self.compilers, loaded, self.snapshot(loaded.devices)
            )
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
        """Activate a draft and confirm its state, or let it wait until it is confirmed.

        Interfaces are attached after the generation was activated, and detached last: until then, a
        failure leaves them filtered. If a step fails before the state is confirmed, all steps are undone. Then
        the change has happened, and what fails is a problem to report. Returns the plan with what became of
        the interfaces, with those problems, and with the change if it is pending.
        """
        site, loaded = self.site, self.loaded
        confirmed, is_first = site.store.number(), not site.pins.loaded()
        declared = draft.state if draft.declares else None
        around = site.changes.around(loaded, declared, terms, draft.met)
        with around as frame:
            hands_over = any(draft.nexts.values()) or loaded.has_nexts
            joins = draft.links.joins
            if draft.renews or (joins and not loaded.extension):
                replaced = loaded.replace(draft.image, draft.bytecode, extends=joins)
                frame.undo.callback(replaced)
            if loaded.program and draft.links.filters(loaded):
                if draft.protects:
                    frame.undo.callback(self._unprotect)
                self.write_protection()
            lacks = {ifindex: LACKING for ifindex, item in draft.nexts.items() if item}
            nexts = loaded.nexts() if hands_over else None
            if nexts:
                # Before an interface is attached: its first packet meets the next program too.
                frame.undo.callback(nexts.restore, nexts.snapshot())
                lacks = nexts.fill(draft.nexts)
            done = self._move(draft.links, frame.undo)
            if nexts:
                nexts.keep_only(draft.nexts)
            waiting = frame.change or self.pending
            number = waiting.number if waiting else frame.number or confirmed
            is_pending = waiting is not None
            activated = Activated(loaded, self.planner, draft, number, is_pending, is_first)
            if frame.change:
                # Its entries must expire by themselves, or nobody may confirm it.
                site.follow_up.set_alarm(activated)
        problems = (*frame.problems, *site.follow_up.of(activated))
        site.note(problems)
        missing = (f"the next program of {name}: {why}" for name, why in self._named(lacks))
        return draft.plan._replace(
            attachments=done, pending=frame.change, problems=(*missing, *problems)
        )

    def _named(self, lacks: t.Mapping[int, str]) -> t.Iterator[tuple[str, str]]:
        """Texts by the names of interfaces instead of their indexes."""
        for name, ifindex in self.loaded.present.items():
            if ifindex in lacks:
                yield name, lacks[ifindex]

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
            held = self.loaded.held_on(target.ifindex)
            number = held.program_id if held else 0
            done.append(target.result(self.loaded.mode_on(target.ifindex), number, reason))
        for drop in links.drops:
            if drop.ifindex:
                former = drop.name, drop.ifindex, drop.mode, drop.held.label
                undo.callback(self.loaded.restore, *former)
            self.loaded.drop(drop.held)
            done.append(drop.result())
        return tuple(done)

    def _unprotect(self) -> None:
        """Write the protected sources by the settings on disk, which a failed change has not changed."""
        with contextlib.suppress(PacketwatchError, OSError):
            protect.write(self.site.snapshot().protection, self.protection_maps())

    def write_protection(self) -> None:
        """Write the snapshot's protected sources to their maps."""
        protect.write(self.planner.snapshot.protection, self.protection_maps())

    def protection_maps(self) -> dict[str, Map]:
        return self.site.pins.open_run_maps(protect.MAPS)
