# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The note of the times of feeds' copies."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from packetwatch_core._base.digest import digest_text
from packetwatch_core._base.errors import InvalidInput, Unavailable
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.copies import Ages, Times
from packetwatch_core._feeds.parse import Format, read_feed
from packetwatch_core._feeds.published import check_age

OLD, NEW = "45.1.2.3\n", "45.1.2.4\n"
BEFORE = State(deny={"feed-x": OLD}, allow={"feed-y": OLD, "ansible": OLD})


def fetched(text: str, when: float | None, name: str = "x") -> dict[str, object]:
    return {"name": name, "digest": digest_text(text), "fetched": when, "published": 5.0}


def test_a_reverted_copy_has_its_own_age_again(tmp_path: Path) -> None:
    path = str(tmp_path / "lib/feeds")
    for when, text in ((10.0, OLD), (20.0, NEW)):
        ages = Ages(path)
        ages.note([fetched(text, when)], BEFORE, when)
        ages.write()
    again = Ages(path)
    assert again.of(BEFORE) == {"x": Times(10, 5)}
    assert again.of(State(deny={"feed-x": NEW})) == {"x": Times(20, 5)}
    assert again.of(State(deny={"feed-x": "45.1.2.5\n"})) == {}


def test_the_note_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "feeds"
    for when in range(100):
        ages = Ages(str(path))
        ages.note([fetched(f"45.1.2.{when}\n", when)], State(), when)
        ages.write()
    assert path.stat().st_size < 2000
    assert Ages(str(path)).times("x", "45.1.2.99\n") == Times(99, 5)
    ages.note([], State(), 100)
    ages.write()
    assert path.read_text() == "{}\n"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "\xff", '{"x": 1}', '{"x": {"a": 1}}', '{"x": {"a": []}}']
)
def test_a_damaged_note_is_no_note(tmp_path: Path, text: str) -> None:
    path = tmp_path / "feeds"
    path.write_text(text, encoding="latin-1")
    ages = Ages(str(path))
    assert ages.of(BEFORE) == {}
    ages.note([fetched(OLD, 10.0)], BEFORE, 10)
    assert ages.of(BEFORE) == {"x": Times(10, 5)}


@pytest.mark.parametrize("ahead", [601, 3600, 86400, 10 * 365 * 86400])
def test_a_feed_from_the_future_is_not_fresh(ahead: float) -> None:
    with pytest.raises(Unavailable, match="ahead of this clock"):
        check_age(time.time() + ahead, 3600, "x")
    # The clocks of a publisher and of a controller differ by minutes.
    check_age(time.time() + 60, 3600, "x")


@pytest.mark.parametrize("published", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_time_without_sense_is_refused(published: float) -> None:
    record = f'{{"type": "metadata", "timestamp": {json.dumps(published)}, "records": 1}}'
    text = f'{{"cidr": "45.1.2.3"}}\n{record}\n'
    with pytest.raises(InvalidInput, match="timestamp of its metadata record"):
        read_feed(text.encode(), Format("json", "cidr"), "x")


def test_a_copy_that_was_noted_in_the_future_grows_old(tmp_path: Path) -> None:
    path = str(tmp_path / "feeds")
    ages = Ages(path)
    ages.note([fetched(OLD, 1000.0)], BEFORE, 1000)
    ages.write()
    # The clock is right again, and the publisher does not answer.
    now = Ages(path)
    now.note([{"name": "x", "digest": "", "fetched": None, "published": None}], BEFORE, 10)
    assert now.of(BEFORE) == {"x": Times(10, 5)}
