# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether the wall clock can be trusted to decide which entries have expired."""

from __future__ import annotations

import ctypes
import time

_TIME_ERROR = 5
"""The state that adjtimex(2) returns while the clock is not synchronised."""
_MAX_WAIT = 600.0
"""Seconds after boot from which on the clock is trusted anyway."""


def clock_synchronised() -> bool:
    """Return whether the kernel's clock is synchronised, or ten minutes have passed since boot.

    A host without a battery-backed clock boots with a time in the past. A host without a time
    service must not wait for ever. If adjtimex(2) fails, the clock counts as not synchronised.
    """
    request = ctypes.create_string_buffer(512)
    state: int = ctypes.CDLL(None).adjtimex(request)
    return 0 <= state != _TIME_ERROR or time.clock_gettime(time.CLOCK_BOOTTIME) >= _MAX_WAIT
