# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether the kernel has what is confirmed: read back, compiled anew, compared."""

from __future__ import annotations

import socket
import typing as t

from ._generation import build
from ._loaded import Loaded
from ._policy import resolve_policies

if t.TYPE_CHECKING:
    from ._lists import Lists
    from ._pins import Pins
    from ._status import Status
    from ._store import State, Store


def verify(
    store: Store,
    pins: Pins,
    status: Status,
    patience: float,
    compile_lists: t.Callable[[State], Lists],
) -> list[str]:
    """What is wrong, if anything; noted for the agent too."""
    while True:
        # This takes long, maybe at the lowest priority: nobody shall wait for it.
        number, state = store.read_current()
        lists = compile_lists(state)
        with store.lock(patience):
            if store.read_current()[0] == number:
                return _compare(pins, status, number, state, lists)


def _compare(pins: Pins, status: Status, number: int, state: State, lists: Lists) -> list[str]:
    with Loaded(pins) as loaded:
        with loaded.generation() as current:
            code = current.header["bytecode"]
        image = build(lists.areas, resolve_policies(state.policy), loaded.ifindexes, code)
        problems = status.verified(loaded, number, image, lists, _count_tracks(pins))
        there = {name for dummy, name in socket.if_nameindex()}
        missing = sorted((set(state.interfaces) & there) - set(loaded.ifindexes))
    problems += [f"{name} is left out: {why}" for name, why in lists.note.report.broken.items()]
    return [f"{name} is not filtered" for name in missing] + problems


def _count_tracks(pins: Pins) -> int:
    if not pins.loaded():
        return 0
    with pins.open_run_maps(("tracks",))["tracks"] as tracks:
        return len(tracks.keys())
