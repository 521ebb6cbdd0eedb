# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Mending what has drifted from confirmed state, at most so many times an hour.

Only what was checked when it was declared goes live: files that somebody has edited by hand wait for
an apply. What is somebody else's stays, and is told. Who fights with another tool for an
interface gives in after some rounds, and says so.
"""

from __future__ import annotations

import time
import typing as t

from .._active.lists import digest_of
from .._active.loaded import Loaded
from .._base.errors import PacketwatchError, Unreadable
from .._change.pending import PENDING
from .._health.status import digest_of_declared
from .._health.verify import unfiltered

if t.TYPE_CHECKING:
    from .._health.status import Status
    from .host import Host

MOST = 5
HOUR = 3600.0


class Repair(t.NamedTuple):
    """found: what was not as it is confirmed; left: what still is not; paused: why nothing was done."""

    found: list[str]
    left: list[str]
    paused: str = ""


def heal(host: Host) -> Repair:
    """Verify, repair, verify again; noted for the agent if there was anything to repair."""
    status = host.status
    broken = _mend_link(host)
    waiting = host.panicking() or host.pending()
    if waiting:
        return Repair(broken, [], waiting.describe())
    drifted = host.drift()
    found = broken + drifted
    if not drifted:
        return _note(status, Repair(found, []))
    if status.is_edited():
        return _note(status, Repair(found, drifted))
    recent = _recent(status)
    if len(recent) >= MOST:
        again = time.gmtime(time.time() + recent[0] + HOUR - time.monotonic())
        told = f"mended {MOST} times within an hour: not again before {time.strftime('%H:%M', again)} UTC"
        return _note(status, Repair(found, [*drifted, told]))
    return _note(status, Repair(found, _mend(host)))


def _mend_link(host: Host) -> list[str]:
    """Point `current` to what is live, if it names nothing that can be read; what was wrong with it.

    Only if the state is the one that root has made live last, unchanged, and no candidate.
    """
    try:
        host.store.read_current()
        return []
    except Unreadable as error:
        number, declared = (host.status.read().get(key) for key in ("number", "declared"))
        change = host.record.read()
        if not number or (change and change.status == PENDING):
            raise
        state = host.store.read(number)
        if digest_of_declared(state, digest_of(state)) != declared:
            raise
        host.point_to(number)
        return [str(error)]


def _mend(host: Host) -> list[str]:
    """Returns what is still wrong, and why."""
    problems = []
    try:
        host.remake()
    except (PacketwatchError, OSError) as error:
        problems.append(str(error))
    with Loaded(host.pins) as loaded:
        names = unfiltered(host.store.read_current()[1], loaded)
    for name in names:
        try:
            host.reattach(name)
        except (PacketwatchError, OSError) as error:
            problems.append(str(error))
    left = host.drift()
    return left + problems if left else []


def _recent(status: Status) -> list[float]:
    """When something was mended within the last hour, by CLOCK_MONOTONIC."""
    times = status.read().get("heal", {}).get("recent", [])
    return [moment for moment in times if moment > time.monotonic() - HOUR]


def _note(status: Status, repair: Repair) -> Repair:
    """Tell the agent, which writes the event, if there was anything to mend."""
    if not repair.found:
        return repair
    former = status.read().get("heal", {})
    is_done = not repair.left
    mended = set(repair.found) - set(repair.left)
    status.healed(
        {
            "time": time.time(),
            "found": repair.found,
            "left": repair.left,
            "success": former.get("success", 0) + is_done,
            "failure": former.get("failure", 0) + (not is_done),
            "recent": _recent(status) + ([time.monotonic()] if mended else []),
        }
    )
    return repair
