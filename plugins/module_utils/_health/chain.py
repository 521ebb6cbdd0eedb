# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Which XDP programs run on an interface, and in what order."""

from __future__ import annotations

import typing as t

from .._base.errors import PacketwatchError, Unsupported
from .._declared.nexts import pin_of
from .._dispatcher.membership import place_of
from .._kernel.libbpf import KernelError
from .._kernel.nexts import LACKING, Wanted, open_program
from .._kernel.programs import Program, attached

if t.TYPE_CHECKING:
    from .._active.loaded import Loaded
    from .._declared.nexts import Next
    from .._declared.store import State
    from .._kernel.nexts import Nexts

OURS, NEXT, OTHER = "packetwatch", "next", "other"
SOURCE = "next_src"
_PASS = ("pass",)
_NOT_THERE = "it is not in its place: packetwatchctl apply puts it there"


class Member(t.NamedTuple):
    """One program, in the order in which a packet meets them.

    kind: what it is to us, one of `OURS`, `NEXT` and `OTHER`. id, name, tag: the kernel's; id 0: it is
    declared but does not run. passes_on: the verdicts with which a packet goes on to the following member;
    with any other verdict, and after the last member, the verdict holds. origin: where the program comes
    from, as declared. problem: why it does not run, or is not the declared one. strays: whether an apply puts
    that right.
    """

    kind: str
    id: int
    name: str
    tag: str
    passes_on: tuple[str, ...] = ()
    origin: str = ""
    problem: str = ""
    strays: bool = False


Chain = t.Sequence[Member]


def read_chains(loaded: Loaded, state: State) -> dict[str, Chain]:
    """The chain of each interface that is filtered, or declared and present; by its present name."""
    names = {*loaded.links, *(loaded.present.keys() & state.interfaces.keys())}
    nexts = loaded.nexts()
    chains: dict[str, Chain] = {}
    for name in sorted(names):
        held = loaded.links.get(name)
        there = attached(loaded.present[name]).program_id
        if held is None or there != held.runs:
            chains[name] = [_member(OTHER, there)] if there else []
            continue
        if held.membership:
            chains[name] = [
                _member(OURS if found.id == held.program_id else OTHER, found.id)._replace(
                    passes_on=place_of(found).actions
                )
                for found in held.membership.members
            ]
            continue
        item = state.next.get(loaded.owner(name, state.interfaces))
        after = _after(loaded, nexts, held.ifindex, item)
        ours = _member(OURS, there)
        chains[name] = [ours._replace(passes_on=_PASS), after] if after else [ours]
    return chains


def nexts(chains: t.Mapping[str, Chain]) -> dict[str, str]:
    """What is wrong with the next program of each interface that has one; empty if nothing is."""
    return {
        name: member.problem
        for name, chain in chains.items()
        for member in chain
        if member.kind == NEXT
    }


def strayed(chains: t.Mapping[str, Chain]) -> list[str]:
    """The interfaces whose next program is not the declared one, which an apply puts right."""
    return [name for name, chain in chains.items() if any(member.strays for member in chain)]


def as_fields(chain: Chain) -> list[dict[str, t.Any]]:
    """The chain as JSON has it."""
    return [member._asdict() | {"passes_on": list(member.passes_on)} for member in chain]


def _after(
    loaded: Loaded,
    nexts: Nexts | None,
    ifindex: int,
    item: Next | None,
) -> Member | None:
    """The next program, running or declared; None if there is neither."""
    number = nexts.id_on(ifindex) if nexts and loaded.has_nexts else 0
    if item is None:
        if not number:
            return None
        return _member(NEXT, number)._replace(problem="it is not declared", strays=True)
    path = pin_of(item, loaded.pins)
    is_compiled = bool(loaded.pins.compiled_key(path))
    found = _member(NEXT, number)._replace(origin=SOURCE if is_compiled else path)
    try:
        if nexts is None:
            raise Unsupported(LACKING)
        nexts.check_place(ifindex, loaded.ifindexes.values())
        with open_program(Wanted(path)) as program:
            nexts.check(program)
            if program.info().id != number:
                return found._replace(problem=_NOT_THERE, strays=True)
    except (PacketwatchError, OSError) as error:
        # An apply compiles and pins it anew.
        return found._replace(problem=str(error), strays=is_compiled and nexts is not None)
    return found


def _member(kind: str, number: int) -> Member:
    try:
        with Program.by_id(number) as program:
            info = program.info()
            return Member(kind, info.id, info.name, info.tag)
    except KernelError:
        return Member(kind, number, "", "")
