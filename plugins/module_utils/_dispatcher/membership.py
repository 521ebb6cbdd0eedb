# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Our program in the dispatcher of an interface: join, change the place or the program, leave.

An interface is marked as a member's by an empty folder in bpffs, because a link of ours would not follow when
another tool replaces the dispatcher. Which programs a dispatcher has, and where, only its pins say.
"""

from __future__ import annotations

import contextlib
import typing as t

from .._base.errors import Foreign, LoadFailed
from .member import Member
from .place import Place, actions_of

if t.TYPE_CHECKING:
    from .._kernel.programs import Program
    from .chain import Dispatchers
    from .member import Chain

NAME = "packetwatch"
"""Our program's name in the kernel."""


class Membership:
    """Our program in a dispatcher, used as a `Link` is.

    members: all programs of the dispatcher. member: ours; None if the dispatcher does not have it.
    """

    def __init__(self, dispatchers: Dispatchers, ifindex: int, chain: Chain | None) -> None:
        self._dispatchers = dispatchers
        self._ifindex = ifindex
        self._put(chain)

    @classmethod
    def find(cls, dispatchers: Dispatchers, ifindex: int) -> Membership:
        """Read whether our program is in the dispatcher of an interface."""
        chain = None
        # A dispatcher without pins has no programs.
        with contextlib.suppress(Foreign):
            chain = dispatchers.read(ifindex)
        return cls(dispatchers, ifindex, chain)

    @property
    def program_id(self) -> int:
        """The id of our program in the dispatcher; 0 if it is not there."""
        return self.member.id if self.member else 0

    @property
    def place(self) -> Place:
        return place_of(self.member) if self.member else Place()

    @property
    def others(self) -> tuple[Member, ...]:
        """The other programs of the dispatcher."""
        return tuple(found for found in self.members if found != self.member)

    def info(self) -> tuple[int, int]:
        """The dispatcher's program id and its ifindex; 0 if our program is not there."""
        return (self._runs, self._ifindex) if self.member else (0, 0)

    def update(self, extension: Program) -> None:
        """Replace our program in one step, with the place that it has."""
        self._join(extension, self.place)

    def move(self, extension: Program, place: Place) -> None:
        """Change the place in one step."""
        self._join(extension, place)

    def leave(self) -> None:
        """Remove our program, also if the device is in another namespace; the others go on."""
        if self.member:
            self._put(self._dispatchers.change(self._ifindex, _without_us, ""))
        else:
            self._dispatchers.let_go(self._ifindex, NAME)

    def close(self) -> None:
        """Nothing is open."""

    def _join(self, extension: Program, place: Place) -> None:
        try:
            self._put(join(self._dispatchers, self._ifindex, extension, place, "", is_ours=True))
        except OSError as error:
            raise LoadFailed(
                f"the interface {self._ifindex} refuses the changed dispatcher ({error.strerror}), and keeps the former "
                f"one{explain_frags(self.members)}"
            ) from error

    def _put(self, chain: Chain | None) -> None:
        self.member = chain.find(NAME) if chain else None
        self._runs = chain.program_id if chain else 0
        self.members = chain.members if chain else ()


def place_of(member: Member) -> Place:
    return Place(member.priority, actions_of(member.actions))


def join(
    dispatchers: Dispatchers,
    ifindex: int,
    extension: Program,
    place: Place,
    mode: str,
    *,
    is_ours: bool,
) -> Chain | None:
    """Put our program into the dispatcher of an interface, which is made if there is no program.

    mode: of a new dispatcher, native or generic. is_ours: a program of our name there is replaced; otherwise
    it raises `Foreign`.
    """
    info = extension.info()
    member = Member(
        info.id, info.name, info.tag, info.loaded, place.priority, place.bits, has_frags=True
    )

    def edit(members: tuple[Member, ...]) -> t.Iterable[Member]:
        if not is_ours:
            refuse_second(members)
        return (*_without_us(members), member)

    return dispatchers.change(ifindex, edit, mode)


def refuse_second(members: t.Iterable[Member]) -> None:
    """Raise `Foreign` if a program of our name is among them, which is not ours."""
    for found in members:
        if found.name == NAME:
            raise Foreign(
                f"the dispatcher already has a program {NAME} (id {found.id}), and two of them would count each "
                f"packet twice: remove it (xdp-loader unload INTERFACE --id {found.id})"
            )


def explain_frags(members: t.Iterable[Member]) -> str:
    """Which programs keep the dispatcher from packets of several buffers, as the end of a message."""
    without = [f"{found.name} (id {found.id})" for found in members if not found.has_frags]
    if not without:
        return ""
    return (
        "; a dispatcher accepts packets of several buffers, which a large MTU needs, only if all its programs "
        f"do, and {', '.join(without)} does not: remove it, or lower the MTU"
    )


def _without_us(members: tuple[Member, ...]) -> list[Member]:
    return [found for found in members if found.name != NAME]
