# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""A managed host: the façade that modules and one-shots call.

Declared state is read, edited, planned and checked first; then, under the host's lock, the candidate
is written, compiled tables go live, and the candidate becomes confirmed state. What fails before it
is live leaves everything as it was.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from . import _attach, _protect
from ._address import format_prefix, parse_prefix
from ._alarm import Alarm
from ._compile import Compiler
from ._errors import InvalidInput, LoadFailed, PacketwatchError, Unreadable
from ._files import replace_file
from ._generation import build, capacity_for
from ._lists import Lists, check_protected, compile_lists, is_current
from ._loaded import Loaded, check_memory
from ._pins import Paths, Pins, check_bpffs
from ._policy import resolve_policies
from ._prog import attached
from ._settings import read_settings
from ._source import flatten
from ._store import MODES, State, Store, check_interface

if t.TYPE_CHECKING:
    from ._bans import Ban, Bans
    from ._compile import Bytecode
    from ._edits import Edit
    from ._generation import Image
    from ._libbpf import Map
    from ._status import Status
    from ._types import Run

LOCK_WAIT = 60.0
UNKNOWN = "unknown until attached"
_MILLISECOND = 1_000_000


class Plan(t.NamedTuple):
    """What a change of lists or policies does, or did; `live`: an interface is being filtered."""

    changed: bool
    digest_before: str
    digest_after: str
    counts: dict[str, int]
    states: tuple[State, State]
    live: bool

    def texts(self) -> tuple[str, str]:
        """Before and after, for a diff: only made when asked for, as long lists take a second."""
        # Imported here, as below: a boot does not need it, and it would cost it memory.
        from ._describe import describe

        return describe(*self.states)


class Attachment(t.NamedTuple):
    """What became of an interface; mode: native, generic, none, or `UNKNOWN` in check mode."""

    changed: bool
    interface: str
    mode: str
    reason: str
    program_id: int
    before: str
    after: str


class BanChange(t.NamedTuple):
    """What became of a ban on `source`."""

    changed: bool
    source: str
    before: str
    after: str


class _Draft(t.NamedTuple):
    """A plan with what carrying it out needs."""

    plan: Plan
    state: State
    image: Image
    lists: Lists | None
    declared: bool
    apply: bool


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

    # Lists and policies

    def plan(self, edit: Edit, *, force: bool = False) -> Plan:
        """What `apply` would do; raises all that `apply` raises before it changes anything."""
        with Loaded(self.pins) as loaded:
            if loaded.active:
                _protect.check_room(self._protection(), self._protection_maps())
            return self._draft(loaded, edit, force).plan

    def apply(self, edit: Edit | None = None, *, force: bool = False) -> Plan:
        """Make an edit live and confirm it; without one, make confirmed state live.

        Confirmed state was checked when it was declared, so without an edit nothing is refused
        for what is protected now, or for a bound that has been lowered since.
        """
        with (
            self._noted(edit is None),
            self.store.lock(self._patience),
            Loaded(self.pins) as loaded,
        ):
            draft = self._draft(loaded, edit, force)
            with contextlib.ExitStack() as undo:
                if loaded.active:
                    self._write_protection()
                if loaded.active and draft.apply:
                    undo.callback(loaded.replace(draft.image, self._saved_bytecode))
                if draft.declared:
                    self._confirm(draft.state)
                undo.pop_all()
            self._note(loaded, draft.image, draft.lists)
            if loaded.active:
                self._alarm.set(draft.image.next_expiry)
            return draft.plan

    def verify(self) -> list[str]:
        """Compare what is in the kernel with confirmed state; returns what is wrong, if anything."""
        from ._verify import verify

        return verify(self.store, self.pins, self._status, self._patience)

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

    def _note(self, loaded: Loaded, image: Image, lists: Lists | None) -> None:
        """Let the agent know what is live now. A change is no failure since that is one."""
        with contextlib.suppress(PacketwatchError, OSError):
            number, dummy = self.store.read_current()
            self._status.applied(loaded, number, image, lists)

    def _confirm(self, state: State) -> None:
        """Make a state the confirmed one; what is left of a failure is removed."""
        try:
            self.store.confirm(self.store.write_candidate(state))
        finally:
            with contextlib.suppress(PacketwatchError):
                self.store.prune()

    def _draft(self, loaded: Loaded, edit: Edit | None, force: bool) -> _Draft:
        dummy, before = self.store.read_current()
        after = edit(before) if edit else before
        policies = resolve_policies(after.policy)
        with loaded.generation() as current:
            digest_before = current.digest
            code = current.header["bytecode"]
            live = current.areas() if loaded.active else None
        lists: Lists | None = None
        areas = live
        if areas is None or not is_current(areas, after):
            lists = compile_lists(after)
            areas = lists.areas
            if not force and (after.allow, after.deny) != (before.allow, before.deny):
                lasting = areas
                if any("expires=" in text for text in after.allow.values()):
                    lasting = compile_lists(after, for_good=True).areas
                check_protected(lasting, self._protection())
        image = build(areas, policies, loaded.ifindexes, code)
        if edit:
            _attach.check_listeners(policies, loaded.ifindexes)
            check_memory(capacity_for(image.pages), read_settings(self.paths.settings).list_memory)
        apply = loaded.active and (image.digest != digest_before or not loaded.whole)
        drifted = apply
        if loaded.whole and live is not None and live.lists == areas.lists:
            # That entries expire is no change.
            drifted = build(live, policies, loaded.ifindexes, code).digest != digest_before
        plan = Plan(
            changed=before != after or drifted,
            digest_before=digest_before,
            digest_after=image.digest,
            counts=lists.counts if lists else _count(after),
            states=(before, after),
            live=loaded.active,
        )
        # Lists whose text changed but whose tables did not still need their digest renewed.
        return _Draft(plan, after, image, lists, before != after, apply or lists is not None)

    # Interfaces

    def attach(
        self,
        interface: str,
        mode: str | None = None,
        source: str | None = None,
        *,
        check: bool = False,
    ) -> Attachment:
        """Declare an interface and filter it, by default in its declared mode and with the program
        in use.

        In check mode nothing is compiled, so `auto` stays unknown where nothing is attached.
        """
        return self._attach_to(interface, mode, source, check=check)

    def reattach(self, interface: str) -> Attachment:
        """Filter an interface as confirmed state declares it; InvalidInput if it does not."""
        dummy, state = self.store.read_current()
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
    ) -> Attachment:
        """At boot, what was declared is not judged again."""
        check_interface(interface)
        if mode is not None and mode not in MODES:
            raise InvalidInput(f"mode is {mode!r}: choose one of {', '.join(MODES)}")
        ifindex = _attach.check_device(interface)
        check_bpffs(self.paths.bpffs)
        lock = contextlib.nullcontext() if check else self.store.lock(self._patience)
        with lock, Loaded(self.pins) as loaded:
            _attach.check_free(interface, ifindex, loaded.program_ids)
            dummy, state = self.store.read_current()
            state = _renamed(state, loaded.held_on(ifindex)[0], interface)
            if not boot:
                _attach.check_listeners(resolve_policies(state.policy), [interface])
            if check:
                return self._foretell(loaded, state, interface, ifindex, mode, source)
            return self._attach(loaded, state, interface, ifindex, mode, source)

    def _attach(
        self,
        loaded: Loaded,
        state: State,
        interface: str,
        ifindex: int,
        mode: str | None,
        source: str | None,
    ) -> Attachment:
        dummy, confirmed = self.store.read_current()
        wanted = mode or state.interfaces.get(interface, "auto")
        text = source or self._saved_source()
        bytecode = self._compiler.get(text)
        former = attached(ifindex).mode
        first = not self.pins.loaded()
        with loaded.generation() as current:
            replaced = loaded.program is None or current.header["bytecode"] != bytecode.digest
            digest_before = current.digest
        name, held = loaded.held_on(ifindex)
        moved = held is not None and wanted not in ("auto", former)
        reason = ""
        with contextlib.ExitStack() as undo:
            if held and name != interface:
                undo.callback(loaded.rename, interface, name)
                loaded.rename(name, interface)
            ifindexes = loaded.ifindexes | {interface: ifindex}
            image, lists = self._image(loaded, state, ifindexes, bytecode.digest)
            if replaced or not loaded.whole or image.digest != digest_before:
                undo.callback(loaded.replace(image, lambda: bytecode))
            self._write_protection()
            if held is None or moved:
                undo.callback(loaded.restore, interface, ifindex, former if moved else "none")
                reason = loaded.attach(interface, ifindex, wanted).reason
            saved = self._saved_text()
            renewed = saved != text
            if renewed:
                undo.callback(self._save_source, saved)
                self._save_source(text)
            declared = state._replace(interfaces=state.interfaces | {interface: wanted})
            if declared != confirmed:
                self._confirm(declared)
            undo.pop_all()
        self._note(loaded, image, lists)
        self._alarm.set(image.next_expiry)
        if first:
            self._renew_agent()
        now = attached(ifindex)
        changed = replaced or renewed or held is None or moved or declared != confirmed
        before, after = _line(interface, former), _line(interface, now.mode)
        return Attachment(changed, interface, now.mode, reason, now.program_id, before, after)

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
        replaced = loaded.program is None or (source is not None and source != self._saved_text())
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

    def detach(self, interface: str, *, check: bool = False) -> Attachment:
        """Stop filtering an interface; it need not exist any more. Foreign programs stay."""
        check_interface(interface)
        if check:
            with Loaded(self.pins) as loaded:
                return self._detach(loaded, interface, check)
        with self.store.lock(self._patience), Loaded(self.pins) as loaded:
            return self._detach(loaded, interface, check)

    def _detach(self, loaded: Loaded, interface: str, check: bool) -> Attachment:
        dummy, state = self.store.read_current()
        held = loaded.links.get(interface)
        left = state._replace(
            interfaces={key: mode for key, mode in state.interfaces.items() if key != interface},
            policy={key: keys for key, keys in state.policy.items() if key != interface},
        )
        changed = held is not None or left != state
        mode = attached(held.ifindex).mode if held and held.ifindex else "none"
        before, after = _line(interface, mode), _line(interface, "none")
        if changed and not check:
            if left != state:
                self._confirm(left)
            if held:
                loaded.detach(interface)
            if loaded.active:
                self._forget(loaded, left)
            else:
                self._alarm.set(0)
                self._status.clear()
        return Attachment(changed, interface, "none", "", 0, before, after)

    def _forget(self, loaded: Loaded, state: State) -> None:
        """Take what the live generation says of interfaces that are attached to no more out of it."""
        with loaded.generation() as current:
            code, digest = current.header["bytecode"], current.digest
        image, lists = self._image(loaded, state, loaded.ifindexes, code)
        if image.digest != digest:
            loaded.replace(image, self._saved_bytecode)
        self._note(loaded, image, lists)

    def _image(
        self, loaded: Loaded, state: State, ifindexes: t.Mapping[str, int], code: bytes
    ) -> tuple[Image, Lists | None]:
        """The image, and the lists if those had to be compiled."""
        with loaded.generation() as current:
            areas = current.areas()
        lists = None
        if not is_current(areas, state):
            lists = compile_lists(state)
            areas = lists.areas
        return build(areas, resolve_policies(state.policy), ifindexes, code), lists

    # Bans and information

    def ban(self, address: str, duration: float | None, *, check: bool = False) -> BanChange:
        """Ban a source by hand; InvalidInput if it is protected. Seconds, None: until lifted.

        A standing ban of the same length is left as it is: another run of a play changes nothing.
        """
        bans = self._bans()
        source = bans.source_of(address)
        standing = bans.find(source, "bans")
        before = _ban_line(standing)
        if standing and _is_as_long(standing, duration):
            return BanChange(False, source.text, before, before)
        refusal = bans.protection_of(source)
        if refusal:
            raise InvalidInput(f"{refusal}, so it cannot be banned")
        after = f"{source.text} banned {_length(duration)}\n"
        if not check:
            bans.add(address, duration)
        return BanChange(True, source.text, before, after)

    def unban(self, address: str, *, check: bool = False) -> BanChange:
        """Lift all bans that cover a source; where nothing is loaded there are none."""
        if not self.pins.loaded():
            return BanChange(False, format_prefix(parse_prefix(address)), "", "")
        bans = self._bans()
        found = bans.why(address).bans
        source = bans.source_of(address).text
        if found and not check:
            bans.lift(address)
        before = "".join(_ban_line(ban) for ban in found)
        return BanChange(bool(found), source, before, "")

    def info(self, subset: set[str]) -> dict[str, t.Any]:
        """What the kernel does now and what is declared, by subset (see the module host_info)."""
        # Imported here: what a boot does not need would cost it memory.
        from . import _info

        dummy, state = self.store.read_current()
        return _info.gather(subset, self.pins, state)

    def _bans(self) -> Bans:
        from ._bans import Bans
        from ._info import BAN_MAPS

        if not self.pins.loaded():
            raise InvalidInput(
                "nothing is loaded on this host, so there are no bans: attach the filter first"
            )
        return Bans(self.pins.open_run_maps(BAN_MAPS))

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

    def _saved_bytecode(self) -> Bytecode:
        return self._compiler.get(self._saved_source())

    def _saved_source(self) -> str:
        """The program that was attached last; at first the one that the role installed."""
        text = self._saved_text()
        return flatten(self.paths.source) if text is None else text

    def _saved_text(self) -> str | None:
        try:
            with open(self.paths.program, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{self.paths.program}: {error}") from error

    def _save_source(self, text: str | None) -> None:
        """Keep the program for the next boot."""
        try:
            if text is None:
                os.unlink(self.paths.program)
            else:
                os.makedirs(os.path.dirname(self.paths.program), exist_ok=True)
                replace_file(self.paths.program, text)
        except OSError as error:
            raise LoadFailed(f"the program cannot be kept: {error}") from error


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


def _ban_line(ban: Ban | None) -> str:
    return f"{ban.source.text} banned ({ban.origin_name})\n" if ban else ""


def _is_as_long(ban: Ban, duration: float | None) -> bool:
    if ban.is_over(time.monotonic_ns()):
        return False
    if duration is None or not ban.expires:
        return duration is None and not ban.expires
    if not ban.since:
        # It began before this boot: how long it was is not known any more.
        return ban.expires - time.monotonic_ns() <= duration * 1e9
    # Over a boot it is carried in fractions of a second.
    return abs(ban.expires - ban.since - duration * 1e9) < _MILLISECOND


def _length(duration: float | None) -> str:
    return "until lifted" if duration is None else f"for {duration:g} s"
