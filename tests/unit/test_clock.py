# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ctypes
import errno
import time
from pathlib import Path

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
    monkeypatch.setattr(time, "clock_gettime", lambda dummy: uptime)
    assert clock.clock_synchronised() is believed


@pytest.mark.parametrize(
    ("kind", "passed", "is_trusted", "expected"),
    [
        ("allow", 99, True, True),
        ("allow", 100, True, False),
        ("deny", 99, True, True),
        ("deny", 100, True, False),
        ("allow", 99, False, False),
        ("deny", 99, False, True),
        ("deny", 0, False, True),
        ("allow", 100, False, False),
        ("deny", 100, False, False),
    ],
)
def test_which_expiring_entries_count(
    kind: str, passed: float, is_trusted: bool, expected: bool
) -> None:
    assert clock.counts(kind, 100, clock.Clock(passed, is_trusted)) is expected


def test_the_time_that_was_trusted_is_kept_and_never_goes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = str(tmp_path / "below/clock")
    trusted, now = [True], [2000.0]
    monkeypatch.setattr(clock, "clock_synchronised", lambda: trusted[0])
    monkeypatch.setattr(time, "time", lambda: now[0])
    clock.keep_time(path, clock.read_clock(path))
    now[0] = 1000.0
    assert clock.read_clock(path) == (2000.0, True)
    clock.keep_time(path, clock.read_clock(path))
    clock.keep_time(path, clock.Clock(1500.0, True))
    trusted[0] = False
    now[0] = 3000.0
    clock.keep_time(path, clock.Clock(3000.0, False))
    found = clock.read_clock(path)
    assert found == (2000.0, False)
    assert (found.is_undecided(2000), found.is_undecided(2001)) == (False, True)


@pytest.mark.parametrize("content", ["", "soon\n", "\0" * 40, "-", "nan", "1e999"])
def test_a_damaged_time_is_no_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    (tmp_path / "clock").write_text(content)
    monkeypatch.setattr(clock, "clock_synchronised", lambda: False)
    for path in (tmp_path / "clock", tmp_path, tmp_path / "none"):
        assert clock.read_clock(str(path)) == (0, False)
