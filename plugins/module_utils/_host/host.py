# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""A managed host: the façade that modules and one-shots call.

Declared state is read, edited, planned and checked first (_planner), under the host's lock. A change that
is confirmed at once goes live, and then becomes confirmed state; one that waits to be confirmed is for
_changes. What fails before it is live leaves everything as it was.
"""

from __future__ import annotations

import contextlib
import os
import socket
import typing as t

from .._active import attach as attach_module
from .._active.lists import Lists
from .._active.loaded import Loaded
from .._base.errors import InvalidInput, PacketwatchError
from .._change import panic as panic_module
from .._change import pending as pending_module
from .._change.alarm import Alarm
from .._change.changes import Changes
from .._change.pending import AT_ONCE, Change, Record, Terms
from .._change.planner import Planner, count
from .._change.results import UNKNOWN, Attachment, Outcome, Plan, Switch
from .._declared.policy import resolve_policies
from .._declared.store import MODES, State, Store, check_interface
from .._feeds.spare import write_note
from .._kernel import abi
from .._kernel.bytecode import Compiler
from .._kernel.pins import Paths, Pins, check_bpffs
from .._kernel.programs import attached
from .._kernel.source import check_format
from .._network import protect

if t.TYPE_CHECKING:
    from .._active.generation import Image
    from .._bans.by_hand import BanChange
    from .._base.types import Run
    from .._change.panic import Panic
    from .._change.planner import Draft
    from .._declared.edits import Edit
    from .._health.status import Status
    from .._kernel.libbpf import Map

LOCK_WAIT = 60.0


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
        self.planner = Planner(self.paths, self.store, self.pins, self._compiler)
        self._alarm = Alarm(run, self.paths.runtime, self.paths.units)
        self.record = Record(self.paths.pending)
        self._panic = panic_module.Flag(self.paths.state)
        self._changes = Changes(
            run,
            self.paths,
            self.store,
            self.pins,
            self.planner,
            self.record,
            self._panic,
            self._catch_up,
        )

    # Lists and policies

    def plan(self, edit: Edit, *, force: bool = False, terms: Terms = AT_ONCE) -> Plan:
        """What `apply` would do; raises all that `apply` raises before it changes anything."""
        self._changes.check_terms(terms)
        self._changes.refuse_second(self.pending())
        with Loaded(self.pins) as loaded:
            if loaded.active:
                protect.check_room(self.planner.protection(), self._protection_maps())
            return self.planner.draft(loaded, edit, force, check=True).plan

    def apply(
        self, edit: Edit | None = None, *, force: bool = False, terms: Terms = AT_ONCE
    ) -> Plan:
        """Make an edit live and confirm it, now or as `terms` say; without one, make confirmed
        state live.

        Confirmed state was checked when it was declared, so without an edit nothing is refused
        for what is protected now, or for a bound that has been lowered since. While a change is
        pending, another one is refused, and confirmed state is left to wait.
        """
        self._changes.check_terms(terms)
        with self._noted(edit is None), self.store.lock(self._patience):
            pending = self._changes.settle()
            if edit:
                self._changes.refuse_second(pending)
            with Loaded(self.pins) as loaded:
                if pending:
                    return self._paused(loaded, pending)
                return self._apply(loaded, self.planner.draft(loaded, edit, force), terms)

    def _apply(self, loaded: Loaded, draft: Draft, terms: Terms) -> Plan:
        declared = draft.state if draft.declared else None
        with self._changes.around(loaded, declared, terms, draft.met) as (undo, change):
            if loaded.active:
                self._write_protection()
            if loaded.active and draft.apply:
                bytecode = self.planner.bytecode_of(draft.state)
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
                self._changes.take_back(change)
            raise

    def _paused(self, loaded: Loaded, pending: Change) -> Plan:
        with loaded.generation() as current:
            digest = current.digest
        dummy, state = self.store.read_current()
        paused = f"nothing done: {pending.describe()}"
        states = (state, state)
        return Plan(False, digest, digest, count(state), states, loaded.active, paused=paused)

    def verify(self) -> list[str]:
        """Compare what is in the kernel with confirmed state; returns what is wrong, if anything.

        While a change is pending, something else is in force, and nothing is wrong with that.
        """
        broken = {} if self.pending() else self.planner.feeds().broken
        return self.drift() + [f"{name} is left out: {why}" for name, why in broken.items()]

    def drift(self) -> list[str]:
        """As `verify`, without what no repair on this host can mend."""
        from .._health.verify import verify

        panic = self._panic.read()
        if panic:
            return [panic.describe()]
        if self.pending():
            return []
        return verify(
            self.store, self.pins, self.status, self._patience, self.planner.compile_alike
        )

    def point_to(self, number: int) -> None:
        """Let a state that lies there be the confirmed one."""
        with self.store.lock(self._patience):
            self.store.confirm(number)

    def remake(self) -> None:
        """Make confirmed state live, compiled anew, and pin again what is in use: nothing of what
        the kernel says of itself is believed."""
        with self._noted(True), self.store.lock(self._patience):
            if self._changes.settle():
                return
            with Loaded(self.pins) as loaded:
                is_blind = not self.pins.loaded()
                unpinned = loaded.unpinned()
                if unpinned:
                    self.pins.pin_again(unpinned)
                if loaded.active:
                    self._apply(
                        loaded, self.planner.draft(loaded, None, False, afresh=True), AT_ONCE
                    )
            if unpinned and is_blind:
                self._renew_agent()

    @property
    def status(self) -> Status:
        # Imported here: what only looks needs it not.
        from .._health.status import Status

        return Status(self.paths.status)

    @contextlib.contextmanager
    def _noted(self, concerned: bool) -> t.Iterator[None]:
        """Let the agent know if confirmed state cannot be made live."""
        try:
            yield
        except (PacketwatchError, OSError):
            if concerned:
                self.status.failed()
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
            self.status.applied(loaded, number, state, image, lists)

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
        self._changes.check_terms(terms)
        self._panic.refuse()
        if mode is not None and mode not in MODES:
            raise InvalidInput(f"mode is {mode!r}: choose one of {', '.join(MODES)}")
        ifindex = attach_module.check_device(interface)
        check_bpffs(self.paths.bpffs)
        lock = contextlib.nullcontext() if check else self.store.lock(self._patience)
        with lock:
            pending = self.pending() if check else self._changes.settle()
            if not boot:
                self._changes.refuse_second(pending)
            with Loaded(self.pins) as loaded:
                attach_module.check_free(interface, ifindex, loaded.program_ids)
                confirmed: State | None
                if pending:
                    # Nothing is declared by it.
                    confirmed, state = None, self.store.read(pending.number)
                else:
                    dummy, confirmed = self.store.read_current()
                    state = _renamed(confirmed, loaded.held_on(ifindex)[0], interface)
                if not boot:
                    attach_module.check_listeners(resolve_policies(state.policy), [interface])
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
        text = source or self.planner.source_of(state)
        bytecode = self.planner.compiled(text)
        former = attached(ifindex).mode
        first = not self.pins.loaded()
        with loaded.generation() as current:
            replaced = loaded.program is None or current.header["bytecode"] != bytecode.digest
            digest_before = current.digest
        name, held = loaded.held_on(ifindex)
        moved = held is not None and wanted not in ("auto", former)
        ifindexes = {key: value for key, value in loaded.ifindexes.items() if value != ifindex}
        image, lists = self.planner.image(
            loaded, state, ifindexes | {interface: ifindex}, bytecode.digest
        )
        reload = replaced or not loaded.whole or image.digest != digest_before
        declared = state._replace(
            interfaces=state.interfaces | {interface: wanted},
            program=source or state.program or text,
        )
        wish = declared if confirmed and declared != confirmed else None
        met = reload or held is None or moved
        reason = ""
        with contextlib.ExitStack() as renamed:
            # Before the change begins: if it is taken back, the device keeps its name.
            if held and name != interface:
                renamed.callback(loaded.rename, interface, name)
                loaded.rename(name, interface)
            with self._changes.around(loaded, wish, terms, met) as (undo, change):
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
        text = source or self.planner.source_of(state)
        check_format(text)
        replaced = loaded.program is None or text != state.program
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
        self._changes.check_terms(terms)
        if check:
            self._changes.refuse_second(self.pending())
            with Loaded(self.pins) as loaded:
                return self._detach(loaded, interface, check, terms)
        with self.store.lock(self._patience):
            self._changes.refuse_second(self._changes.settle())
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
        with self._changes.around(loaded, left, terms, True) as (undo, change):
            undo.callback(loaded.restore, interface, ifindex, mode)
            loaded.drop(interface)
            if loaded.active:
                undo.callback(self._forget(loaded, left, change))
            else:
                self._alarm.set(0)
                self.status.clear()
        return change

    def _detach_for_good(self, loaded: Loaded, left: State | None, interface: str) -> None:
        if left:
            self.store.declare(left)
        if interface in loaded.links:
            loaded.detach(interface)
        if loaded.active:
            self._forget(loaded, left or self.store.read_current()[1])
        else:
            self._alarm.set(0)
            self.status.clear()

    def _forget(
        self, loaded: Loaded, state: State, change: Change | None = None
    ) -> t.Callable[[], None]:
        """Take what the live generation says of interfaces that are attached to no more out of it."""
        with loaded.generation() as current:
            header, digest = current.header, current.digest
        image, lists = self.planner.image(loaded, state, loaded.ifindexes, header["bytecode"])
        undo = contextlib.ExitStack()
        # What reads other tables keeps those that it has: a policy too many harms nobody.
        if image.digest != digest and header["format"] == abi.FORMAT:
            undo.callback(loaded.replace(image, self.planner.bytecode_of(state)))
        self._note(loaded, state, image, lists, change)
        return undo.close

    # Changes that wait to be confirmed

    def pending(self) -> Change | None:
        """The change that is pending, for whoever only looks."""
        return self._changes.pending()

    def confirm(self, token: str = "") -> Outcome:
        """Make the pending change what boot reads; without a token, whosever it is.

        Confirming twice is no error. Raises `Returned` if the host has gone back meanwhile.
        """
        with self.store.lock(self._patience):
            return self._changes.confirm(token)

    def roll_back(self, token: str = "", *, due: bool = False) -> Outcome:
        """Return to what was confirmed before the pending change; due: only if its time is up."""
        with self.store.lock(self._patience):
            return self._changes.roll_back(token, due)

    def self_test(self, token: str = "") -> None:
        """Ask the loaded program whether protected addresses still reach the SSH server.

        For where no fresh connection could tell. LoadFailed, with the pending change of that
        token rolled back, if one does not, or if it cannot be told.
        """
        # Imported here: what a boot does not need would cost it memory.
        from .._network import peers, reach

        try:
            network = protect.read_network()
            with Loaded(self.pins) as loaded:
                reach.check(
                    reach.unreached(
                        loaded.ifindexes,
                        self.planner.protection(network),
                        network,
                        peers.ssh_ports(),
                    )
                )
        except BaseException:
            self.roll_back(token)
            raise

    def _catch_up(self) -> None:
        """Do what had to wait while a change was pending: entries may have expired."""
        with contextlib.suppress(PacketwatchError, OSError), Loaded(self.pins) as loaded:
            if loaded.active:
                self._apply(loaded, self.planner.draft(loaded, None, False), AT_ONCE)
            else:
                self.status.clear()

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
                self._panic.raise_up(owner or pending_module.caller())
        finally:
            detached = panic_module.detach(self.pins)
        with self.store.lock(self._patience):
            detached += panic_module.detach(self.pins)
            change = self._changes.settle()
            if change:
                self._changes.take_back(change)
            self._alarm.set(0)
            self.status.clear()
        return Switch(new or bool(detached), self._panic.read())

    def lift(self, *, check: bool = False, terms: Terms = AT_ONCE) -> Switch:
        """Filter again what confirmed state declares; if that is not confirmed, the panic goes on."""
        self._changes.check_terms(terms)
        if check:
            self._changes.refuse_second(self.pending())
            panic = self._panic.read()
            return Switch(panic is not None, panic)
        with self.store.lock(self._patience):
            self._changes.refuse_second(self._changes.settle())
            panic = self._panic.read()
            if panic is None:
                return Switch(False, None)
            with Loaded(self.pins) as loaded, contextlib.ExitStack() as undo:
                undo.callback(panic_module.detach, self.pins)
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
            undo.callback(self._changes.abandon)
            change = self._changes.begin(loaded, state, terms, lifts=True)
        for name in sorted(present.keys() & state.interfaces):
            attach_module.check_free(name, present[name], loaded.program_ids)
            self._attach(loaded, None, state, name, present[name], None, None, AT_ONCE)
        return change

    # Bans and information

    def ban(self, address: str, duration: float | None, *, check: bool = False) -> BanChange:
        """Ban a source by hand; InvalidInput if it is protected. Seconds, None: until lifted."""
        from .._bans import by_hand

        return by_hand.ban(self.pins, address, duration, check)

    def unban(self, address: str, *, check: bool = False) -> BanChange:
        """Lift all bans that cover a source; where nothing is loaded there are none."""
        from .._bans import by_hand

        return by_hand.unban(self._run, self.pins, address, check)

    def info(self, subset: set[str]) -> dict[str, t.Any]:
        """What the kernel does now and what is declared, by subset (see the module host_info)."""
        # Imported here: what a boot does not need would cost it memory.
        from .._health import info as info_module

        dummy, state = self.store.read_current()
        found = info_module.gather(subset, self.pins, state)
        if "change" in subset:
            found["change"] = info_module.change(
                self.store, state, self.record.read(), self.pending()
            )
        if "panic" in subset:
            found["panic"] = info_module.panic(self.panicking())
        if "version" in subset:
            found["version"] = info_module.version(self.paths.source)
        return found

    # Helpers

    def _write_protection(self) -> None:
        protect.write(self.planner.protection(), self._protection_maps())

    def _protection_maps(self) -> dict[str, Map]:
        return self.pins.open_run_maps(("hosts", "nets", "local"))

    def _renew_agent(self) -> None:
        """Start a running agent anew: it sees the maps through a mount made when it started."""
        if os.path.exists(os.path.join(self.paths.units, "packetwatch.service")):
            # Whether that works or not, the filter does.
            self._run(["systemctl", "--no-block", "try-restart", "packetwatch.service"], None)


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


def _line(interface: str, mode: str) -> str:
    return f"{interface}: {mode}\n"
