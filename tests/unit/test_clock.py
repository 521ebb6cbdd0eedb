# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ctypes
import errno

import pytest

from packetwatch_core._base import clock

TIME_OK, TIME_ERROR = 0, 5
BOOTED, SETTLED = 30.0, 601.0
LIMIT = clock._MAX_WAIT


@pytest.mark.parametrize(
    ("state", "uptime", "believed"),
    [
        (TIME_OK, BOOTED, True),
        (TIME_ERROR, BOOTED, False),
        (TIME_ERROR, SETTLED, True),
        # A unit's system call filter may forbid adjtimex(2).
        (-errno.EPERM, BOOTED, False),
        (-errno.EPERM, SETTLED, True),
    ],
)
def test_what_the_kernel_does_not_say_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, state: int, uptime: float, believed: bool
) -> None:
    library = type("Library", (), {"adjtimex": lambda self, dummy: max(state, -1)})
    monkeypatch.setattr(ctypes, "CDLL", lambda dummy: library())
    monkeypatch.setattr(clock, "_MAX_WAIT", LIMIT)
    monkeypatch.setattr(clock.time, "clock_gettime", lambda dummy: uptime)
    assert clock.clock_synchronised() is believed


@pytest.mark.parametrize(
    ("kind", "expiry", "is_synchronised", "expected"),
    [
        ("allow", 101, True, True),
        ("allow", 100, True, False),
        ("deny", 101, True, True),
        ("deny", 100, True, False),
        ("allow", 101, False, False),
        ("deny", 99, False, True),
    ],
)
def test_which_expiring_entries_count(
    kind: str, expiry: float, is_synchronised: bool, expected: bool
) -> None:
    assert clock.counts(kind, expiry, 100, is_synchronised) is expected
