# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Waking the unit that applies when the next entry expires, by a transient timer of systemd.

The timer goes by wall time, so that a clock that jumps forward when it is synchronised wakes it at
once (systemd.timer(5), OnCalendar=). It does not outlive a boot, which compiles lists anyway.
"""

from __future__ import annotations

import os
import typing as t

from .._base.errors import LoadFailed

if t.TYPE_CHECKING:
    from .._base.types import Run

_UNIT = "packetwatch-apply"


class Alarm:
    """The one timer; `runtime` and `units`: systemd's folders."""

    def __init__(self, run: Run, runtime: str, units: str) -> None:
        self._run = run
        self._runtime = runtime
        self._units = units

    def set(self, moment: int) -> None:
        """Apply at `moment`, in seconds since 1970, and at no other time; 0: not at all.

        Where systemd does not run, or our units are not installed, entries expire with the next
        apply. Raises `LoadFailed` if systemd refuses.
        """
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
                # By default it would wait for sysinit.target, for which this very run, at boot,
                # may be waited for.
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
                "all is live and confirmed, but entries will not end by themselves, as their timer "
                f"cannot be set: {errors.strip()}"
            )
