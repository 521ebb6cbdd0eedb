# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Removes copies of feeds that no run has renewed for `expire_after`, when confirmed state is activated."""

from __future__ import annotations

import time
import typing as t

from .._base.clock import read_clock
from .._base.errors import InvalidInput
from .._change.pending import AT_ONCE
from .._declared.store import FEED
from .._feeds.spare import has_feeds

if t.TYPE_CHECKING:
    from .._change.planner import Draft
    from .._change.results import Plan
    from .._declared.edits import Edit
    from .._declared.store import State
    from .._feeds.copies import Times
    from .site import Work


def without_ended(work: Work, draft: t.Callable[[Edit | None], Draft]) -> Plan:
    """Activate confirmed state without expired copies. draft: plans that with an edit, or without one.

    If removing them is refused, confirmed state is activated as it is, and `InvalidInput` is raised.
    """
    ended = _ended(work)
    if not ended:
        return work.carry_out(draft(None), AT_ONCE)
    texts = tuple(_text(name, times) for name, times in sorted(ended.items()))
    try:
        planned = draft(lambda state: _without(state, ended))
    except InvalidInput as error:
        work.carry_out(draft(None), AT_ONCE)
        raise InvalidInput(f"{'; '.join(texts)}; that is refused, so they stay: {error}") from error
    return work.carry_out(planned, AT_ONCE)._replace(expired=texts)


def _ended(work: Work) -> t.Mapping[str, Times]:
    """The feeds whose copies have certainly expired, with the times of these."""
    # The names and digests of the copies are enough; what is planned next reads the lists.
    dummy, state = work.site.store.read_current(reads_all=False)
    clock = read_clock(work.site.paths.clock)
    if not clock.is_trusted or not has_feeds(state):
        return {}
    # Imported here: a host without feeds does not need it, and it would cost memory.
    from .._feeds.copies import Ages

    return Ages(work.site.paths.ages).ended(state, clock.passed)


def _without(state: State, names: t.Collection[str]) -> State:
    gone = {FEED + name for name in names}
    allow, deny = (
        {name: text for name, text in lists.items() if name not in gone}
        for lists in (state.allow, state.deny)
    )
    return state._replace(allow=allow, deny=deny)


def _text(name: str, times: Times) -> str:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(times.fetched))
    return (
        f"feed {name}: its copy is removed, because no run has renewed it since {since} (expire_after); "
        "run packetwatch.xdp.site"
    )
