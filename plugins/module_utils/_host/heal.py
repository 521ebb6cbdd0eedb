# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Repair of drift from confirmed state, at most `MAX_REPAIRS` times an hour.

Only declared state that was checked is activated: files edited by hand wait for an apply. Programs of
other tools stay attached and are reported. If another tool undoes the repairs again and again,
Packetwatch stops repairing for a time and reports that.
"""

from __future__ import annotations

import time
import typing as t

from .._active.lists import digest_of
from .._active.loaded import Loaded
from .._base.errors import PacketwatchError, Unreadable
from .._base.number import MAX_TIME, is_number
from .._change.pending import PENDING
from .._health.status import digest_of_declared
from .._health.verify import unsettled

if t.TYPE_CHECKING:
    from .._health.status import Status
    from .host import Host

MAX_REPAIRS = 5
HOUR = 3600.0
_MAX_COUNT = 1e9


class Repair(t.NamedTuple):
    """found: drift before the repair. left: drift after it. paused: why nothing was repaired."""

    found: list[str]
    left: list[str]
    paused: str = ""


def heal(host: Host) -> Repair:
    """Verify, repair, verify again. If there was drift, note it for the agent."""
    status = host.status
    broken = _repair_link(host)
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
    if len(recent) >= MAX_REPAIRS:
        next_repair = time.gmtime(time.time() + recent[0] + HOUR - time.monotonic())
        limit = (
            f"repaired {MAX_REPAIRS} times within an hour: no repair before "
            f"{time.strftime('%H:%M', next_repair)} UTC; find out what undoes the repairs"
        )
        return _note(status, Repair(found, [*drifted, limit]))
    return _note(status, Repair(found, _repair(host)))


def _repair_link(host: Host) -> list[str]:
    """If the link `current` cannot be followed, point it to the active state; return what was wrong.

    This is done only if that state is the one that root activated last, is unchanged, and is not
    pending. Otherwise `Unreadable` is raised.
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


def _repair(host: Host) -> list[str]:
    """Repair drift; return what is still wrong, and why."""
    problems = []
    try:
        host.remake()
    except (PacketwatchError, OSError) as error:
        problems.append(str(error))
    with Loaded(host.pins) as loaded:
        names = unsettled(host.store.read_current()[1], loaded)
    for name in names:
        try:
            host.reattach(name)
        except (PacketwatchError, OSError) as error:
            problems.append(str(error))
    left = host.drift()
    return left + problems if left else []


def _recent(status: Status) -> list[float]:
    """Times of the repairs within the last hour, by CLOCK_MONOTONIC."""
    times = status.read().get("heal", {}).get("recent", [])
    if not isinstance(times, list):
        return []
    since = time.monotonic() - HOUR
    return [moment for moment in times if is_number(moment, MAX_TIME) and moment > since]


def _count(former: dict[str, t.Any], name: str) -> int:
    number = former.get(name)
    return int(number) if number and is_number(number, _MAX_COUNT) else 0


def _note(status: Status, repair: Repair) -> Repair:
    """Note the attempt, from which the agent emits the event, if there was drift."""
    if not repair.found:
        return repair
    former = status.read().get("heal", {})
    is_done = not repair.left
    repaired = set(repair.found) - set(repair.left)
    status.healed(
        {
            "time": time.time(),
            "found": repair.found,
            "left": repair.left,
            "success": _count(former, "success") + is_done,
            "failure": _count(former, "failure") + (not is_done),
            "recent": _recent(status) + ([time.monotonic()] if repaired else []),
        }
    )
    return repair
