# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Compare the kernel with confirmed state: read back its tables, compile the lists anew."""

from __future__ import annotations

import time
import typing as t

from .._active.build import build
from .._active.loaded import Loaded
from .._base.errors import Unreadable
from .._declared.policy import resolve_policies
from .problems import Facts

if t.TYPE_CHECKING:
    from .._active.generation import Areas
    from .._active.lists import Lists
    from .._declared.store import State, Store
    from .._kernel.pins import Pins
    from .status import Status

# Seconds for which an expired entry may stay in the tables.
_MAX_DELAY = 300.0


def compare(
    store: Store,
    pins: Pins,
    status: Status,
    patience: float,
    compile_lists: t.Callable[[State], Lists],
    wrong_settings: dict[str, str],
) -> Facts:
    """Compare the kernel with confirmed state; note the result for the agent and return it.

    wrong_settings: what is wrong, by setting; to be noted too.
    """
    while True:
        # Compiling may take long at low priority. It is done without the lock, which other writers need.
        number, state = store.read_current()
        lists = compile_lists(state)
        with store.lock(patience):
            if store.read_current()[0] == number:
                return _compare(pins, status, number, state, lists, wrong_settings)


def unsettled(state: State, loaded: Loaded) -> list[str]:
    """Interfaces that are declared and present, and have no link, or whose former device still has one."""
    displaced = set(loaded.displaced(state.interfaces).values())
    return sorted(_present(state, loaded) - loaded.links.keys() | displaced)


def _present(state: State, loaded: Loaded) -> set[str]:
    return loaded.present.keys() & state.interfaces.keys()


def _compare(
    pins: Pins,
    status: Status,
    number: int,
    state: State,
    lists: Lists,
    wrong_settings: dict[str, str],
) -> Facts:
    with Loaded(pins) as loaded:
        with loaded.generation() as current:
            code, active = current.header["bytecode"], current.areas()
        areas = active if _is_expiry_due(active, lists) else lists.areas
        image = build(
            areas,
            resolve_policies(state.policy),
            loaded.owned(state.interfaces),
            code,
            has_nexts=bool(state.next),
        )
        note = status.verified(
            loaded, number, state, image, lists, _count_tracks(pins), wrong_settings
        )
        interfaces = note["interfaces"].items()
        return Facts(
            declared=sorted(_present(state, loaded)),
            filtered=list(loaded.links),
            renamed=loaded.renamed(state.interfaces),
            replaced=[name for name, there in interfaces if not there["attached"]],
            is_whole=note.get("whole", True),
            is_edited=note["edited"],
            matches=note.get("matches"),
            unpinned=sorted(loaded.unpinned()),
            nexts=note["nexts"],
            strayed=note["strayed"],
            wrong_settings=list(wrong_settings.values()),
        )


def _is_expiry_due(active: Areas, lists: Lists) -> bool:
    """Whether entries have expired and their timer has not elapsed yet, which is not drift."""
    due = active.next_expiry
    return active.lists == lists.areas.lists and 0 < due <= time.time() < due + _MAX_DELAY


def _count_tracks(pins: Pins) -> int:
    try:
        with pins.open_run_maps(("tracks2",))["tracks2"] as tracks:
            return len(tracks.keys())
    except Unreadable:
        return 0
