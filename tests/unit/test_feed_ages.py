# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The note of the times of feeds' copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from packetwatch_core._base.digest import digest_text
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.copies import Ages, Times

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
