# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The programs and the generation that a pending change has replaced: pinned, so no compiler is needed."""

from __future__ import annotations

import os
import typing as t

from .._base.errors import PacketwatchError
from .._dispatcher.place import is_dispatcher
from .._kernel.libbpf import Map
from .._kernel.programs import Program

if t.TYPE_CHECKING:
    from .._active.loaded import Loaded
    from .._kernel.pins import Pins
    from .pending import Change

_PROGRAM, _EXTENSION, _PAGES = "program", "extension", "generation"


def modes(loaded: Loaded) -> dict[str, str]:
    """The filtered interfaces with their modes."""
    return {name: loaded.mode_on(ifindex) for name, ifindex in loaded.ifindexes.items()}


def keep(loaded: Loaded, pins: Pins) -> None:
    """Pin the present program, its next programs and the generation; the slot stays with the program."""
    pins.remove_former()
    if loaded.program is None:
        return
    os.makedirs(pins.former, mode=0o700)
    with loaded.generation() as current:
        current.pin(os.path.join(pins.former, _PAGES))
    nexts = loaded.nexts()
    if nexts and loaded.has_nexts:
        nexts.pin_all(pins.former)
    if loaded.extension:
        loaded.extension.pin(os.path.join(pins.former, _EXTENSION))
    # Pinned last: if this pin exists, the others exist too.
    loaded.program.pin(os.path.join(pins.former, _PROGRAM))


def restore(loaded: Loaded, pins: Pins, change: Change, declared: t.Collection[str]) -> bool:
    """Activate what was active before a change; False if it is not pinned or an interface refuses.

    A filtered interface that has appeared since stays filtered if it is `declared`.
    """
    if not change.loaded:
        loaded.remove()
        return True
    program = os.path.join(pins.former, _PROGRAM)
    if not os.path.exists(program):
        return False
    extension = os.path.join(pins.former, _EXTENSION)
    loaded.take_up(
        Program.open(program),
        Program.open(extension) if os.path.exists(extension) else None,
        Map.open(os.path.join(pins.former, _PAGES)),
    )
    nexts = loaded.nexts()
    if nexts:
        nexts.restore_pinned(pins.former)
    return restore_interfaces(loaded, change, declared)


def restore_interfaces(loaded: Loaded, change: Change, declared: t.Collection[str]) -> bool:
    """Attach and detach as before a change; False if an interface refuses."""
    known = {*change.interfaces, *declared}
    for name, link in list(loaded.links.items()):
        if loaded.owner(name, known) not in known:
            loaded.drop(link)
    done = True
    for name, mode in change.interfaces.items():
        held = loaded.links.get(name)
        ifindex = loaded.present.get(name, 0)
        if not ifindex or (held and held.ifindex == ifindex and loaded.mode_on(ifindex) == mode):
            continue
        try:
            loaded.restore(name, ifindex, mode)
        except (PacketwatchError, OSError):
            # A dispatcher belongs to others too: nothing else is possible beside it.
            is_free = not is_dispatcher(mode)
            done = is_free and _attach_in_any_mode(loaded, name, ifindex) and done
    return done


def _attach_in_any_mode(loaded: Loaded, name: str, ifindex: int) -> bool:
    """Attach in any mode, because another mode is better than no filter."""
    try:
        loaded.restore(name, ifindex, "auto")
    except (PacketwatchError, OSError):
        return False
    return True
