# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether the clock can be trusted, and whether an entry that expires still counts."""

from __future__ import annotations

import ctypes
import time

_TIME_ERROR = 5
"""The state that adjtimex(2) returns while the clock is not synchronised."""
_MAX_WAIT = 600.0
"""Seconds after boot from which on the clock is trusted anyway."""


def clock_synchronised() -> bool:
    """True if the kernel's clock is synchronised, or if the host booted ten minutes ago or earlier.

    A host without a battery-backed clock boots in the past. A host without a time service must not
    wait for ever. If the kernel does not answer, the clock counts as not synchronised.
    """
    request = ctypes.create_string_buffer(512)
    state: int = ctypes.CDLL(None).adjtimex(request)
    return 0 <= state != _TIME_ERROR or time.clock_gettime(time.CLOCK_BOOTTIME) >= _MAX_WAIT


def counts(kind: str, expiry: float, now: float, is_synchronised: bool) -> bool:
    """Whether an entry of an allow or deny list (`kind`) that expires at `expiry` still counts.

    Both times are Unix seconds. While the clock is not synchronised, nobody knows whether the entry
    has expired: an allow does not count, a deny does.
    """
    return now < expiry if is_synchronised else kind == "deny"
