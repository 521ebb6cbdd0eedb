# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether the kernel has what is confirmed: read back, compiled anew, compared."""

from __future__ import annotations

import socket
import time
import typing as t

from .._active.generation import build
from .._active.loaded import Loaded
from .._base.errors import Unreadable
from .._declared.policy import resolve_policies

if t.TYPE_CHECKING:
    from .._active.generation import Areas
    from .._active.lists import Lists
    from .._declared.store import State, Store
    from .._kernel.pins import Pins
    from .status import Status

# Seconds for which an entry may be in force after its end.
_LATE = 300.0


def verify(
    store: Store,
    pins: Pins,
    status: Status,
    patience: float,
    compile_lists: t.Callable[[State], Lists],
) -> list[str]:
    """What has drifted, if anything; noted for the agent too."""
    while True:
        # This takes long, maybe at the lowest priority: nobody shall wait for it.
        number, state = store.read_current()
        lists = compile_lists(state)
        with store.lock(patience):
            if store.read_current()[0] == number:
                return _compare(pins, status, number, state, lists)


def unfiltered(state: State, loaded: Loaded) -> list[str]:
    """Interfaces that are declared and there, and to which nothing of ours is attached."""
    there = {name for dummy, name in socket.if_nameindex()}
    return sorted((set(state.interfaces) & there) - set(loaded.ifindexes))


def _compare(pins: Pins, status: Status, number: int, state: State, lists: Lists) -> list[str]:
    with Loaded(pins) as loaded:
        with loaded.generation() as current:
            code, live = current.header["bytecode"], current.areas()
        areas = live if _is_late(live, lists) else lists.areas
        image = build(areas, resolve_policies(state.policy), loaded.ifindexes, code)
        problems = [f"{name} is not filtered" for name in unfiltered(state, loaded)]
        problems += status.verified(loaded, number, state, image, lists, _count_tracks(pins))
        unpinned = sorted(loaded.unpinned())
    return problems + [f"the map {name} is in use and not pinned any more" for name in unpinned]


def _is_late(live: Areas, lists: Lists) -> bool:
    """Whether entries have expired whose timer has not gone off yet: that is no drift."""
    due = live.next_expiry
    return live.lists == lists.areas.lists and 0 < due <= time.time() < due + _LATE


def _count_tracks(pins: Pins) -> int:
    try:
        with pins.open_run_maps(("tracks",))["tracks"] as tracks:
            return len(tracks.keys())
    except Unreadable:
        return 0
