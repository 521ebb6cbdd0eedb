# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The interfaces to which a change attaches the filter, and those from which it detaches the filter."""

from __future__ import annotations

import typing as t

from .._active.attach import check_free
from .._base.errors import Unsupported
from .._kernel.pins import check_bpffs
from .._kernel.programs import Attached, attached
from .._network.devices import check_device
from .results import UNKNOWN, attachment

if t.TYPE_CHECKING:
    from .._active.loaded import Loaded
    from .._declared.store import State
    from .._kernel.netlink import Link
    from .._network.snapshot import Snapshot
    from .results import Attachment


class Wish(t.NamedTuple):
    """Interfaces that a caller names, besides those whose declaration its edit changes.

    attach: they must exist, and a missing link is made again. detach: a link is removed even if no state
    declares it.
    """

    attach: t.Collection[str] = ()
    detach: t.Collection[str] = ()


NO_WISH = Wish()


class Target(t.NamedTuple):
    """A device to filter, as it is before the change.

    former: the device's name when the filter was attached; empty if no filter is attached. mode,
    program_id: what is attached now. wanted: one of `MODES`.
    """

    name: str
    ifindex: int
    former: str
    mode: str
    program_id: int
    wanted: str

    @property
    def moves(self) -> bool:
        """Whether the device is filtered in a mode that is not the wanted one."""
        return bool(self.former) and self.wanted not in ("auto", self.mode)

    @property
    def links(self) -> bool:
        """Whether a new link is made."""
        return not self.former or self.moves

    def forecast(self) -> Attachment:
        """The result as far as it is known without attaching."""
        mode = self.wanted if self.links else self.mode
        return self.result(UNKNOWN if mode == "auto" else mode, self.program_id)

    def result(self, mode: str, program_id: int, reason: str = "") -> Attachment:
        """The result. mode, program_id: those of the device after the change."""
        return attachment(self.name, self.mode, mode, program_id, self.links, reason)


class Drop(t.NamedTuple):
    """A link to remove. ifindex: 0 if the device has disappeared. mode: the one it had."""

    name: str
    ifindex: int
    mode: str

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
    def met(self) -> bool:
        """Whether packets of an interface are filtered that were not, or the other way round."""
        return bool(self.made or [drop for drop in self.drops if drop.ifindex])

    def forecast(self) -> tuple[Attachment, ...]:
        targets = (target.forecast() for target in self.targets)
        return (*targets, *(drop.result() for drop in self.drops))

    def after(self, ifindexes: t.Mapping[str, int]) -> dict[str, int]:
        """The filtered interfaces after the change; ifindexes: those before it."""
        gone = {drop.name for drop in self.drops}
        moved = {target.ifindex for target in self.targets}
        left = {
            name: ifindex
            for name, ifindex in ifindexes.items()
            if name not in gone and ifindex not in moved
        }
        return left | {target.name: target.ifindex for target in self.targets}


NO_LINKS = Links()


def renamed(state: State, names: t.Iterable[str], loaded: Loaded, links: t.Sequence[Link]) -> State:
    """The state with declarations for former names of devices moved to their present names."""
    for name in names:
        former = loaded.held_on(check_device(name, links).ifindex)[0]
        if former in ("", name):
            continue
        interfaces, policy = dict(state.interfaces), dict(state.policy)
        if former in interfaces:
            interfaces.setdefault(name, interfaces.pop(former))
        if former in policy:
            policy.setdefault(name, policy.pop(former))
        state = state._replace(interfaces=interfaces, policy=policy)
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
    """
    names = {
        name for name, mode in after.interfaces.items() if before.interfaces.get(name) != mode
    } | set(wish.attach)
    gone = (before.interfaces.keys() - after.interfaces.keys()) | set(wish.detach)
    targets = []
    for name in sorted(names):
        ifindex = check_device(name, snapshot.links).ifindex
        now = _ask(name, ifindex, loaded, check)
        former = loaded.held_on(ifindex)[0]
        wanted = after.interfaces.get(name, "auto")
        targets.append(Target(name, ifindex, former, now.mode, now.program_id, wanted))
    if any(target.links for target in targets):
        check_bpffs(loaded.pins.root)
    moved = {target.former for target in targets}
    drops = []
    for name in sorted(gone - moved):
        held = loaded.links.get(name)
        if held:
            mode = attached(held.ifindex).mode if held.ifindex else "none"
            drops.append(Drop(name, held.ifindex, mode))
    return Links(tuple(targets), tuple(drops))


def _ask(name: str, ifindex: int, loaded: Loaded, check: bool) -> Attached:
    """The program on a device; `Foreign` if it is the program of another tool."""
    try:
        check_free(name, ifindex, loaded.program_ids)
        return attached(ifindex)
    except Unsupported:
        # Before the first installation libbpf may be missing.
        if not check:
            raise
        return Attached(0, "none")
