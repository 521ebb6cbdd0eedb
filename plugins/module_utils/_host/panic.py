# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Beginning and lifting a panic: everything passes at once, and is filtered again."""

from __future__ import annotations

import contextlib
import typing as t

from .._change.links import Wish
from .._change.panic import detach
from .._change.pending import AT_ONCE, caller
from .._change.results import Switch

if t.TYPE_CHECKING:
    from .._change.pending import Change, Terms
    from .site import Site, Work


def begin(site: Site, owner: str) -> Switch:
    """Let everything pass: before taking the lock, whose holder may keep it for long, and again after."""
    flag = site.changes.panic
    new = False
    try:
        new = flag.read() is None
        if new:
            # First, because every attach from here on is refused.
            flag.raise_up(owner or caller())
    finally:
        detached = detach(site.pins)
    with site.store.lock(site.patience):
        detached += detach(site.pins)
        change = site.changes.settle()
        if change:
            site.changes.revert(change)
        site.quiet()
    return Switch(new or bool(detached), flag.read())


def lift(work: Work, terms: Terms) -> Switch:
    """Filter the declared interfaces again."""
    flag = work.site.changes.panic
    panic = flag.read()
    if panic is None:
        return Switch(False, None)
    with contextlib.ExitStack() as undo:
        undo.callback(detach, work.site.pins)
        change, problems = _attach_all(work, terms, undo)
        if change is None:
            flag.take_down()
        undo.pop_all()
    return Switch(True, panic, change, problems)


def _attach_all(
    work: Work, terms: Terms, undo: contextlib.ExitStack
) -> tuple[Change | None, tuple[str, ...]]:
    """Attach to each declared interface that exists; return the change if it is pending, and problems."""
    dummy, state = work.site.store.read_current()
    names = sorted({link.name for link in work.planner.snapshot.links} & state.interfaces.keys())
    change = None
    if terms.seconds and names:
        undo.callback(work.site.changes.abandon)
        number = work.site.store.write_candidate(state)
        change = work.site.changes.begin(work.loaded, number, terms, lifts=True)
    plan = work.carry_out(work.planner.draft(None, wish=Wish(attach=names)), AT_ONCE)
    return change, plan.problems
