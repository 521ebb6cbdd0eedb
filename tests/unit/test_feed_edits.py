# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All feeds of a host in one edit: new copies, kept copies, removed feeds."""

from __future__ import annotations

from typing import Literal

import pytest

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.edit import FeedEdit, WantedFeed

OLD = "".join(f"45.1.2.{i}\n" for i in range(10))
STATE = State(
    allow={"ansible": "192.0.2.1\n"},
    deny={"ansible": "203.0.113.0/24\n", "feed-x": OLD, "feed-gone": "45.9.9.9\n"},
    interfaces={"eth0": "auto"},
)


def wanted(
    text: str | None,
    name: str = "x",
    kind: Literal["allow", "deny"] = "deny",
    max_change: float = 50,
    problem: str = "",
) -> WantedFeed:
    return WantedFeed(name, kind, text, max_change, problem)


def status(edit: FeedEdit) -> dict[str, str]:
    return {name: outcome.status for name, outcome in edit.outcomes.items()}


def test_all_at_once() -> None:
    edit = FeedEdit(
        [
            wanted("45.1.2.0/28\n", "new"),
            wanted(f"{OLD}45.1.2.10\n"),
            wanted(None, "late", problem="404"),
        ]
    )
    assert edit(STATE) == STATE._replace(
        deny={
            "ansible": "203.0.113.0/24\n",
            "feed-new": "45.1.2.0/28\n",
            "feed-x": f"{OLD}45.1.2.10\n",
        }
    )
    assert status(edit) == {"new": "current", "x": "current", "late": "missing"}
    assert edit.outcomes["late"].reason == "404"


def test_without_feeds_nothing_of_theirs_stays() -> None:
    assert FeedEdit([])(STATE).deny == {"ansible": "203.0.113.0/24\n"}


def test_a_feed_without_a_copy_keeps_its_last_good_one() -> None:
    edit = FeedEdit([wanted(None, problem="404"), wanted(None, "gone", "allow", problem="500")])
    assert edit(STATE) == STATE
    assert status(edit) == {"x": "kept", "gone": "kept"}


def test_a_feed_may_change_sides() -> None:
    after = FeedEdit([wanted(OLD, kind="allow")])(STATE)
    assert after.allow == {"ansible": "192.0.2.1\n", "feed-x": OLD}
    assert after.deny == {"ansible": "203.0.113.0/24\n"}


HALF = "".join(OLD.splitlines(keepends=True)[:5])
MORE = OLD + "".join(f"45.1.3.{i}\n" for i in range(5))


@pytest.mark.parametrize("text", [OLD, HALF, MORE, OLD.replace("45.1.2.9", "45.1.2.99")])
def test_a_likely_copy_is_taken(text: str) -> None:
    edit = FeedEdit([wanted(text)])
    assert edit(STATE).deny["feed-x"] == text
    assert status(edit) == {"x": "current"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "".join(HALF.splitlines(keepends=True)[:4]),
            "by 60 % from the last good one (6 of 10 entries gone, 0 new)",
        ),
        (f"{MORE}45.1.4.0/24\n", "by 60 % from the last good one (0 of 10 entries gone, 6 new)"),
        (
            OLD.replace("45.1", "45.7"),
            "by 100 % from the last good one (10 of 10 entries gone, 10 new)",
        ),
    ],
)
def test_an_unlikely_copy_is_not_unless_that_is_meant(text: str, words: str) -> None:
    edit = FeedEdit([wanted(text)])
    assert edit(STATE).deny["feed-x"] == OLD
    assert status(edit) == {"x": "kept"}
    assert words in edit.outcomes["x"].reason
    assert "packetwatch_feeds_force=true" in edit.outcomes["x"].reason
    for limit in (100.0, -1.0):
        edit = FeedEdit([wanted(text, max_change=limit)])
        assert edit(STATE).deny["feed-x"] == text


def test_networks_and_ipv6_are_compared_too() -> None:
    before = "45.1.0.0/24\n45.2.0.0/24\n2a01:4f8::/32\n2a01:4f8::1\n"
    state = State(deny={"feed-x": before})
    same = FeedEdit(
        [wanted("45.1.0.0/24\n2a01:4f8::/32\n2a01:4f8::1\n45.3.0.0/24\n", max_change=25)]
    )
    assert same(state) != state
    other = FeedEdit(
        [wanted("45.1.0.0/23\n2a01:4f8::/32\n2a01:4f8::1\n45.3.0.0/24\n", max_change=25)]
    )
    assert other(state) == state


def test_whatever_replaces_a_damaged_copy_is_taken() -> None:
    assert FeedEdit([wanted("45.7.7.7\n")])(State(deny={"feed-x": "45.1.2\n"})).deny == {
        "feed-x": "45.7.7.7\n"
    }


def test_a_long_list_is_compared_piece_by_piece() -> None:
    numbers = range(0, 300_000, 2)
    before = "".join(f"45.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}\n" for n in numbers)
    lines = before.splitlines(keepends=True)
    edit = FeedEdit([wanted("".join(lines[1000:]), max_change=0.5)])
    edit(State(deny={"feed-x": before}))
    assert "(1000 of 150000 entries gone, 0 new)" in edit.outcomes["x"].reason


def test_a_bad_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'feed-a/b' is not a name for a list"):
        FeedEdit([wanted(OLD, "a/b")])
