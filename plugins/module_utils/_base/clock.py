# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether the clock can be believed, for entries that expire."""

from __future__ import annotations

import ctypes
import time

# adjtimex(2): the clock is not synchronised.
_TIME_ERROR = 5
_SETTLED = 600.0


def clock_synchronised() -> bool:
    """True if the kernel's clock is synchronised, or has had ten minutes since boot to become so.

    A host without a battery-backed clock boots in the past; one without time service must not
    wait for ever. What cannot be asked counts as not synchronised.
    """
    request = ctypes.create_string_buffer(512)
    state: int = ctypes.CDLL(None).adjtimex(request)
    return 0 <= state != _TIME_ERROR or time.clock_gettime(time.CLOCK_BOOTTIME) >= _SETTLED
