# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Durations, in all places that take one."""

from __future__ import annotations

import pytest

from packetwatch_core._base.duration import duration_text, parse_duration, write_seconds
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.policy import keys_from_options, read_policy
from packetwatch_core._network.endpoints import parse_interval


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("0.5", 0.5),
        ("30s", 30),
        ("10m", 600),
        ("2h", 7200),
        ("7d", 604800),
        ("1w", 604800),
        ("1h30m", 5400),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value, "x", 0, 1e6) == seconds


@pytest.mark.parametrize(
    "value",
    ["", "soon", "-5", "1.5h", "10 m", "10M", "h", "٣", "1e3", True, None, [60], 1e-7, "8d", -1],
)
def test_others_are_named_with_what_is_allowed(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_duration(value, "packetwatch_ban_time", 1, 604800)
    assert str(caught.value) == (
        f"packetwatch_ban_time is {duration_text(value)!r}; allowed: seconds from 1 to 604800, up to 6 "
        "decimals, or a time such as 30s, 10m, 2h, 7d"
    )


def test_files_hold_seconds() -> None:
    assert keys_from_options({"ban_time": "7d", "scan_window": "90s", "scan_grace": "1h30m"}) == {
        "PW_SCAN_WINDOW": "90",
        "PW_SCAN_GRACE": "5400",
        "PW_BAN_TIME": "604800",
    }
    assert read_policy("PW_BAN_TIME=2h\n", "x.conf") == {"PW_BAN_TIME": "7200"}
    assert write_seconds(0.5) == "0.5"


def test_heartbeat_interval() -> None:
    assert parse_interval("10m", "x") == 600
    with pytest.raises(InvalidInput, match=r"x is '10\.5': write whole seconds"):
        parse_interval("10.5", "x")
