# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Which time has certainly passed, and whether an entry that expires still counts.

A host may boot in the past, and its clock may be set back. So the latest time that a trusted clock has shown
is kept on disk. An entry whose end has passed once stays expired, also after a reboot. No boot depends on
that file: while it is missing or damaged, the clock decides alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
import typing as t

from .files import open_regular, replace_file
from .number import MAX_TIME, read_whole

_TIME_ERROR = 5
"""The state that adjtimex(2) returns while the clock is not synchronised."""
_MAX_WAIT = 600.0
"""Seconds after boot from which on the clock is trusted anyway."""
WHY_UNTRUSTED = (
    "the clock is not trusted yet, because it is not synchronised and the host has booted less than ten "
    "minutes ago"
)
_STEP = 60.0


def clock_synchronised() -> bool:
    """True if the kernel's clock is synchronised, or if the host booted ten minutes ago or earlier.

    A host without a battery-backed clock boots in the past. A host without a time service must not
    wait for ever. If the kernel does not answer, the clock counts as not synchronised.
    """
    request = ctypes.create_string_buffer(512)
    state: int = ctypes.CDLL(None).adjtimex(request)
    return 0 <= state != _TIME_ERROR or time.clock_gettime(time.CLOCK_BOOTTIME) >= _MAX_WAIT


class Clock(t.NamedTuple):
    """The latest time that has certainly passed (Unix seconds), and whether the clock is trusted.

    While the clock is not trusted, `passed` is the time that a trusted clock has shown last; 0: unknown.
    """

    passed: float
    is_trusted: bool

    @property
    def lags(self) -> bool:
        """Whether a trusted clock is behind the time that it has shown before, by more than a minute."""
        return self.is_trusted and time.time() + _STEP < self.passed

    def is_undecided(self, expiry: float) -> bool:
        """Whether nobody knows if an entry with this expiry has expired."""
        return not self.is_trusted and self.passed < expiry


def read_clock(path: str) -> Clock:
    """The clock, which never goes back behind the time in the file."""
    known = _known(path)
    return Clock(max(time.time(), known), True) if clock_synchronised() else Clock(known, False)


def keep_time(path: str, clock: Clock) -> None:
    """Write the time of a trusted clock to the file, unless a later one is there. Errors are ignored."""
    if not clock.is_trusted or clock.passed <= _known(path):
        return
    with contextlib.suppress(OSError):
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            os.makedirs(folder)
            os.chmod(folder, 0o755)
        replace_file(path, f"{clock.passed:.0f}\n", 0o644)


def _known(path: str) -> float:
    try:
        with open(open_regular(path), encoding="ascii") as file:
            return float(read_whole(file.read(32).strip(), MAX_TIME) or 0)
    except (OSError, ValueError):
        return 0.0


def counts(kind: str, expiry: float, clock: Clock) -> bool:
    """Whether an entry of an allow or deny list (`kind`) that expires at `expiry` still counts.

    While nobody knows whether it has expired, an allow does not count, and a deny does.
    """
    return clock.passed < expiry and (clock.is_trusted or kind == "deny")
