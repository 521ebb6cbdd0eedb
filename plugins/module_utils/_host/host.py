# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""A managed host: the operations that modules and one-shots can call.

A change is planned first: confirmed state is read, edited, checked and compiled, under the host's lock.
The new state is then written to disk as a candidate and activated. It is confirmed at once, or becomes a
pending change (_change). If a step fails, all steps are undone.
"""

from __future__ import annotations

import typing as t

from .._base.errors import NotDeclared, PacketwatchError
from .._base.paths import Paths
from .._change.links import NO_WISH, Wish
from .._change.pending import AT_ONCE
from .._change.planner import count
from .._change.results import Plan, Switch
from .._change.tables import ListCompiler
from .._declared.store import check_interface
from .._network import protect
from . import feeds, interfaces
from .site import Site

if t.TYPE_CHECKING:
    from .._bans.by_hand import BanChange
    from .._base.types import Run
    from .._change.panic import Panic
    from .._change.pending import Change, Record, Terms
    from .._change.results import Attachment, Outcome
    from .._declared.edits import Edit
    from .._declared.store import Store
    from .._feeds.spare import FeedReport
    from .._health.status import Status
    from .._kernel.pins import Pins
    from .site import Work

LOCK_WAIT = 60.0


class Host:
    """The host that this process runs on, as root, in its network namespace.

    patience: seconds to wait for another writer before `Locked` is raised. In all methods, check means:
    change nothing, return what would be done. terms: how the change is to be confirmed.
    """

    def __init__(self, run: Run, paths: Paths | None = None, patience: float = LOCK_WAIT) -> None:
        self._site = Site(run, paths or Paths(), patience)

    @property
    def paths(self) -> Paths:
        return self._site.paths

    @property
    def store(self) -> Store:
        return self._site.store

    @property
    def pins(self) -> Pins:
        return self._site.pins

    @property
    def status(self) -> Status:
        return self._site.status

    @property
    def distrusted(self) -> list[str]:
        """Which compiled files the last operation did not use, and why."""
        return self._site.distrusted

    @property
    def record(self) -> Record:
        return self._site.changes.record

    # Changes of declared state

    def plan(
        self,
        edit: Edit,
        *,
        force: bool = False,
        terms: Terms = AT_ONCE,
        by_hand: bool = False,
        wish: Wish = NO_WISH,
    ) -> Plan:
        """Plan what `apply` would do; raise every error that `apply` raises before it changes anything."""
        self._site.changes.check_terms(terms)
        with self._site.work(check=True) as work:
            moves = not self.panicking()
            draft = work.planner.draft(edit, force, wish, moves=moves, check=True, by_hand=by_hand)
            if work.loaded.active:
                protect.check_room(work.planner.snapshot.protection, work.protection_maps())
            return draft.plan

    def apply(
        self,
        edit: Edit | None = None,
        *,
        force: bool = False,
        terms: Terms = AT_ONCE,
        by_hand: bool = False,
        wish: Wish = NO_WISH,
        prepare: t.Callable[[], None] = lambda: None,
    ) -> Plan:
        """Activate an edit, which is confirmed at once or as `terms` say; without an edit, activate
        confirmed state.

        Confirmed state was checked when it was declared. So without an edit nothing is refused because of
        what is protected now, or because a limit has been lowered since. by_hand: an administrator
        has edited files of confirmed state, so it is checked like an edit. While a change is pending, an
        edit raises `Pending`, and without an edit nothing is done. wish: interfaces to attach or detach,
        besides those that the edit declares or no longer declares; during a panic, they are attached when
        it is lifted. prepare: called when the edit is planned and not refused, before anything is changed.
        """
        if edit is None:
            with self._site.reporting(by_hand=by_hand):
                return self._apply_confirmed(force, by_hand)
        self._site.changes.check_terms(terms)
        with self._site.work() as work:
            draft = work.planner.draft(edit, force, wish, moves=not self.panicking())
            prepare()
            return work.carry_out(draft, terms)

    def _apply_confirmed(self, force: bool, by_hand: bool) -> Plan:
        with self._site.work(while_pending=True) as work:
            if work.pending:
                return _paused(work, work.pending)
            return feeds.without_ended(
                work, lambda edit: work.planner.draft(edit, force, by_hand=by_hand)
            )

    def remake(self) -> None:
        """Compile and activate confirmed state anew, and pin the maps in use that are not pinned.

        Digests in kernel headers are not trusted. While a change is pending, nothing is done.
        """
        with self._site.reporting(), self._site.work(while_pending=True) as work:
            if work.pending:
                return
            was_unpinned = not self.pins.loaded()
            unpinned = work.loaded.unpinned()
            if unpinned:
                self.pins.pin_again(unpinned)
            if work.loaded.active:
                work.carry_out(work.planner.draft(None, afresh=True), AT_ONCE)
        if unpinned and was_unpinned:
            self._site.renew_agent()

    def point_to(self, number: int) -> None:
        """Make an existing state the confirmed one."""
        with self.store.lock(self._site.patience):
            self._site.note(self.store.confirm(number))

    # Interfaces

    def attach(
        self,
        interface: str,
        mode: str | None = None,
        source: str | None = None,
        *,
        following: interfaces.Following = interfaces.KEEP,
        check: bool = False,
        terms: Terms = AT_ONCE,
    ) -> Attachment:
        """Declare an interface and filter it, by default in its declared mode, with the program in use, and
        with the next program that it has. following: the next program; None: none.

        In check mode nothing is compiled, so the mode that `auto` would choose is unknown.
        """
        check_interface(interface)
        self._site.changes.check_terms(terms)
        self.refuse_panic()
        with self._site.work(check=check) as work:
            return interfaces.attach_to(
                work, interface, mode, source, terms, following=following, check=check
            )

    def reattach(self, interface: str) -> Attachment:
        """Filter an interface as confirmed state declares it; `NotDeclared` if it does not.

        While a change is pending, the pending state counts: a device that comes back is filtered like
        all other devices.
        """
        pending = self.pending()
        state = self.store.read(pending.number) if pending else self.store.read_current()[1]
        if interface not in state.interfaces:
            raise NotDeclared(
                f"{interface} is not declared, so it is not filtered; to filter it, declare it with "
                "packetwatch_interfaces or the module packetwatch.xdp.program"
            )
        with self._site.reporting():
            self.refuse_panic()
            with self._site.work(while_pending=True) as work:
                return interfaces.reattach_to(work, interface)

    def detach(self, interface: str, *, check: bool = False, terms: Terms = AT_ONCE) -> Attachment:
        """Stop filtering an interface, which may have disappeared. Programs of other tools stay."""
        check_interface(interface)
        self._site.changes.check_terms(terms)
        with self._site.work(check=check) as work:
            return interfaces.detach_from(work, interface, terms, check=check)

    # Pending changes

    def pending(self) -> Change | None:
        """The pending change, if there is one; needs no lock."""
        return self._site.changes.pending()

    def confirm(self, token: str = "") -> Outcome:
        """Confirm the pending change of that token; without a token, any pending change.

        A second confirmation is not an error. Raises `Reverted` if the host has reverted the change.
        """
        with self.store.lock(self._site.patience):
            done = self._site.changes.confirm(token)
            self._site.note(done.problems)
            return done

    def roll_back(self, token: str = "", *, due: bool = False) -> Outcome:
        """Revert the pending change. due: only if its time is up."""
        with self.store.lock(self._site.patience):
            return self._site.changes.roll_back(token, due)

    def self_test(self, token: str = "") -> None:
        """Run the loaded program on test packets from protected addresses to the SSH server.

        For hosts to which no fresh connection is possible. If a packet is dropped, or the program cannot
        be run, the pending change of that token is reverted and `LoadFailed` is raised.
        """
        # Imported here: a boot does not need it, and it would cost it memory.
        from .._network import peers, reach

        try:
            with self._site.work(check=True, while_pending=True) as work:
                snapshot = work.planner.snapshot
                reach.check(
                    reach.unreached(
                        work.loaded.program,
                        work.loaded.ifindexes,
                        snapshot.protection,
                        snapshot.network,
                        peers.ssh_ports(),
                    )
                )
        except BaseException:
            self.roll_back(token)
            raise

    # Panic

    def panicking(self) -> Panic | None:
        """The panic, if there is one. While it holds, nothing is filtered and nothing is repaired."""
        return self._site.changes.panic.read()

    def refuse_panic(self) -> None:
        """Raise `Panicked`, with the remedy, if there is a panic."""
        self._site.changes.panic.refuse()

    def panic(self, owner: str = "", *, check: bool = False) -> Switch:
        """Let everything pass until the panic is lifted, also after a reboot; revert a pending change.

        Everything passes even before the lock is taken. If `Locked` is raised, the holder of the lock may
        still attach the filter.
        """
        if check:
            found = self.panicking()
            return Switch(not found or bool(self.pins.interfaces()), found)
        from . import panic

        return panic.begin(self._site, owner)

    def lift(self, *, check: bool = False, terms: Terms = AT_ONCE) -> Switch:
        """Filter again the declared interfaces; if that change is not confirmed, the panic goes on."""
        self._site.changes.check_terms(terms)
        with self._site.work(check=check) as work:
            if check:
                found = self.panicking()
                return Switch(found is not None, found)
            from . import panic

            return panic.lift(work, terms)

    # Health

    def verify(self) -> list[str]:
        """Compare the kernel with confirmed state; return what is wrong.

        Empty while a change is pending: the kernel then differs from confirmed state on purpose.
        """
        try:
            return self._problems(only_drift=False)
        except (PacketwatchError, OSError) as error:
            self.status.unverified(str(error))
            raise

    def drift(self) -> list[str]:
        """As `verify`, without what no repair on this host can fix: feeds, and next programs that are missing."""
        return self._problems(only_drift=True)

    def _problems(self, *, only_drift: bool) -> list[str]:
        from .._health.problems import Facts, find
        from .._health.verify import compare

        panic = self.panicking()
        if panic or self.pending():
            facts = Facts(panic=panic.describe() if panic else "")
        else:
            snapshot = self._site.snapshot()
            lists = ListCompiler(self.paths, snapshot)
            facts = compare(
                self.store,
                self.pins,
                self.status,
                self._site.patience,
                lists.as_before,
                snapshot.settings.problems,
            )
            if only_drift:
                nexts = {name: facts.nexts[name] for name in facts.strayed}
                facts = facts._replace(nexts=nexts)
            else:
                # Of the state only the program is needed here, and the lists are long.
                dummy, state = self.store.read_current(reads_all=False)
                facts = facts._replace(
                    broken_feeds=self.feeds().broken,
                    distrusted=self._site.check_compiled(state),
                )
        return [problem.text for problem in find(facts)]

    def feeds(self) -> FeedReport:
        """The feed entries that were left out when the active tables were compiled."""
        return self._lists().report()

    def info(self, subset: set[str]) -> dict[str, t.Any]:
        """State of the kernel and declared state, by subset (see the module host_info)."""
        # Imported here: a boot does not need it, and it would cost it memory.
        from .._health import info

        dummy, state = self.store.read_current()
        found = info.gather(subset, self.pins, state)
        if "change" in subset:
            found["change"] = info.change(self.store, state, self.record.read(), self.pending())
        if "feeds" in subset:
            found["feeds"] = info.feeds(state, self.paths.ages)
        if "panic" in subset:
            found["panic"] = info.panic(self.panicking())
        if "version" in subset:
            found["version"] = info.version(self.paths.source)
        return found

    def _lists(self) -> ListCompiler:
        return ListCompiler(self.paths, self._site.snapshot())

    # Bans

    def damaged_bans(self) -> list[str]:
        """How many entries of the tables of bans are not bans, in words; empty if all are."""
        from .._bans import by_hand

        return by_hand.damaged(self.pins)

    def ban(self, address: str, duration: float | None, *, check: bool = False) -> BanChange:
        """Ban a source; `InvalidInput` if it is protected. duration: seconds; None: until it is lifted."""
        from .._bans import by_hand

        return by_hand.ban(self.pins, address, duration, check)

    def unban(self, address: str, *, check: bool = False) -> BanChange:
        """Lift all bans that cover a source; none exist while no filter is loaded."""
        from .._bans import by_hand

        return by_hand.unban(self._site.run, self.pins, address, check)


def _paused(work: Work, pending: Change) -> Plan:
    """The plan of an apply that waits for a pending change."""
    with work.loaded.generation() as current:
        digest = current.digest
    dummy, state = work.site.store.read_current()
    return Plan(
        False,
        digest,
        digest,
        count(state),
        (state, state),
        work.loaded.active,
        paused=f"nothing done: {pending.describe()}",
    )
