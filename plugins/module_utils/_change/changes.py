# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Pending changes, from their beginning to their end. All methods but `pending` need the lock.

First the new state is written as a candidate, the timer that reverts it is set, and the program and
generation that it replaces are pinned. Only then is it activated.
"""

from __future__ import annotations

import contextlib
import functools
import typing as t

from .._active.images import Images
from .._active.loaded import Loaded
from .._base.errors import InvalidInput, PacketwatchError, Pending, Reverted, failures_of
from .._dispatcher.place import is_dispatcher
from .._network.snapshot import Snapshot
from . import panic
from .pending import (
    CONFIRMED,
    PENDING,
    REVERTED,
    Record,
    caller,
    check_terms,
    moment,
    new_change,
)
from .planner import Planner
from .results import Outcome

if t.TYPE_CHECKING:
    from .._base.paths import Paths
    from .._base.types import Run
    from .._declared.store import State, Store
    from .._kernel.pins import Pins
    from .deadline import Deadline
    from .pending import Change, Terms
    from .programs import Compilers


class Frame(t.NamedTuple):
    """A change that is being activated.

    undo: the caller adds what undoes its own steps. number: of the new state; 0 if declared state does not
    change. change: the change if it is pending. problems: what failed after it was confirmed.
    """

    undo: contextlib.ExitStack
    number: int
    change: Change | None
    problems: list[str]


class Changes:
    """The pending change of this host, its record, and the panic that overrides it.

    catch_up: called at the end of a pending change; does what had to wait for that.
    """

    def __init__(
        self,
        run: Run,
        paths: Paths,
        store: Store,
        pins: Pins,
        compilers: Compilers,
        catch_up: t.Callable[[], None],
    ) -> None:
        self.record = Record(paths.pending)
        self.panic = panic.Flag(paths.state)
        self._run = run
        self._paths = paths
        self._store = store
        self._pins = pins
        self._images = Images(paths.images)
        self._compilers = compilers
        self._catch_up = catch_up

    def pending(self) -> Change | None:
        """The pending change, for callers without the lock."""
        change = self.record.read()
        if change is None or change.status != PENDING or change.left <= 0:
            return None
        return None if self._is_confirmed(change) else change

    def confirm(self, token: str) -> Outcome:
        """Confirm the pending change of that token; without a token, any pending change.

        A second confirmation is not an error. Raises `Reverted` if the host has reverted the change.
        """
        pending = self.settle()
        change = self._find(pending, token)
        if change is None:
            raise Reverted(_unknown(token))
        if change.status == REVERTED:
            why = (
                f"was reverted by {change.ended_by}"
                if change.ended_by
                else "was not confirmed in time: the host has reverted it"
            )
            raise Reverted(
                f"the change of {change.owner} {why}, at {moment(change.ended)}; make the change again"
            )
        if change.status == CONFIRMED:
            return Outcome(False, change)
        return self._conclude(change)

    def roll_back(self, token: str, due: bool) -> Outcome:
        """Revert the pending change. due: only if its time is up."""
        before = self.record.read()
        pending = self.settle()
        change = self._find(pending, token)
        if due or change is None or change.status == REVERTED:
            # The timer of a change that has ended must not revert the next one.
            now = self.record.read()
            return Outcome(now != before, now if before else None)
        if change.status == CONFIRMED:
            if not token:
                return Outcome(False, None)
            raise InvalidInput(
                f"the change of {change.owner} was confirmed at {moment(change.ended)}, so it "
                "cannot be reverted any more; the playbook packetwatch.xdp.rollback rolls it back"
            )
        return Outcome(True, self.revert(change, caller()))

    def settle(self) -> Change | None:
        """The pending change. It is ended first if its time is up or its confirmation was interrupted."""
        change = self.record.read()
        if change is None or change.status != PENDING:
            self._pins.remove_former()
            return None
        if self._is_confirmed(change):
            self._note_confirmed(change)
        elif change.left <= 0 or (self.panic.read() and not change.lifts):
            self.revert(change)
        else:
            return change
        return None

    def refuse_second(self, pending: Change | None) -> None:
        """Raise `Pending` if there is one."""
        if pending:
            raise Pending(f"{pending.describe()} (nothing was changed)")

    def check_terms(self, terms: Terms) -> None:
        """Raise an error if these terms are wrong or impossible on this host."""
        check_terms(terms)
        if terms.seconds:
            self._deadline().check()

    @contextlib.contextmanager
    def around(
        self, loaded: Loaded, after: State | None, terms: Terms, met: bool
    ) -> t.Iterator[Frame]:
        """Frame an activation: write the candidate before it, confirm it afterwards if it is not pending.

        after: the new declared state; None if it does not change. met: packets will be decided
        differently. If a step fails before the state is confirmed, all steps are undone.
        """
        with contextlib.ExitStack() as undo:
            number = self._candidate(after, undo) if after is not None else 0
            change = None
            if number and met and terms.seconds:
                undo.callback(self.abandon)
                change = self.begin(loaded, number, terms)
            frame = Frame(undo, number, change, [])
            try:
                yield frame
                if number and change is None:
                    frame.problems.extend(self._confirm(number))
            except BaseException:
                if number and change is None and self._store.number() == number:
                    undo.pop_all()
                raise
            undo.pop_all()
        if number and change is None:
            self._prune()

    def begin(self, loaded: Loaded, number: int, terms: Terms, *, lifts: bool = False) -> Change:
        """Set the timer of a candidate, record the change, and pin what it replaces."""
        from . import former

        before = former.modes(loaded), loaded.program is not None
        change = new_change(terms, number, *before)._replace(lifts=lifts)
        self.record.make_folder()
        self._deadline().arm(terms.seconds)
        self.record.write(change)
        former.keep(loaded, self._pins)
        return change

    def abandon(self) -> None:
        """Remove the record and the timer of a change that has failed."""
        with contextlib.suppress(OSError):
            self.record.remove()
        self._tidy()

    def revert(self, change: Change, ended_by: str = "") -> Change:
        """Activate confirmed state: at once if its program and generation are pinned, else compile it.

        ended_by: who asked for it; empty if its time is up.
        """
        if self.panic.read():
            panic.detach(self._pins)
        else:
            self._restore(change)
        self._unload_unused()
        ended = change.end(REVERTED, ended_by)
        # Until the record says so, the change is pending, and its timer tries again.
        self.record.write(ended)
        self._clear_up()
        return ended

    def _conclude(self, change: Change) -> Outcome:
        """Confirm a pending change. After the first step it is confirmed, whatever else fails."""
        problems = []
        if change.lifts:
            self.panic.take_down()
        else:
            problems = self._confirm(change.number)
        ended, more = self._note_confirmed(change)
        return Outcome(True, ended, (*problems, *more))

    def _note_confirmed(self, change: Change) -> tuple[Change, list[str]]:
        """Record that a change was confirmed, and clear up; return what failed. Safe to repeat after a crash."""
        ended = change.end(CONFIRMED)
        failures = failures_of(self._unload_unused, functools.partial(self.record.write, ended))
        self._clear_up()
        return ended, failures

    def _confirm(self, number: int) -> list[str]:
        """Confirm a state, as `Store.confirm` does. If it brings other settings, the settings file becomes a
        link to them.

        Where that is impossible, as in the sandbox of a unit, the role makes the link at its next run.
        """
        store = self._store
        before, after = store.read_settings(store.number()), store.read_settings(number)
        failures = store.confirm(number)
        if after and after != before:
            with contextlib.suppress(PacketwatchError, OSError):
                store.link_settings(self._paths.settings)
        return failures

    def _candidate(self, after: State, undo: contextlib.ExitStack) -> int:
        undo.callback(self._withdraw)
        return self._store.write_candidate(after)

    def _withdraw(self) -> None:
        with contextlib.suppress(PacketwatchError, OSError):
            self._store.withdraw()

    def _find(self, pending: Change | None, token: str) -> Change | None:
        """The change of that token; without a token, the last one. `Pending` if another one is pending."""
        last = pending or self.record.read()
        if last is None or not token or last.token == token:
            return last
        self.refuse_second(pending)
        return None

    def _is_confirmed(self, change: Change) -> bool:
        """Whether the change is confirmed although its record says pending: the process may have died."""
        if change.lifts:
            return self.panic.read() is None
        return change.number == self._store.number()

    def _unload_unused(self) -> None:
        """Remove what is loaded if no interface is filtered any more, unless a panic is the reason."""
        with Loaded(self._pins) as loaded:
            if not loaded.has_links and not self.panic.read():
                self._pins.remove()

    def _clear_up(self) -> None:
        """Remove what a pending change needed, and do what had to wait for its end.

        The next writer removes what is left, and a timer without a pending change does nothing.
        """
        with contextlib.suppress(PacketwatchError, OSError):
            self._images.settle(self._store.number())
        self._tidy()
        self._catch_up()

    def _tidy(self) -> None:
        with contextlib.suppress(PacketwatchError, OSError):
            self._pins.remove_former()
        with contextlib.suppress(PacketwatchError, OSError):
            self._deadline().disarm()
        self._prune()

    def _prune(self) -> None:
        with contextlib.suppress(PacketwatchError, OSError):
            self._store.prune()

    def _restore(self, change: Change) -> None:
        from . import former

        dummy, state = self._store.read_current()
        done = False
        with contextlib.suppress(PacketwatchError, OSError), Loaded(self._pins) as loaded:
            done = former.restore(loaded, self._pins, change, state.interfaces)
        if not done:
            with Loaded(self._pins) as loaded:
                self._rebuild(loaded, state, change)

    def _rebuild(self, loaded: Loaded, state: State, change: Change) -> None:
        from . import former

        snapshot = Snapshot(self._paths.settings, self._images.last_settings)
        planner = Planner(self._paths, self._store, self._compilers, loaded, snapshot)
        bytecode = planner.programs.of(state)()
        image, dummy = planner.image(state, loaded.owned(state.interfaces), bytecode.digest)
        with loaded.generation() as current:
            same = current.digest == image.digest and current.header["bytecode"] == bytecode.digest
        joins = any(map(is_dispatcher, change.interfaces.values()))
        if not (same and loaded.whole) or (joins and not loaded.extension):
            loaded.replace(image, lambda: bytecode, extends=joins)
        nexts = loaded.nexts()
        if nexts:
            owned = loaded.owned(state.interfaces)
            nexts.settle(planner.nexts.wanted(state, state, owned))
        former.restore_interfaces(loaded, change, state.interfaces)

    def _deadline(self) -> Deadline:
        # Imported here, like `former` above: a boot does not need it, and it would cost memory.
        from .deadline import Deadline

        paths = self._paths
        return Deadline(self._run, paths.runtime, paths.units, paths.pending)


def _unknown(token: str) -> str:
    if not token:
        return "no change is pending, and none was made since the host booted; there is nothing to confirm"
    return (
        "no change with this token is known: it was never activated, or the host has rebooted since; "
        "confirmed state is active, so make the change again"
    )
