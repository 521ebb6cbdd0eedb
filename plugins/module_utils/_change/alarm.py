# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""A transient systemd timer that starts the unit `packetwatch-apply` when the next entry or copy of a feed expires.

The timer uses wall time (systemd.timer(5), OnCalendar=): if the clock jumps forward when it is
synchronised, the timer elapses at once. A boot removes the timer, but it compiles the lists anyway.
"""

from __future__ import annotations

import math
import os
import time
import typing as t

from .._base.errors import LoadFailed

if t.TYPE_CHECKING:
    from .._base.types import Run

_UNIT = "packetwatch-apply"
# If a timer elapses while its service runs, systemd starts nothing. The service may end this much later.
_MARGIN = 3
# Seconds until a copy that should have ended is judged again: the clock may not be trusted yet.
_AGAIN = 600.0


def next_end(next_expiry: int, feeds: t.Any) -> int:
    """When the next entry or copy ends, in seconds since 1970; 0: never.

    next_expiry: of the entries, or 0. feeds: what the status note says of them.
    """
    noted = feeds if isinstance(feeds, dict) else {}
    now = time.time()
    ends = [times["end"] for times in noted.values() if times.get("end") is not None]
    moments = [math.ceil(end if end > now else now + _AGAIN) for end in ends]
    return min([*moments, *([next_expiry] if next_expiry else [])], default=0)


class Alarm:
    """The one timer; `runtime` and `units`: systemd's folders."""

    def __init__(self, run: Run, runtime: str, units: str) -> None:
        self._run = run
        self._runtime = runtime
        self._units = units

    def set(self, moment: int) -> None:
        """Set the timer to `moment`, in seconds since 1970, instead of its former time; 0: remove it.

        Where systemd does not run, or the role's units are not installed, nothing is done: entries expire
        with the next apply. Raises `LoadFailed` if systemd refuses. A moment that has passed since the lists
        were compiled is still due: then the timer elapses soon.
        """
        moment = moment and max(moment, int(time.time()) + _MARGIN)
        note = f"Packetwatch list entries expire @{moment}"
        present = self._read()
        if not self._is_possible() or note in present or not (present or moment):
            return
        if present:
            self._call("systemctl", "stop", f"{_UNIT}.timer")
        if moment:
            self._call(
                "systemd-run",
                "--quiet",
                f"--unit={_UNIT}.service",
                f"--description={note}",
                f"--on-calendar=@{moment}",
                "--timer-property=AccuracySec=1s",
                # By default the timer would wait for sysinit.target, which at boot may wait for this
                # process.
                "--timer-property=DefaultDependencies=no",
            )

    def _is_possible(self) -> bool:
        booted = os.path.isdir(os.path.join(self._runtime, "system"))
        return booted and os.path.exists(os.path.join(self._units, f"{_UNIT}.service"))

    def _read(self) -> str:
        try:
            path = os.path.join(self._runtime, "transient", f"{_UNIT}.timer")
            with open(path, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _call(self, *argv: str) -> None:
        status, dummy, errors = self._run(argv, None)
        if status:
            raise LoadFailed(
                "active list entries will not expire by themselves, because systemd refused their timer "
                f"({' '.join(argv[:2])}): {errors.strip()}; repair systemd, then apply again"
            )
