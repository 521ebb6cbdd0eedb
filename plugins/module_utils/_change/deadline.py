# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""A transient systemd timer that reverts a pending change when its time is up.

The timer is monotonic, so setting the clock does not shift it. It starts the unit that the role installs.
On a host without the role it starts a copy of this library, which is written to /run with the change.
"""

from __future__ import annotations

import os
import sys
import typing as t

from .._base.errors import LoadFailed, Unsupported

if t.TYPE_CHECKING:
    from .._base.types import Run

_UNIT = "packetwatch-rollback"
_COPY = "packetwatch_core"
_REVERT = f"""
import subprocess
from {_COPY}._host.host import Host

def run(argv, stdin):
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True)
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr

Host(run, patience=240.0).roll_back(due=True)
"""


class Deadline:
    """The one timer. runtime, units: systemd's folders. folder: for the copy of the library."""

    def __init__(self, run: Run, runtime: str, units: str, folder: str) -> None:
        self._folder = folder
        self._run = run
        self._runtime = runtime
        self._units = units

    def check(self) -> None:
        """Raise `Unsupported`, with the remedy, if no systemd runs that could keep a timer."""
        if not os.path.isdir(os.path.join(self._runtime, "system")):
            raise Unsupported(
                "systemd is not PID 1 on this host, so nothing would revert a change that is not "
                "confirmed; set confirm_timeout to 0, which confirms the change at once"
            )

    def arm(self, seconds: float) -> None:
        """Set the timer; raises `LoadFailed` if systemd refuses."""
        installed = os.path.exists(os.path.join(self._units, f"{_UNIT}.service"))
        command = [] if installed else self._copy_library()
        self.disarm()
        self._call(
            "systemd-run",
            "--quiet",
            f"--unit={_UNIT}.service",
            "--description=Packetwatch reverts the change unless it is confirmed",
            f"--on-active={seconds:.3f}s",
            "--timer-property=AccuracySec=100ms",
            *command,
        )

    def disarm(self) -> None:
        """Stop the timer if there is one."""
        if os.path.exists(os.path.join(self._runtime, "transient", f"{_UNIT}.timer")):
            self._call("systemctl", "stop", f"{_UNIT}.timer")

    def _copy_library(self) -> list[str]:
        """Copy this library; return the arguments that let systemd run it until it has succeeded."""
        folder = os.path.join(self._folder, _COPY)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            for path, content in _own_sources():
                target = os.path.join(folder, path)
                os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                with open(target, "wb") as file:
                    file.write(content)
        except OSError as error:
            raise LoadFailed(
                f"the timer that reverts the change cannot be prepared: {error}; nothing was changed"
            ) from error
        return [
            "--collect",
            "--property=Restart=on-failure",
            "--property=RestartSec=5",
            f"--setenv=PYTHONPATH={self._folder}",
            "--setenv=PYTHONDONTWRITEBYTECODE=1",
            "/usr/bin/python3",
            "-Ps",
            "-c",
            _REVERT,
        ]

    def _call(self, *argv: str) -> None:
        status, dummy, errors = self._run(argv, None)
        if status:
            raise LoadFailed(
                f"systemd refused the timer that reverts the change ({' '.join(argv[:2])}): "
                f"{errors.strip()}"
            )


def _own_sources() -> t.Iterator[tuple[str, bytes]]:
    """Yield path and content of each file of this library, from a folder or a module's archive."""
    # Imported here: a boot does not need them, and they would cost memory.
    import importlib.util
    import pkgutil

    library = sys.modules[(__package__ or "").rpartition(".")[0]]
    prefix = f"{library.__name__}."
    for found in pkgutil.walk_packages(library.__path__, prefix):
        spec = importlib.util.find_spec(found.name)
        if spec and spec.loader and spec.origin:
            source = spec.loader.get_data(spec.origin)  # type: ignore
            path = found.name.removeprefix(prefix).replace(".", os.sep)
            yield os.path.join(path, "__init__.py") if found.ispkg else f"{path}.py", source
