# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Attaching the filter to an interface, and detaching it.

Check mode and apply share one plan: check mode reports it, apply carries it out.
"""

from __future__ import annotations

import contextlib
import typing as t

from .._active import attach
from .._base.errors import InvalidInput
from .._change.pending import AT_ONCE
from .._change.results import UNKNOWN, Attachment
from .._declared.policy import resolve_policies
from .._declared.store import MODES, check_interface
from .._kernel import abi
from .._kernel.pins import check_bpffs
from .._kernel.programs import attached
from .._network.devices import check_device

if t.TYPE_CHECKING:
    from .._change.pending import Change, Terms
    from .._declared.store import State
    from .._kernel.bytecode import Bytecode
    from .._network.snapshot import Snapshot
    from .site import Site, Work


class Order(t.NamedTuple):
    """The caller's wish. mode None: the declared mode. source None: the program in use.

    judge: refuse what contradicts the policies; False for interfaces that are already declared.
    declare: write the order to confirmed state, unless a change is pending.
    """

    interface: str
    mode: t.Optional[str] = None
    source: t.Optional[str] = None
    judge: bool = True
    declare: bool = True


class Target(t.NamedTuple):
    """The device of an order as it is now.

    former: the device's name when the filter was attached; empty if no filter is attached.
    """

    name: str
    ifindex: int
    former: str
    mode: str
    program_id: int


class Attaching(t.NamedTuple):
    """The plan of an order.

    mode: the wanted one of `MODES`. state: the state after the order. code: None if check mode would have
    to compile it. replaces: the loaded program is replaced. declares: confirmed state changes.
    """

    target: Target
    mode: str
    state: State
    code: t.Optional[Bytecode]
    replaces: bool
    declares: bool

    @property
    def moves(self) -> bool:
        """Whether the device is filtered in a mode that is not the wanted one."""
        return bool(self.target.former) and self.mode not in ("auto", self.target.mode)

    @property
    def links(self) -> bool:
        """Whether a new link is made."""
        return not self.target.former or self.moves

    def result(
        self, mode: str, program_id: int, reason: str = "", change: Change | None = None
    ) -> Attachment:
        """The result. mode, program_id: those of the device after the order."""
        name = self.target.name
        return Attachment(
            self.replaces or self.links or self.declares,
            name,
            mode,
            reason,
            program_id,
            _line(name, self.target.mode),
            _line(name, mode),
            change,
        )

    def forecast(self) -> Attachment:
        """The result as far as it is known without compiling and attaching."""
        mode = self.mode if self.links else self.target.mode
        return self.result(UNKNOWN if mode == "auto" else mode, self.target.program_id)


def check_order(site: Site, order: Order, terms: Terms, snapshot: Snapshot) -> None:
    """Raise errors that can be found without the lock."""
    check_interface(order.interface)
    site.changes.check_terms(terms)
    site.changes.panic.refuse()
    if order.mode is not None and order.mode not in MODES:
        raise InvalidInput(f"mode is {order.mode!r}: choose one of {', '.join(MODES)}")
    check_device(order.interface, snapshot.links)
    check_bpffs(site.paths.bpffs)


def attach_to(
    work: Work, order: Order, terms: Terms = AT_ONCE, *, check: bool = False
) -> Attachment:
    """Filter an interface as ordered. check: only return what that would do, without compiling."""
    plan = _plan(work, order, check)
    if check or plan.code is None:
        return plan.forecast()
    return _carry_out(work, plan, plan.code, terms)


def _plan(work: Work, order: Order, check: bool) -> Attaching:
    target = _target(work, order.interface)
    base, before = _states(work, target)
    if order.judge:
        policies = resolve_policies(before.policy)
        attach.check_listeners(policies, [target.name], work.planner.snapshot.links)
    programs = work.planner.programs
    source = order.source or programs.source(before)
    code = programs.cached(source) if check else programs.bytecode(source)
    mode = order.mode or before.interfaces.get(target.name, "auto")
    after = before
    if order.declare and not work.pending:
        after = before._replace(
            interfaces=before.interfaces | {target.name: mode},
            program=order.source or before.program or source,
        )
    return Attaching(
        target=target,
        mode=mode,
        state=after,
        code=code,
        replaces=_replaces(work, before, source, code),
        declares=order.declare and after != base,
    )


def _target(work: Work, interface: str) -> Target:
    """The device of that name; `Foreign` if it has the program of another tool."""
    ifindex = check_device(interface, work.planner.snapshot.links).ifindex
    attach.check_free(interface, ifindex, work.loaded.program_ids)
    now = attached(ifindex)
    return Target(interface, ifindex, work.loaded.held_on(ifindex)[0], now.mode, now.program_id)


def _states(work: Work, target: Target) -> tuple[State, State]:
    """The state that decides now, and the same state with the device's present name.

    While a change is pending, that is the pending state: a device that comes back is filtered like all
    other devices.
    """
    if work.pending:
        candidate = work.site.store.read(work.pending.number)
        return candidate, candidate
    dummy, confirmed = work.site.store.read_current()
    return confirmed, _renamed(confirmed, target.former, target.name)


def _replaces(work: Work, state: State, source: str, code: Bytecode | None) -> bool:
    """Whether `source` would replace the loaded program. code: None if it is not compiled yet."""
    if work.loaded.program is None:
        return True
    if code is None:
        return source != state.program
    with work.loaded.generation() as current:
        return bool(current.header["bytecode"] != code.digest)


def _carry_out(work: Work, plan: Attaching, code: Bytecode, terms: Terms) -> Attachment:
    site, loaded, target = work.site, work.loaded, plan.target
    first = not site.pins.loaded()
    ifindexes = {key: value for key, value in loaded.ifindexes.items() if value != target.ifindex}
    image, lists = work.planner.image(
        plan.state, ifindexes | {target.name: target.ifindex}, code.digest
    )
    with loaded.generation() as current:
        renews = plan.replaces or not loaded.whole or image.digest != current.digest
    declared = plan.state if plan.declares else None
    reason = ""
    with (
        _renaming(work, target),
        site.changes.around(loaded, declared, terms, renews or plan.links) as (undo, change),
    ):
        if renews:
            undo.callback(loaded.replace(image, lambda: code))
        work.write_protection()
        if plan.links:
            mode = target.mode if plan.moves else "none"
            undo.callback(loaded.restore, target.name, target.ifindex, mode)
            reason = loaded.attach(target.name, target.ifindex, plan.mode).reason
    work.report(plan.state, image, lists, change)
    work.wake_at(image.next_expiry, change)
    if first:
        site.renew_agent()
    now = attached(target.ifindex)
    return plan.result(now.mode, now.program_id, reason, change)


@contextlib.contextmanager
def _renaming(work: Work, target: Target) -> t.Iterator[None]:
    """Rename the pin of our link to the device's present name, and back if the change fails.

    This is not part of the change: if the change is reverted later, the device keeps its name.
    """
    if target.former in ("", target.name):
        yield
        return
    work.loaded.rename(target.former, target.name)
    try:
        yield
    except BaseException:
        work.loaded.rename(target.name, target.former)
        raise


def detach_from(
    work: Work, interface: str, terms: Terms = AT_ONCE, *, check: bool = False
) -> Attachment:
    """Stop filtering an interface, and remove it from declared state."""
    dummy, state = work.site.store.read_current()
    held = work.loaded.links.get(interface)
    left = state._replace(
        interfaces={key: mode for key, mode in state.interfaces.items() if key != interface},
        policy={key: keys for key, keys in state.policy.items() if key != interface},
    )
    changed = held is not None or left != state
    mode = attached(held.ifindex).mode if held and held.ifindex else "none"
    change = None
    if changed and not check:
        if held and held.ifindex and left != state and terms.seconds:
            change = _detach_pending(work, left, interface, mode, terms)
        else:
            _detach_confirmed(work, left if left != state else None, interface)
    before, after = _line(interface, mode), _line(interface, "none")
    return Attachment(changed, interface, "none", "", 0, before, after, change)


def _detach_pending(
    work: Work, left: State, interface: str, mode: str, terms: Terms
) -> Change | None:
    """Detach. What is loaded stays until the change is confirmed, even if this was the last interface."""
    loaded = work.loaded
    ifindex = loaded.links[interface].ifindex
    with work.site.changes.around(loaded, left, terms, True) as (undo, change):
        undo.callback(loaded.restore, interface, ifindex, mode)
        loaded.drop(interface)
        if loaded.active:
            undo.callback(_forget(work, left, change))
        else:
            work.site.quiet()
    return change


def _detach_confirmed(work: Work, left: State | None, interface: str) -> None:
    """Detach and confirm. left: the new declared state; None if it does not change."""
    store = work.site.store
    if left:
        store.declare(left)
    if interface in work.loaded.links:
        work.loaded.detach(interface)
    if work.loaded.active:
        _forget(work, left or store.read_current()[1])
    else:
        work.site.quiet()


def _forget(work: Work, state: State, change: Change | None = None) -> t.Callable[[], None]:
    """Remove the policies of interfaces that are no longer filtered from the active generation.

    Returns a function that undoes this.
    """
    loaded = work.loaded
    with loaded.generation() as current:
        header, digest = current.header, current.digest
    image, lists = work.planner.image(state, loaded.ifindexes, header["bytecode"])
    undo = contextlib.ExitStack()
    # A program that reads another table format keeps its generation: a superfluous policy does no harm.
    if image.digest != digest and header["format"] == abi.FORMAT:
        undo.callback(loaded.replace(image, work.planner.programs.of(state)))
    work.report(state, image, lists, change)
    return undo.close


def _renamed(state: State, former: str, interface: str) -> State:
    """The state with declarations for an interface's former name moved to its present name."""
    if former in ("", interface):
        return state
    interfaces, policy = dict(state.interfaces), dict(state.policy)
    if former in interfaces:
        interfaces.setdefault(interface, interfaces.pop(former))
    if former in policy:
        policy.setdefault(interface, policy.pop(former))
    return state._replace(interfaces=interfaces, policy=policy)


def _line(interface: str, mode: str) -> str:
    return f"{interface}: {mode}\n"
