# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The end of a pending change, kept by a transient timer of systemd: the host then returns by itself.

The timer is monotonic, so that setting the clock neither hastens nor delays it.
"""

from __future__ import annotations

import os
import typing as t

from ._errors import LoadFailed, Unsupported

if t.TYPE_CHECKING:
    from ._types import Run

_UNIT = "packetwatch-rollback"


class Deadline:
    """The one timer; `runtime` and `units`: systemd's folders."""

    def __init__(self, run: Run, runtime: str, units: str) -> None:
        self._run = run
        self._runtime = runtime
        self._units = units

    def check(self) -> None:
        """Unsupported, with the remedy, where there is no systemd that could keep a timer."""
        if not os.path.isdir(os.path.join(self._runtime, "system")):
            raise Unsupported(
                "systemd does not run here (PID 1), so that nothing would undo a change that is "
                "not confirmed: only confirm_timeout 0 is possible, which confirms it at once"
            )

    def arm(self, seconds: float) -> None:
        """Start the rollback after that time; raises `LoadFailed` if systemd refuses."""
        if not os.path.exists(os.path.join(self._units, f"{_UNIT}.service")):
            raise Unsupported(
                f"{_UNIT}.service is not installed, so that nothing would undo a change that is "
                "not confirmed: run the role packetwatch.xdp.packetwatch first, or set "
                "confirm_timeout to 0, which confirms it at once"
            )
        self.disarm()
        self._call(
            "systemd-run",
            "--quiet",
            f"--unit={_UNIT}.service",
            "--description=Packetwatch returns unless the change is confirmed",
            f"--on-active={seconds:.3f}s",
            "--timer-property=AccuracySec=100ms",
        )

    def disarm(self) -> None:
        """Stop the timer if there is one."""
        if os.path.exists(os.path.join(self._runtime, "transient", f"{_UNIT}.timer")):
            self._call("systemctl", "stop", f"{_UNIT}.timer")

    def _call(self, *argv: str) -> None:
        status, dummy, errors = self._run(argv, None)
        if status:
            raise LoadFailed(f"the timer for changes that are not confirmed: {errors.strip()}")
