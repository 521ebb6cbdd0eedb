# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Attaching the filter to one interface, and detaching it: edits with a wish, planned like all others."""

from __future__ import annotations

import typing as t

from .._change.links import Wish
from .._change.pending import AT_ONCE
from .._change.results import Attachment, attachment
from .._declared.store import check_mode

if t.TYPE_CHECKING:
    from .._change.pending import Terms
    from .._change.results import Plan
    from .._declared.edits import Edit
    from .._declared.nexts import Next
    from .._declared.store import State
    from .site import Work


class Keep:
    """Stands for the next program that an interface has."""


KEEP = Keep()
Following = t.Union["Next", None, Keep]


def attach_to(
    work: Work,
    interface: str,
    mode: str | None,
    source: str | None,
    terms: Terms = AT_ONCE,
    *,
    following: Following = KEEP,
    check: bool = False,
) -> Attachment:
    """Declare an interface and filter it. mode None: the declared one. source None: the program in use.

    following: the next program; None: none.
    """
    edit = _declaring(work, interface, mode, source, following)
    draft = work.planner.draft(edit, wish=Wish(attach=(interface,)), check=check)
    return _of(draft.plan if check else work.carry_out(draft, terms), interface)


def reattach_to(work: Work, interface: str) -> Attachment:
    """Filter an interface as the confirmed state declares it, or the pending one if there is one."""
    candidate = work.pending.number if work.pending else 0
    draft = work.planner.draft(None, wish=Wish(attach=(interface,)), candidate=candidate)
    return _of(work.carry_out(draft, AT_ONCE), interface)


def detach_from(
    work: Work, interface: str, terms: Terms = AT_ONCE, *, check: bool = False
) -> Attachment:
    """Stop filtering an interface, and remove it and its policy from declared state."""
    draft = work.planner.draft(_without(interface), wish=Wish(detach=(interface,)), check=check)
    plan = draft.plan if check else work.carry_out(draft, terms)
    return _of(plan, interface)


def _declaring(
    work: Work, interface: str, mode: str | None, source: str | None, following: Following
) -> Edit:
    if mode is not None:
        check_mode(mode)
    # Imported here: a boot does not need it, and it would cost memory.
    from .._declared.edits import set_program

    change_program = set_program(source) if source else None

    def edit(state: State) -> State:
        wanted = mode or state.interfaces.get(interface, "auto")
        nexts = {name: item for name, item in state.next.items() if name != interface}
        item = state.next.get(interface) if isinstance(following, Keep) else following
        if item:
            nexts[interface] = item
        state = state._replace(interfaces=state.interfaces | {interface: wanted}, next=nexts)
        if change_program:
            return change_program(state)
        return state._replace(program=state.program or work.planner.programs.source(state))

    return edit


def _without(interface: str) -> Edit:
    def edit(state: State) -> State:
        return state._replace(
            interfaces={name: mode for name, mode in state.interfaces.items() if name != interface},
            next={name: item for name, item in state.next.items() if name != interface},
            policy={name: keys for name, keys in state.policy.items() if name != interface},
        )

    return edit


def _of(plan: Plan, interface: str) -> Attachment:
    """What became of one interface. The change may also have settled renames of others."""
    nothing = attachment(interface, "none", "none")
    found = {done.interface: done for done in plan.attachments}.get(interface, nothing)
    former, present = (state.next.get(interface) for state in plan.states)
    if former != present:
        found = found._replace(
            before=f"{found.before}next program: {former or 'none'}\n",
            after=f"{found.after}next program: {present or 'none'}\n",
        )
    return found._replace(changed=plan.changed, pending=plan.pending, problems=plan.problems)
