# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Results of the operations of `Host`: what a change does, or did."""

from __future__ import annotations

import typing as t

from .._feeds.spare import NOTHING

if t.TYPE_CHECKING:
    from .._active.idle import Idle
    from .._declared.store import State
    from .._feeds.spare import FeedReport
    from .hits import Hits
    from .panic import Panic
    from .pending import Change

UNKNOWN = "unknown until attached"


class Plan(t.NamedTuple):
    """What a change does, or did.

    active: whether it decides packets, because an interface is filtered. feeds: the feed entries that
    were left out. pending: the change, if it is pending. paused: why nothing was done. hits: addresses
    that it newly denies; None if the lists do not change. idle: entries without effect; None if no lists
    were compiled. expired: feeds whose copies are removed because they have expired, in words.
    attachments: interfaces that were ordered or whose declaration changes. problems: what failed after the
    change had happened.
    """

    changed: bool
    digest_before: str
    digest_after: str
    counts: dict[str, int]
    states: tuple[State, State]
    active: bool
    feeds: FeedReport = NOTHING.report
    pending: t.Optional[Change] = None
    paused: str = ""
    hits: t.Optional[Hits] = None
    idle: t.Optional[Idle] = None
    attachments: tuple[Attachment, ...] = ()
    expired: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def texts(self) -> tuple[str, str]:
        """Before and after, for a diff. Made only on request, because long lists take a second."""
        # Imported here: a boot does not need it, and it would cost memory.
        from .._declared.describe import describe

        before, after = describe(*self.states)
        moved = [found for found in self.attachments if found.changed]
        before += "".join(f"filter on {found.before}" for found in moved)
        after += "".join(f"filter on {found.after}" for found in moved)
        lines = self.hits.sentences() if self.hits else []
        return before, after + "".join(f"# {line}\n" for line in lines)


class Attachment(t.NamedTuple):
    """What is done to an interface, or was.

    mode: native, generic, none, or `UNKNOWN` before `auto` has tried. reason: why `auto` had to choose
    generic mode. pending: the change, if it is pending. problems: as in `Plan`.
    """

    changed: bool
    interface: str
    mode: str
    reason: str
    program_id: int
    before: str
    after: str
    pending: t.Optional[Change] = None
    problems: tuple[str, ...] = ()


def attachment(
    interface: str,
    before: str,
    after: str,
    program_id: int = 0,
    changed: bool = True,
    reason: str = "",
) -> Attachment:
    """The result for an interface. before, after: modes."""
    lines = (f"{interface}: {before}\n", f"{interface}: {after}\n")
    return Attachment(changed, interface, after, reason, program_id, *lines)


class Switch(t.NamedTuple):
    """What was done about a panic.

    panic: the one that holds or that was lifted; None: there was none. pending: the change that lifts it,
    if it is pending. problems: as in `Plan`.
    """

    changed: bool
    panic: t.Optional[Panic]
    pending: t.Optional[Change] = None
    problems: tuple[str, ...] = ()


class Outcome(t.NamedTuple):
    """What was done to the pending change. change: None if there was none. problems: as in `Plan`."""

    changed: bool
    change: t.Optional[Change]
    problems: tuple[str, ...] = ()
