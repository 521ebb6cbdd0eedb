# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What follows an activation: root writes what the agent, the next change and the next boot need.

The change has happened by then. So each step is tried whatever else fails, and a failure is a problem to
report. A new step is a method in `STEPS`.
"""

from __future__ import annotations

import functools
import os
import typing as t

from .._active.lists import keep_known
from .._base.clock import keep_time, read_clock
from .._base.errors import PacketwatchError, failures_of
from .._base.files import read_json
from .._change.alarm import next_end
from .._declared.nexts import pin_of
from .._feeds.spare import write_note
from .renewal import renew_agent

if t.TYPE_CHECKING:
    from .._active.images import Images
    from .._active.loaded import Loaded
    from .._base.paths import Paths
    from .._base.types import Run
    from .._change.alarm import Alarm
    from .._change.planner import Draft, Planner
    from .._declared.store import State
    from .._health.status import Status


class Activated(t.NamedTuple):
    """A state that has just been activated.

    planner: which made the draft. number: of the state. is_pending: it waits to be confirmed. is_first: no
    filter was loaded before.
    """

    loaded: Loaded
    planner: Planner
    draft: Draft
    number: int
    is_pending: bool
    is_first: bool


class FollowUp:
    """The steps, on this host."""

    def __init__(
        self,
        run: Run,
        paths: Paths,
        status: Status,
        images: Images,
        alarm: Alarm,
        check_compiled: t.Callable[[State], list[str]],
    ) -> None:
        self._run = run
        self._paths = paths
        self._status = status
        self._images = images
        self._alarm = alarm
        self._check_compiled = check_compiled

    def of(self, done: Activated) -> list[str]:
        """Do all steps; return what failed, in words."""
        return failures_of(*(functools.partial(step, self, done) for step in STEPS))

    def tidy(self, done: Activated) -> None:
        """Label the links, and remove what is loaded after the last one. A pending change may be reverted, so
        it leaves both.
        """
        if done.is_pending:
            return
        done.loaded.tidy(done.draft.state.interfaces)
        if done.draft.links.drops and not done.loaded.has_links:
            done.loaded.pins.remove()

    def tidy_compiled(self, done: Activated) -> None:
        """Remove the pins of next programs that no interface has any more, as `tidy` does with links."""
        if done.is_pending:
            return
        pins = done.loaded.pins
        used = {pin_of(item, pins) for item in done.draft.state.next.values()}
        for path in pins.compiled_pins():
            if path not in used:
                os.unlink(path)

    def note_feeds(self, done: Activated) -> None:
        if done.draft.lists:
            write_note(self._paths.spared, done.draft.lists.note)

    def keep_time(self, done: Activated) -> None:
        """Keep the time if entries depend on it."""
        lists, path = done.draft.lists, self._paths.clock
        if lists and (lists.counts["expired"] or lists.areas.next_expiry):
            keep_time(path, read_clock(path))

    def keep_known(self, done: Activated) -> None:
        """Keep what the next change of a few entries needs."""
        if done.draft.lists:
            keep_known(self._paths.tables, done.draft.lists)

    def note_status(self, done: Activated) -> None:
        draft = done.draft
        self._status.applied(done.loaded, done.number, draft.state, draft.image, draft.lists)

    def keep_image(self, done: Activated) -> None:
        """Keep what is active as the boot image of its state, and its bytecode in the cache.

        What is there but is not believed is reported, and made anew.
        """
        draft, programs = done.draft, done.planner.programs
        with done.loaded.generation() as current:
            if current.digest != draft.image.digest:
                return
        self._check_compiled(draft.state)
        source = programs.source(draft.state)
        code = programs.kept(source)
        if code is None or code.digest != draft.image.bytecode:
            return
        # Imported here: a boot does not need it, and it would cost memory.
        from .._active.kept import keep

        key = programs.key(source)
        pins = done.loaded.pins
        kept = keep(done.number, draft.state, draft.image, code, key)._replace(
            nexts={name: pin_of(item, pins) for name, item in draft.state.next.items()},
            settings=done.planner.snapshot.settings.texts,
            note=self._status.of_lists(),
            known=_json_in(self._paths.tables),
        )
        try:
            self._images.keep(kept, pending=done.is_pending)
        except OSError as error:
            raise PacketwatchError(
                f"the boot image cannot be written to {self._paths.images}: {error.strerror}; make room "
                "there, then packetwatchctl apply"
            ) from error
        programs.keep(source, code)

    def set_alarm(self, done: Activated) -> None:
        """Set the timer for the next entry or copy that expires; raises `LoadFailed` if systemd refuses."""
        feeds = self._status.of_lists().get("feeds")
        moment = next_end(done.draft.image.next_expiry, feeds) if done.loaded.active else 0
        self._alarm.set(moment)

    def renew_agent(self, done: Activated) -> None:
        if done.is_first and done.loaded.pins.loaded():
            renew_agent(self._run, self._paths.units)


STEPS: tuple[t.Callable[[FollowUp, Activated], None], ...] = (
    FollowUp.tidy,
    FollowUp.tidy_compiled,
    FollowUp.note_feeds,
    FollowUp.keep_time,
    FollowUp.keep_known,
    FollowUp.note_status,
    FollowUp.keep_image,
    FollowUp.set_alarm,
    FollowUp.renew_agent,
)


def _json_in(path: str) -> t.Any:
    """The value in a file; None without one."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
