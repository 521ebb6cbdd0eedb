# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What the façade's calls return: what a change does, or did."""

from __future__ import annotations

import typing as t

from .._feeds.spare import NOTHING

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .._feeds.spare import FeedReport
    from .hits import Hits
    from .panic import Panic
    from .pending import Change

UNKNOWN = "unknown until attached"


class Plan(t.NamedTuple):
    """What a change of lists or policies does, or did; `live`: an interface is being filtered.

    feeds: what compiling them has left out.
    pending: the change that it began, if it waits to be confirmed. paused: why nothing was done.
    hits: whom it denies that nothing denied before; only of other lists than before.
    """

    changed: bool
    digest_before: str
    digest_after: str
    counts: dict[str, int]
    states: tuple[State, State]
    live: bool
    feeds: FeedReport = NOTHING.report
    pending: t.Optional[Change] = None
    paused: str = ""
    hits: t.Optional[Hits] = None

    def texts(self) -> tuple[str, str]:
        """Before and after, for a diff: only made when asked for, as long lists take a second."""
        # Imported here, as below: a boot does not need it, and it would cost it memory.
        from .._declared.describe import describe

        before, after = describe(*self.states)
        told = self.hits.sentences() if self.hits else []
        return before, after + "".join(f"# {line}\n" for line in told)


class Attachment(t.NamedTuple):
    """What became of an interface; mode: native, generic, none, or `UNKNOWN` in check mode.

    pending: the change that it began, if it waits to be confirmed.
    """

    changed: bool
    interface: str
    mode: str
    reason: str
    program_id: int
    before: str
    after: str
    pending: t.Optional[Change] = None


class Switch(t.NamedTuple):
    """What became of a panic, which is the one that holds or that was lifted; None: there was none.

    pending: the change that lifts it, if it waits to be confirmed.
    """

    changed: bool
    panic: t.Optional[Panic]
    pending: t.Optional[Change] = None


class Outcome(t.NamedTuple):
    """What became of the change that was pending; None: there was none."""

    changed: bool
    change: t.Optional[Change]
