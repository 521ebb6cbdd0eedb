# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The interfaces to which a change attaches the filter, and those from which it detaches the filter."""

from __future__ import annotations

import contextlib
import typing as t

from .._active.attach import check_free
from .._base.errors import Foreign, PacketwatchError, Unsupported
from .._dispatcher.place import is_dispatcher, read_place
from .._kernel.pins import check_bpffs
from .._kernel.programs import Attached, attached
from .._network.devices import check_device
from .results import UNKNOWN, attachment

if t.TYPE_CHECKING:
    from .._active.loaded import Held, Loaded
    from .._declared.store import State
    from .._network.snapshot import Snapshot
    from .results import Attachment


class Wish(t.NamedTuple):
    """Interfaces that a caller names, besides those whose declaration its edit changes.

    attach: they must exist, and a missing link is made again. detach: a link is removed even if no state
    declares it.
    """

    attach: t.Collection[str] = ()
    detach: t.Collection[str] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.attach, *self.detach)


NO_WISH = Wish()


class Target(t.NamedTuple):
    """A device to filter, as it is before the change.

    label: that of its link; empty if it has none. mode, program_id: what is attached now. wanted: one of
    `MODES`.
    """

    name: str
    ifindex: int
    label: str
    mode: str
    program_id: int
    wanted: str

    @property
    def moves(self) -> bool:
        """Whether the device is filtered in a mode that is not the wanted one."""
        if self.wanted == "auto":
            return bool(self.label) and is_dispatcher(self.mode)
        return bool(self.label) and self.wanted != self.mode

    @property
    def links(self) -> bool:
        """Whether a new link is made."""
        return not self.label or self.moves

    def forecast(self) -> Attachment:
        """The result as far as it is known without attaching."""
        mode = self.wanted if self.links else self.mode
        return self.result(UNKNOWN if mode == "auto" else mode, self.program_id)

    def result(self, mode: str, program_id: int, reason: str = "") -> Attachment:
        """The result. mode, program_id: those of the device after the change."""
        return attachment(self.name, self.mode, mode, program_id, self.links, reason)


class Drop(t.NamedTuple):
    """A link to remove, with the interface that it stands for.

    ifindex: 0 if the device is not in this namespace. mode: the one it had.
    """

    name: str
    ifindex: int
    mode: str
    held: Held

    def result(self) -> Attachment:
        return attachment(self.name, self.mode, "none")


class Links(t.NamedTuple):
    """What a change does to links."""

    targets: tuple[Target, ...] = ()
    drops: tuple[Drop, ...] = ()

    @property
    def made(self) -> list[Target]:
        """The targets that get a new link."""
        return [target for target in self.targets if target.links]

    @property
    def joins(self) -> bool:
        """Whether the program is needed for a dispatcher."""
        return any(is_dispatcher(target.wanted) for target in self.targets)

    @property
    def met(self) -> bool:
        """Whether packets of an interface are filtered that were not, or the other way round."""
        return bool(self.made or [drop for drop in self.drops if drop.ifindex])

    def forecast(self) -> tuple[Attachment, ...]:
        targets = (target.forecast() for target in self.targets)
        return (*targets, *(drop.result() for drop in self.drops))

    def after(self, ifindexes: t.Mapping[str, int]) -> dict[str, int]:
        """The filtered interfaces after the change; ifindexes: those before it."""
        moved = {drop.ifindex for drop in self.drops}
        moved |= {target.ifindex for target in self.targets}
        left = {name: ifindex for name, ifindex in ifindexes.items() if ifindex not in moved}
        return left | {target.name: target.ifindex for target in self.targets}

    def filters(self, loaded: Loaded) -> bool:
        """Whether any device is filtered after the change, here or in another namespace."""
        gone = {drop.held.pin for drop in self.drops}
        away = (held for held in loaded.away if held.ifindex and held.pin not in gone)
        return bool(self.after(loaded.ifindexes)) or any(away)


NO_LINKS = Links()


def renamed(state: State, names: t.Iterable[str], loaded: Loaded) -> State:
    """The state with declarations for former names of devices moved to their present names.

    A declaration stays where it is if another device has the former name now, or if the present name is
    declared too.
    """
    for name in names:
        former = loaded.renamed(state.interfaces).get(name, "")
        if former in ("", *loaded.present):
            continue
        interfaces, policy, nexts = dict(state.interfaces), dict(state.policy), dict(state.next)
        interfaces[name] = interfaces.pop(former)
        if former in policy:
            policy.setdefault(name, policy.pop(former))
        if former in nexts:
            nexts.setdefault(name, nexts.pop(former))
        state = state._replace(interfaces=interfaces, policy=policy, next=nexts)
    return state


def plan_links(
    before: State,
    after: State,
    wish: Wish,
    loaded: Loaded,
    snapshot: Snapshot,
    *,
    check: bool = False,
) -> Links:
    """Plan the links of a change from one state to the next.

    Raises an error if an interface does not exist, cannot be filtered, or has the program of another
    tool. check: the change is not carried out, so it need not be possible yet to ask the kernel.

    A change that concerns interfaces also settles renames: a declared name is filtered if its device is
    another one now, and a device is no longer filtered if it is not declared under its present name and
    another device has its former one.
    """
    names = {
        name for name, mode in after.interfaces.items() if before.interfaces.get(name) != mode
    } | set(wish.attach)
    gone = (before.interfaces.keys() - after.interfaces.keys()) | set(wish.detach)
    if not names and not gone:
        return NO_LINKS
    targets = [_target(name, after, loaded, snapshot, check) for name in sorted(names)]
    for name in sorted(_taken(after, loaded) - names):
        # The caller has not named it, so it refuses nothing.
        with contextlib.suppress(PacketwatchError):
            targets.append(_target(name, after, loaded, snapshot, check))
    if any(target.links for target in targets):
        check_bpffs(loaded.pins.root)
    wanted = {target.ifindex for target in targets}
    filtered = {target.name for target in targets} | loaded.links.keys()
    drops = {name: loaded.named(name, before.interfaces) for name in sorted(gone)}
    for name, former in loaded.displaced({*before.interfaces, *after.interfaces}).items():
        if former in filtered or former not in after.interfaces:
            drops.setdefault(name, loaded.links[name])
    planned = (_drop(name, held, loaded) for name, held in drops.items() if held)
    return Links(tuple(targets), tuple(drop for drop in planned if drop.ifindex not in wanted))


def _taken(state: State, loaded: Loaded) -> set[str]:
    """Declared names of devices that are not filtered, while a device that had this name before is."""
    labels = {held.label for name, held in loaded.links.items() if held.label != name}
    return labels & state.interfaces.keys() & loaded.present.keys() - loaded.links.keys()


def _target(name: str, after: State, loaded: Loaded, snapshot: Snapshot, check: bool) -> Target:
    ifindex = check_device(name, snapshot.links).ifindex
    wanted = after.interfaces.get(name, "auto")
    if is_dispatcher(wanted):
        wanted = read_place(wanted).mode()
    now = _ask(name, ifindex, wanted, loaded, check)
    held = loaded.held_on(ifindex)
    mode = loaded.mode_on(ifindex) if held else now.mode
    if not held and is_dispatcher(wanted):
        # What is attached there is not ours.
        mode = "none"
    target = Target(name, ifindex, held.label if held else "", mode, now.program_id, wanted)
    if target.links and is_dispatcher(wanted):
        _check_dispatcher(check)
    elif target.moves and held and held.membership and held.membership.others:
        others = ", ".join(f"{found.name} (id {found.id})" for found in held.membership.others)
        raise Foreign(
            f"{name} cannot change to mode {wanted}: its dispatcher has other programs: {others}; remove them "
            "with the tool that attached them, or keep mode dispatcher"
        )
    return target


def _check_dispatcher(check: bool) -> None:
    """Refuse a dispatcher where libxdp or the kernel lacks what it needs."""
    # Imported here: only a change that joins a dispatcher needs it.
    from .._dispatcher.builder import find_object
    from .._dispatcher.extension import check_kernel

    try:
        find_object()
    except Unsupported:
        # The first installation brings the library.
        if check:
            return
        raise
    check_kernel()


def _drop(name: str, held: Held, loaded: Loaded) -> Drop:
    ifindex = 0 if held in loaded.away else held.ifindex
    return Drop(name, ifindex, loaded.mode_on(ifindex) if ifindex else "none", held)


def _ask(name: str, ifindex: int, mode: str, loaded: Loaded, check: bool) -> Attached:
    """The program on a device; `Foreign` if it is the program of another tool."""
    try:
        check_free(name, ifindex, mode, loaded.program_ids, loaded.dispatchers)
        return attached(ifindex)
    except Unsupported:
        # Before the first installation libbpf may be missing.
        if not check:
            raise
        return Attached(0, "none")
