# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""A managed host: the façade that modules and one-shots call.

Declared state is read, edited, planned and checked first, under the host's lock. A change that is
confirmed at once goes live, and then becomes confirmed state. One that waits to be confirmed is
written as a candidate, the timer that would undo it is set, what it replaces is pinned, and only then
does it go live. What fails before it is live leaves everything as it was.
"""

from __future__ import annotations

import contextlib
import os
import socket
import typing as t

from . import _attach, _panic, _pending, _protect
from ._alarm import Alarm
from ._compile import Compiler
from ._errors import InvalidInput, PacketwatchError, Pending, Returned
from ._generation import build, capacity_for
from ._lists import Lists, check_protected, compile_lists, digest_of, is_current
from ._loaded import Loaded, check_memory
from ._pending import AT_ONCE, Change, Record, Terms
from ._pins import Paths, Pins, check_bpffs
from ._policy import resolve_policies
from ._prog import attached
from ._results import UNKNOWN, Attachment, Outcome, Plan, Switch
from ._settings import read_settings
from ._source import flatten
from ._spare import NOTHING, has_feeds, lasting, read_note, spared_now, write_note
from ._store import MODES, State, Store, check_interface

if t.TYPE_CHECKING:
    from ._compile import Bytecode
    from ._deadline import Deadline
    from ._edits import Edit
    from ._generation import Areas, Image
    from ._hand_bans import BanChange
    from ._heal import Repair
    from ._libbpf import Map
    from ._panic import Panic
    from ._spare import FeedReport, Spared
    from ._status import Status
    from ._types import Run

LOCK_WAIT = 60.0


class _Draft(t.NamedTuple):
    """A plan with what carrying it out needs; met: packets meet something else than before."""

    plan: Plan
    state: State
    image: Image
    lists: Lists | None
    declared: bool
    apply: bool
    met: bool


class Host:
    """The host that this process runs on, as root, in its network namespace.

    patience: seconds to wait for another writer before `Locked` is raised.
    """

    def __init__(self, run: Run, paths: Paths | None = None, patience: float = LOCK_WAIT) -> None:
        self.paths = paths or Paths()
        self._run = run
        self._patience = patience
        self.store = Store(self.paths.state)
        self.pins = Pins(self.paths.bpffs)
        self._compiler = Compiler(run, self.paths.cache)
        self._alarm = Alarm(run, self.paths.runtime, self.paths.units)
        self._record = Record(self.paths.pending)
        self._panic = _panic.Flag(self.paths.state)

    # Lists and policies

    def plan(self, edit: Edit, *, force: bool = False, terms: Terms = AT_ONCE) -> Plan:
        """What `apply` would do; raises all that `apply` raises before it changes anything."""
        self._check_terms(terms)
        self._refuse_second(self.pending())
        with Loaded(self.pins) as loaded:
            if loaded.active:
                _protect.check_room(self._protection(), self._protection_maps())
            return self._draft(loaded, edit, force).plan

    def apply(
        self, edit: Edit | None = None, *, force: bool = False, terms: Terms = AT_ONCE
    ) -> Plan:
        """Make an edit live and confirm it, now or as `terms` say; without one, make confirmed
        state live.

        Confirmed state was checked when it was declared, so without an edit nothing is refused
        for what is protected now, or for a bound that has been lowered since. While a change is
        pending, another one is refused, and confirmed state is left to wait.
        """
        self._check_terms(terms)
        with self._noted(edit is None), self.store.lock(self._patience):
            pending = self._settle()
            if edit:
                self._refuse_second(pending)
            with Loaded(self.pins) as loaded:
                if pending:
                    return self._paused(loaded, pending)
                return self._apply(loaded, self._draft(loaded, edit, force), terms)

    def _apply(self, loaded: Loaded, draft: _Draft, terms: Terms) -> Plan:
        declared = draft.state if draft.declared else None
        with self._changing(loaded, declared, terms, draft.met) as (undo, change):
            if loaded.active:
                self._write_protection()
            if loaded.active and draft.apply:
                bytecode = self._bytecode_of(draft.state)
                undo.callback(loaded.replace(draft.image, bytecode))
        self._note(loaded, draft.state, draft.image, draft.lists, change)
        if loaded.active:
            self._wake_at(draft.image.next_expiry, change)
        return draft.plan._replace(pending=change)

    def _wake_at(self, moment: int, change: Change | None) -> None:
        """Set the timer for the next entry that expires; a change that waits is taken back without it."""
        try:
            self._alarm.set(moment)
        except PacketwatchError:
            if change:
                self._return(change)
            raise

    def _paused(self, loaded: Loaded, pending: Change) -> Plan:
        with loaded.generation() as current:
            digest = current.digest
        dummy, state = self.store.read_current()
        paused = f"nothing done: {pending.describe()}"
        states = (state, state)
        return Plan(False, digest, digest, _count(state), states, loaded.active, paused=paused)

    def verify(self) -> list[str]:
        """Compare what is in the kernel with confirmed state; returns what is wrong, if anything.

        While a change is pending, something else is in force, and nothing is wrong with that.
        """
        broken = {} if self.pending() else self.feeds().broken
        return self.drift() + [f"{name} is left out: {why}" for name, why in broken.items()]

    def drift(self) -> list[str]:
        """As `verify`, without what no repair on this host can mend."""
        from ._verify import verify

        panic = self._panic.read()
        if panic:
            return [panic.describe()]
        if self.pending():
            return []
        return verify(self.store, self.pins, self._status, self._patience, self._compile_alike)

    def _compile_alike(self, state: State) -> Lists:
        """Compile lists with the same exceptions for feeds as what is live, if it is of these."""
        if not has_feeds(state):
            return compile_lists(state)
        note = read_note(self.paths.spared)
        if note.lists != digest_of(state).hex():
            return compile_lists(state, self._spared_now())
        return compile_lists(state, note.spared)

    def heal(self) -> Repair:
        """Find what has drifted from confirmed state, and mend it; paused while a change is pending."""
        from ._heal import heal

        return heal(self, self._status, self._record)

    def point_to(self, number: int) -> None:
        """Let a state that lies there be the confirmed one."""
        with self.store.lock(self._patience):
            self.store.confirm(number)

    def remake(self) -> None:
        """Make confirmed state live, compiled anew, and pin again what is in use: nothing of what
        the kernel says of itself is believed."""
        with self._noted(True), self.store.lock(self._patience):
            if self._settle():
                return
            with Loaded(self.pins) as loaded:
                is_blind = not self.pins.loaded()
                unpinned = loaded.unpinned()
                if unpinned:
                    self.pins.pin_again(unpinned)
                if loaded.active:
                    self._apply(loaded, self._draft(loaded, None, False, afresh=True), AT_ONCE)
            if unpinned and is_blind:
                self._renew_agent()

    @property
    def _status(self) -> Status:
        # Imported here: what only looks needs it not.
        from ._status import Status

        return Status(self.paths.status)

    @contextlib.contextmanager
    def _noted(self, concerned: bool) -> t.Iterator[None]:
        """Let the agent know if confirmed state cannot be made live."""
        try:
            yield
        except (PacketwatchError, OSError):
            if concerned:
                self._status.failed()
            raise

    def _note(
        self,
        loaded: Loaded,
        state: State,
        image: Image,
        lists: Lists | None,
        change: Change | None = None,
    ) -> None:
        """Let the agent know what is live now. A change is no failure since that is one."""
        with contextlib.suppress(PacketwatchError, OSError):
            number = change.number if change else self.store.number()
            if lists:
                write_note(self.paths.spared, lists.note)
            self._status.applied(loaded, number, state, image, lists)

    def _declare(self, state: State) -> None:
        """Make a state the confirmed one; what is left of a failure is removed."""
        try:
            self.store.confirm(self.store.write_candidate(state))
        finally:
            with contextlib.suppress(PacketwatchError):
                self.store.prune()

    def _draft(
        self, loaded: Loaded, edit: Edit | None, force: bool, *, afresh: bool = False
    ) -> _Draft:
        dummy, before = self.store.read_current()
        after = edit(before) if edit else before
        policies = resolve_policies(after.policy)
        with loaded.generation() as current:
            digest_before = current.check_digest(current.areas()) if afresh else current.digest
            header = current.header
            live = current.areas() if loaded.active and not afresh else None
        code = loaded_code = header["bytecode"]
        if afresh or (after.program != before.program and loaded.active):
            code = self._bytecode_of(after)().digest
        areas, lists = self._tables(loaded, live, after)
        hits = None
        if lists and (after.allow, after.deny) != (before.allow, before.deny):
            if not force:
                for_good = areas
                if any("expires=" in text for text in after.allow.values()):
                    for_good = compile_lists(after, lists.note.spared, for_good=True).areas
                check_protected(for_good, self._protection())
            from . import _hits

            protection = self._protection() if force else None
            hits = _hits.find(live, areas, protection, self.pins)
        image = build(areas, policies, loaded.ifindexes, code)
        if edit:
            _attach.check_listeners(policies, loaded.ifindexes)
            check_memory(capacity_for(image.pages), read_settings(self.paths.settings).list_memory)
        other = image.digest != digest_before or code != loaded_code
        apply = loaded.active and (other or not loaded.whole)
        drifted = apply
        if loaded.whole and code == loaded_code and live is not None and live.lists == areas.lists:
            # That entries expire is no change.
            drifted = build(live, policies, loaded.ifindexes, code).digest != digest_before
        plan = Plan(
            changed=before != after or drifted,
            digest_before=digest_before,
            digest_after=image.digest,
            counts=lists.counts if lists else _count(after),
            states=(before, after),
            live=loaded.active,
            hits=hits,
            feeds=lists.note.report if lists else self.feeds(),
        )
        # Lists whose text changed but whose tables did not still need their digest renewed.
        said = header["lists"], header["next_expiry"]
        renew = apply or (areas.lists, areas.next_expiry) != said
        return _Draft(plan, after, image, lists, before != after, renew, apply)

    def feeds(self) -> FeedReport:
        """What was left out of feeds when the live tables were made."""
        return read_note(self.paths.spared).report

    # Interfaces

    def attach(
        self,
        interface: str,
        mode: str | None = None,
        source: str | None = None,
        *,
        check: bool = False,
        terms: Terms = AT_ONCE,
    ) -> Attachment:
        """Declare an interface and filter it, by default in its declared mode and with the program
        in use.

        In check mode nothing is compiled, so `auto` stays unknown where nothing is attached.
        """
        return self._attach_to(interface, mode, source, check=check, terms=terms)

    def reattach(self, interface: str) -> Attachment:
        """Filter an interface as confirmed state declares it; InvalidInput if it does not.

        While a change is pending, a device that comes back meets what the others meet.
        """
        pending = self.pending()
        state = self.store.read(pending.number) if pending else self.store.read_current()[1]
        if interface not in state.interfaces:
            raise InvalidInput(
                f"{interface} is not declared: it is no longer to be filtered, or never was "
                "(packetwatch_interfaces, or the module packetwatch.xdp.program, declare it)"
            )
        with self._noted(True):
            return self._attach_to(interface, boot=True)

    def _attach_to(
        self,
        interface: str,
        mode: str | None = None,
        source: str | None = None,
        *,
        check: bool = False,
        boot: bool = False,
        terms: Terms = AT_ONCE,
    ) -> Attachment:
        """At boot, what was declared is not judged again."""
        check_interface(interface)
        self._check_terms(terms)
        self._panic.refuse()
        if mode is not None and mode not in MODES:
            raise InvalidInput(f"mode is {mode!r}: choose one of {', '.join(MODES)}")
        ifindex = _attach.check_device(interface)
        check_bpffs(self.paths.bpffs)
        lock = contextlib.nullcontext() if check else self.store.lock(self._patience)
        with lock:
            pending = self.pending() if check else self._settle()
            if not boot:
                self._refuse_second(pending)
            with Loaded(self.pins) as loaded:
                _attach.check_free(interface, ifindex, loaded.program_ids)
                confirmed: State | None
                if pending:
                    # Nothing is declared by it.
                    confirmed, state = None, self.store.read(pending.number)
                else:
                    dummy, confirmed = self.store.read_current()
                    state = _renamed(confirmed, loaded.held_on(ifindex)[0], interface)
                if not boot:
                    _attach.check_listeners(resolve_policies(state.policy), [interface])
                if check:
                    return self._foretell(loaded, state, interface, ifindex, mode, source)
                return self._attach(
                    loaded, confirmed, state, interface, ifindex, mode, source, terms
                )

    def _attach(
        self,
        loaded: Loaded,
        confirmed: State | None,
        state: State,
        interface: str,
        ifindex: int,
        mode: str | None,
        source: str | None,
        terms: Terms,
    ) -> Attachment:
        """confirmed: what `state` was made of; None: nothing shall be declared."""
        wanted = mode or state.interfaces.get(interface, "auto")
        text = source or self._source_of(state)
        bytecode = self._compiler.get(text)
        former = attached(ifindex).mode
        first = not self.pins.loaded()
        with loaded.generation() as current:
            replaced = loaded.program is None or current.header["bytecode"] != bytecode.digest
            digest_before = current.digest
        name, held = loaded.held_on(ifindex)
        moved = held is not None and wanted not in ("auto", former)
        ifindexes = {key: value for key, value in loaded.ifindexes.items() if value != ifindex}
        image, lists = self._image(loaded, state, ifindexes | {interface: ifindex}, bytecode.digest)
        reload = replaced or not loaded.whole or image.digest != digest_before
        declared = state._replace(interfaces=state.interfaces | {interface: wanted}, program=text)
        wish = declared if confirmed and declared != confirmed else None
        met = reload or held is None or moved
        reason = ""
        with contextlib.ExitStack() as renamed:
            # Before the change begins: if it is taken back, the device keeps its name.
            if held and name != interface:
                renamed.callback(loaded.rename, interface, name)
                loaded.rename(name, interface)
            with self._changing(loaded, wish, terms, met) as (undo, change):
                if reload:
                    undo.callback(loaded.replace(image, lambda: bytecode))
                self._write_protection()
                if held is None or moved:
                    undo.callback(loaded.restore, interface, ifindex, former if moved else "none")
                    reason = loaded.attach(interface, ifindex, wanted).reason
            renamed.pop_all()
        self._note(loaded, declared if confirmed else state, image, lists, change)
        self._wake_at(image.next_expiry, change)
        if first:
            self._renew_agent()
        now = attached(ifindex)
        changed = replaced or held is None or moved or wish is not None
        before, after = _line(interface, former), _line(interface, now.mode)
        return Attachment(
            changed, interface, now.mode, reason, now.program_id, before, after, change
        )

    def _foretell(
        self,
        loaded: Loaded,
        state: State,
        interface: str,
        ifindex: int,
        mode: str | None,
        source: str | None,
    ) -> Attachment:
        """What `_attach` would do, without compiling."""
        wanted = mode or state.interfaces.get(interface, "auto")
        now = attached(ifindex)
        name, held = loaded.held_on(ifindex)
        fresh = held is None
        replaced = loaded.program is None or (source is not None and source != state.program)
        moved = not fresh and wanted not in ("auto", now.mode)
        foretold = now.mode if not fresh and not moved else wanted
        if foretold == "auto":
            foretold = UNKNOWN
        declared = state.interfaces.get(interface) == wanted and name in ("", interface)
        changed = fresh or replaced or moved or not declared
        return Attachment(
            changed,
            interface,
            foretold,
            "",
            now.program_id,
            _line(interface, now.mode),
            _line(interface, foretold),
        )

    def detach(self, interface: str, *, check: bool = False, terms: Terms = AT_ONCE) -> Attachment:
        """Stop filtering an interface; it need not exist any more. Foreign programs stay."""
        check_interface(interface)
        self._check_terms(terms)
        if check:
            self._refuse_second(self.pending())
            with Loaded(self.pins) as loaded:
                return self._detach(loaded, interface, check, terms)
        with self.store.lock(self._patience):
            self._refuse_second(self._settle())
            with Loaded(self.pins) as loaded:
                return self._detach(loaded, interface, check, terms)

    def _detach(self, loaded: Loaded, interface: str, check: bool, terms: Terms) -> Attachment:
        dummy, state = self.store.read_current()
        held = loaded.links.get(interface)
        left = state._replace(
            interfaces={key: mode for key, mode in state.interfaces.items() if key != interface},
            policy={key: keys for key, keys in state.policy.items() if key != interface},
        )
        changed = held is not None or left != state
        mode = attached(held.ifindex).mode if held and held.ifindex else "none"
        before, after = _line(interface, mode), _line(interface, "none")
        change = None
        if changed and not check:
            if held and held.ifindex and left != state and terms.seconds:
                change = self._detach_for_now(loaded, left, interface, mode, terms)
            else:
                self._detach_for_good(loaded, left if left != state else None, interface)
        return Attachment(changed, interface, "none", "", 0, before, after, change)

    def _detach_for_now(
        self, loaded: Loaded, left: State, interface: str, mode: str, terms: Terms
    ) -> Change | None:
        """Detach; with the last interface, what is loaded stays until the change is confirmed."""
        ifindex = loaded.links[interface].ifindex
        with self._changing(loaded, left, terms, True) as (undo, change):
            undo.callback(loaded.restore, interface, ifindex, mode)
            loaded.drop(interface)
            if loaded.active:
                undo.callback(self._forget(loaded, left, change))
            else:
                self._alarm.set(0)
                self._status.clear()
        return change

    def _detach_for_good(self, loaded: Loaded, left: State | None, interface: str) -> None:
        if left:
            self._declare(left)
        if interface in loaded.links:
            loaded.detach(interface)
        if loaded.active:
            self._forget(loaded, left or self.store.read_current()[1])
        else:
            self._alarm.set(0)
            self._status.clear()

    def _forget(
        self, loaded: Loaded, state: State, change: Change | None = None
    ) -> t.Callable[[], None]:
        """Take what the live generation says of interfaces that are attached to no more out of it."""
        with loaded.generation() as current:
            code, digest = current.header["bytecode"], current.digest
        image, lists = self._image(loaded, state, loaded.ifindexes, code)
        undo = contextlib.ExitStack()
        if image.digest != digest:
            undo.callback(loaded.replace(image, self._bytecode_of(state)))
        self._note(loaded, state, image, lists, change)
        return undo.close

    def _image(
        self, loaded: Loaded, state: State, ifindexes: t.Mapping[str, int], code: bytes
    ) -> tuple[Image, Lists | None]:
        """The image, and the lists if those had to be compiled."""
        with loaded.generation() as current:
            areas, lists = self._tables(loaded, current.areas(), state)
        return build(areas, resolve_policies(state.policy), ifindexes, code), lists

    def _tables(
        self, loaded: Loaded, live: Areas | None, state: State
    ) -> tuple[Areas, Lists | None]:
        """The live tables if they are still what the lists make, else such as are, with their lists."""
        spared = self._spared(loaded) if has_feeds(state) else {}
        if live is not None and is_current(live, state):
            note = read_note(self.paths.spared) if spared else NOTHING
            known = (
                note.lists == live.lists.hex() and lasting(spared).items() <= note.spared.items()
            )
            if known or not spared:
                return live, None
        lists = compile_lists(state, spared)
        return lists.areas, lists

    def _spared(self, loaded: Loaded) -> Spared:
        """Whom feeds must not deny. While nothing is filtered there may be no network yet, as at
        boot: then those of before count too, or it could not come up."""
        before = {} if loaded.active else lasting(read_note(self.paths.spared).spared)
        return before | self._spared_now()

    def _spared_now(self) -> Spared:
        return spared_now(_protect.read_network(), self._protection())

    # Changes that wait to be confirmed

    def pending(self) -> Change | None:
        """The change that is pending, for whoever only looks."""
        change = self._record.read()
        if change is None or change.status != _pending.PENDING or change.left <= 0:
            return None
        return None if self._is_confirmed(change) else change

    def confirm(self, token: str = "") -> Outcome:
        """Make the pending change what boot reads; without a token, whosever it is.

        Confirming twice is no error. Raises `Returned` if the host has gone back meanwhile.
        """
        with self.store.lock(self._patience):
            pending = self._settle()
            change = self._find(pending, token)
            if change is None:
                raise Returned(_unknown(token))
            if change.status == _pending.RETURNED:
                raise Returned(
                    f"the change of {change.owner} was not confirmed in time: the host has "
                    f"returned to what was confirmed before, at {_pending.moment(change.ended)}"
                )
            if change.status == _pending.CONFIRMED:
                return Outcome(False, change)
            if change.lifts:
                self._panic.take_down()
            else:
                self.store.confirm(change.number)
            return Outcome(True, self._end(change, _pending.CONFIRMED))

    def roll_back(self, token: str = "", *, due: bool = False) -> Outcome:
        """Return to what was confirmed before the pending change; due: only if its time is up."""
        with self.store.lock(self._patience):
            before = self._record.read()
            pending = self._settle()
            change = self._find(pending, token)
            if due or change is None or change.status == _pending.RETURNED:
                # The timer of a change that has ended must not end the one after it.
                now = self._record.read()
                return Outcome(now != before, now if before else None)
            if change.status == _pending.CONFIRMED:
                if not token:
                    return Outcome(False, None)
                raise InvalidInput(
                    f"the change of {change.owner} was confirmed at "
                    f"{_pending.moment(change.ended)}, so it cannot be taken back any more"
                )
            return Outcome(True, self._return(change))

    def self_test(self, token: str = "") -> None:
        """Ask the loaded program whether protected addresses still reach the SSH server.

        For where no fresh connection could tell. LoadFailed, with the pending change of that
        token rolled back, if one does not, or if it cannot be told.
        """
        # Imported here: what a boot does not need would cost it memory.
        from . import _peers, _reach

        try:
            network = _protect.read_network()
            with Loaded(self.pins) as loaded:
                _reach.check(
                    _reach.unreached(
                        loaded.ifindexes, self._protection(), network, _peers.ssh_ports()
                    )
                )
        except BaseException:
            self.roll_back(token)
            raise

    def _find(self, pending: Change | None, token: str) -> Change | None:
        """The change meant by a token, by none the last one; Pending if that is another's."""
        last = pending or self._record.read()
        if last is None or not token or last.token == token:
            return last
        self._refuse_second(pending)
        return None

    def _deadline(self) -> Deadline:
        # Imported here, as _former below: what a boot does not need would cost it memory.
        from ._deadline import Deadline

        paths = self.paths
        return Deadline(self._run, paths.runtime, paths.units, paths.pending)

    def _check_terms(self, terms: Terms) -> None:
        _pending.check_terms(terms)
        if terms.seconds:
            self._deadline().check()

    def _refuse_second(self, pending: Change | None) -> None:
        if pending:
            raise Pending(f"{pending.describe()} (nothing was changed)")

    def _settle(self) -> Change | None:
        """The pending change; one whose time is up, or whose confirmer died, is ended first."""
        change = self._record.read()
        if change is None or change.status != _pending.PENDING:
            self.pins.remove_former()
            return None
        if self._is_confirmed(change):
            self._end(change, _pending.CONFIRMED)
        elif change.left <= 0 or (self._panic.read() and not change.lifts):
            self._return(change)
        else:
            return change
        return None

    def _is_confirmed(self, change: Change) -> bool:
        """Whether what a pending change is about has come true: its confirmer may have died then."""
        if change.lifts:
            return self._panic.read() is None
        return change.number == self.store.number()

    @contextlib.contextmanager
    def _changing(
        self, loaded: Loaded, after: State | None, terms: Terms, met: bool
    ) -> t.Iterator[tuple[contextlib.ExitStack, Change | None]]:
        """Around going live: what comes before it and after it, and all of it undone if it fails.

        after: what is declared, if that changes. met: packets will meet something else.
        """
        with contextlib.ExitStack() as undo:
            change = None
            if after is not None and met and terms.seconds:
                undo.callback(self._abandon)
                change = self._begin(loaded, after, terms)
            yield undo, change
            if after is not None and change is None:
                self._declare(after)
            undo.pop_all()

    def _begin(self, loaded: Loaded, after: State, terms: Terms, lifts: bool = False) -> Change:
        """Write the candidate, set the timer, record the change, keep what it replaces."""
        from . import _former

        number = self.store.write_candidate(after)
        former = _former.modes(loaded), loaded.program is not None
        change = _pending.begin(terms, number, *former)._replace(lifts=lifts)
        self._record.make_folder()
        self._deadline().arm(terms.seconds)
        self._record.write(change)
        _former.keep(loaded, self.pins)
        return change

    def _abandon(self) -> None:
        """Forget a change that has failed."""
        with contextlib.suppress(PacketwatchError, OSError):
            self._record.remove()
            self._tidy()

    def _tidy(self) -> None:
        self.pins.remove_former()
        with contextlib.suppress(PacketwatchError):
            self._deadline().disarm()
        with contextlib.suppress(PacketwatchError):
            self.store.prune()

    def _end(self, change: Change, status: str) -> Change:
        """Say what has become of a change, and clear up after it; whoever died here is followed."""
        with Loaded(self.pins) as loaded:
            if not loaded.links and not self._panic.read():
                self.pins.remove()
        ended = change.end(status)
        self._record.write(ended)
        self._tidy()
        self._catch_up()
        return ended

    def _return(self, change: Change) -> Change:
        """Let what is confirmed be in force again: from what is kept, at once, or by compiling."""
        if self._panic.read():
            _panic.detach(self.pins)
        else:
            self._bring_back(change)
        return self._end(change, _pending.RETURNED)

    def _bring_back(self, change: Change) -> None:
        from . import _former

        dummy, state = self.store.read_current()
        done = False
        with contextlib.suppress(PacketwatchError, OSError), Loaded(self.pins) as loaded:
            done = _former.bring_back(loaded, self.pins, change, state.interfaces)
        if not done:
            with Loaded(self.pins) as loaded:
                self._rebuild(loaded, state, change)

    def _rebuild(self, loaded: Loaded, state: State, change: Change) -> None:
        from . import _former

        bytecode = self._bytecode_of(state)()
        image, dummy = self._image(loaded, state, loaded.ifindexes, bytecode.digest)
        with loaded.generation() as current:
            same = current.digest == image.digest and current.header["bytecode"] == bytecode.digest
        if not (same and loaded.whole):
            loaded.replace(image, lambda: bytecode)
        _former.bring_back_interfaces(loaded, change, state.interfaces)

    def _catch_up(self) -> None:
        """Do what had to wait while a change was pending: entries may have expired."""
        with contextlib.suppress(PacketwatchError, OSError), Loaded(self.pins) as loaded:
            if loaded.active:
                self._apply(loaded, self._draft(loaded, None, False), AT_ONCE)
            else:
                self._status.clear()

    # Panic

    def panicking(self) -> Panic | None:
        """The panic that holds, if one does: nothing is filtered, nor to be healed."""
        return self._panic.read()

    def panic(self, owner: str = "", *, check: bool = False) -> Switch:
        """Let everything pass until it is lifted, boots included; a pending change is taken back.

        Nobody is waited for: everything passes before the lock is asked for. `Locked` says that its
        holder may attach once more.
        """
        if check:
            return Switch(
                not self._panic.read() or bool(self.pins.interfaces()), self._panic.read()
            )
        new = False
        try:
            new = self._panic.read() is None
            if new:
                # First, so that whoever attaches from here on sees it.
                self._panic.raise_up(owner or _pending.caller())
        finally:
            detached = _panic.detach(self.pins)
        with self.store.lock(self._patience):
            detached += _panic.detach(self.pins)
            change = self._settle()
            if change:
                self._return(change)
            self._alarm.set(0)
            self._status.clear()
        return Switch(new or bool(detached), self._panic.read())

    def lift(self, *, check: bool = False, terms: Terms = AT_ONCE) -> Switch:
        """Filter again what confirmed state declares; if that is not confirmed, the panic goes on."""
        self._check_terms(terms)
        if check:
            self._refuse_second(self.pending())
            panic = self._panic.read()
            return Switch(panic is not None, panic)
        with self.store.lock(self._patience):
            self._refuse_second(self._settle())
            panic = self._panic.read()
            if panic is None:
                return Switch(False, None)
            with Loaded(self.pins) as loaded, contextlib.ExitStack() as undo:
                undo.callback(_panic.detach, self.pins)
                change = self._lift(loaded, terms, undo)
                undo.pop_all()
            if change is None:
                self._panic.take_down()
            return Switch(True, panic, change)

    def _lift(self, loaded: Loaded, terms: Terms, undo: contextlib.ExitStack) -> Change | None:
        dummy, state = self.store.read_current()
        present = {name: ifindex for ifindex, name in socket.if_nameindex()}
        change = None
        if terms.seconds and not present.keys().isdisjoint(state.interfaces):
            undo.callback(self._abandon)
            change = self._begin(loaded, state, terms, lifts=True)
        for name in sorted(present.keys() & state.interfaces):
            _attach.check_free(name, present[name], loaded.program_ids)
            self._attach(loaded, None, state, name, present[name], None, None, AT_ONCE)
        return change

    # Bans and information

    def ban(self, address: str, duration: float | None, *, check: bool = False) -> BanChange:
        """Ban a source by hand; InvalidInput if it is protected. Seconds, None: until lifted."""
        from . import _hand_bans

        return _hand_bans.ban(self.pins, address, duration, check)

    def unban(self, address: str, *, check: bool = False) -> BanChange:
        """Lift all bans that cover a source; where nothing is loaded there are none."""
        from . import _hand_bans

        return _hand_bans.unban(self._run, self.pins, address, check)

    def info(self, subset: set[str]) -> dict[str, t.Any]:
        """What the kernel does now and what is declared, by subset (see the module host_info)."""
        # Imported here: what a boot does not need would cost it memory.
        from . import _info

        dummy, state = self.store.read_current()
        found = _info.gather(subset, self.pins, state)
        if "change" in subset:
            found["change"] = _info.change(self.store, state, self._record.read(), self.pending())
        if "panic" in subset:
            found["panic"] = _info.panic(self.panicking())
        if "version" in subset:
            found["version"] = _info.version(self.paths.source)
        return found

    # Helpers

    def _protection(self) -> _protect.Protection:
        settings = read_settings(self.paths.settings)
        network = _protect.read_network()
        return _protect.compute(settings.protect, settings.protect_auto, network)

    def _write_protection(self) -> None:
        _protect.write(self._protection(), self._protection_maps())

    def _protection_maps(self) -> dict[str, Map]:
        return self.pins.open_run_maps(("hosts", "nets", "local"))

    def _renew_agent(self) -> None:
        """Start a running agent anew: it sees the maps through a mount made when it started."""
        if os.path.exists(os.path.join(self.paths.units, "packetwatch.service")):
            # Whether that works or not, the filter does.
            self._run(["systemctl", "--no-block", "try-restart", "packetwatch.service"], None)

    def _bytecode_of(self, state: State) -> t.Callable[[], Bytecode]:
        return lambda: self._compiler.get(self._source_of(state))

    def _source_of(self, state: State) -> str:
        """The program of a state; at first the one that the role installed."""
        return state.program or flatten(self.paths.source)


def _unknown(token: str) -> str:
    if not token:
        return "no change is pending, and none was since the host was booted"
    return (
        "nothing is known of a change with this token: it never went live, or the host has been "
        "booted since; what was confirmed before is in force"
    )


def _renamed(state: State, former: str, interface: str) -> State:
    """What was declared of an interface's former name holds for its new one."""
    if not former or former == interface:
        return state
    interfaces, policy = dict(state.interfaces), dict(state.policy)
    if former in interfaces:
        interfaces.setdefault(interface, interfaces.pop(former))
    if former in policy:
        policy.setdefault(interface, policy.pop(former))
    return state._replace(interfaces=interfaces, policy=policy)


def _count(state: State) -> dict[str, int]:
    from ._describe import count_lists

    return count_lists(state)


def _line(interface: str, mode: str) -> str:
    return f"{interface}: {mode}\n"
