# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""__private.feeds: which copies a host lacks, and what it makes of those that come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.modules.__private import feeds

from packetwatch_core._base.digest import digest_text
from packetwatch_core._declared.store import State

TEXT = "45.1.2.3\n"
NOW = 1_780_000_000.0
FEED = {
    "name": "x",
    "list": "deny",
    "digest": digest_text(TEXT),
    "fetched": NOW - 5,
    "published": NOW - 3600,
}
LATE = {"name": "x", "list": "deny", "problem": "404"}


def test_a_copy_that_is_not_here_is_asked_for(run: Any, host: Any) -> None:
    result = run(feeds, {"feeds": [FEED, {"name": "y", "list": "deny", "problem": "404"}]})
    assert result["lacks"] == ["x"]
    assert result["changed"] is False
    assert host.edited is None


def test_one_that_was_brought_is_taken(run: Any, host: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(TEXT)
    result = run(feeds, {"feeds": [FEED], "sources": {"x": str(tmp_path / "x")}, "now": NOW})
    assert host.edited == State(deny={"feed-x": TEXT})
    assert result["feeds"]["x"] == {
        "status": "current",
        "reason": "",
        "entries": 1,
        "left_out": {"total": 0, "examples": []},
        "age": 5,
        "published": NOW - 3600,
    }


def test_one_that_is_here_is_not_asked_for_again(run: Any, host: Any) -> None:
    host.state = State(deny={"feed-x": TEXT, "feed-old": TEXT})
    result = run(feeds, {"feeds": [FEED]})
    assert "lacks" not in result
    assert host.edited == State(deny={"feed-x": TEXT})


def test_one_that_is_another_is_refused(run: Any, host: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("45.1.2.4\n")
    result = run(feeds, {"feeds": [FEED], "sources": {"x": str(tmp_path / "x")}})
    assert result["failed"] is True
    assert "is not the copy of feed x that was fetched" in result["msg"]
    assert host.edited is None


def test_what_is_kept_is_a_warning(run: Any, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda dummy, text: warnings.append(text))
    host.state = State(deny={"feed-x": TEXT})
    result = run(feeds, {"feeds": [{"name": "x", "list": "deny", "problem": "404"}]})
    assert host.edited == host.state
    assert result["feeds"]["x"]["status"] == "kept"
    assert warnings == ["feed x is kept: 404"]


def test_a_kept_copy_grows_old_and_ends_by_choice(run: Any, host: Any) -> None:
    host.state = State(deny={"feed-x": TEXT})
    run(feeds, {"feeds": [FEED], "now": NOW})

    def later(seconds: float, **options: Any) -> Any:
        return run(feeds, {"feeds": [LATE | options], "now": NOW + seconds})["feeds"]["x"]

    assert later(3600) == {
        "status": "kept",
        "reason": "404",
        "entries": 1,
        "left_out": {"total": 0, "examples": []},
        "age": 3605,
        "published": NOW - 3600,
    }
    assert later(3600, expire_after=3605)["status"] == "kept"
    assert host.edited == host.state
    ended = later(3600, expire_after=3604)
    assert (ended["status"], ended["entries"], ended["age"]) == ("expired", 0, None)
    assert ended["reason"] == (
        "404; the last good copy is removed: it is 3605 s old, and expire_after is 3604"
    )
    assert host.edited == State()


def test_a_copy_of_unknown_age_begins_to_age(run: Any, host: Any) -> None:
    host.state = State(deny={"feed-x": TEXT})
    first = run(feeds, {"feeds": [LATE | {"expire_after": 60}], "now": NOW})["feeds"]["x"]
    assert (first["status"], first["age"]) == ("kept", 0)
    later = run(feeds, {"feeds": [LATE | {"expire_after": 60}], "now": NOW + 61})["feeds"]["x"]
    assert later["status"] == "expired"


def test_check_mode_notes_no_age(run: Any, host: Any, tmp_path: Path) -> None:
    host.state = State(deny={"feed-x": TEXT})
    assert run(feeds, {"feeds": [FEED], "now": NOW}, check=True)["feeds"]["x"]["age"] == 5
    assert not (tmp_path / "feeds").exists()


def test_an_empty_first_copy_is_not_used(run: Any, host: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    found = run(feeds, {"feeds": [EMPTY], "sources": {"x": str(tmp_path / "x")}})["feeds"]["x"]
    assert found["status"] == "empty"
    assert "the publisher's list is empty, and there is no earlier copy: " in found["reason"]
    assert host.edited == State()


EMPTY = {"name": "x", "list": "deny", "digest": digest_text("")}


@pytest.mark.parametrize(
    ("options", "force", "status", "stays"),
    [
        ({}, False, "empty", True),
        ({"allow_empty": True}, False, "empty", False),
        ({}, True, "empty", False),
        ({"expire_after": 60}, False, "expired", False),
    ],
)
def test_an_empty_list_has_a_status_of_its_own(
    run: Any, host: Any, tmp_path: Path, options: Any, force: bool, status: str, stays: bool
) -> None:
    host.state = State(deny={"feed-x": TEXT})
    run(feeds, {"feeds": [FEED], "now": NOW})
    (tmp_path / "x").write_text("")
    found = run(
        feeds,
        {
            "feeds": [EMPTY | options],
            "sources": {"x": str(tmp_path / "x")},
            "now": NOW + 3600,
            "force": force,
        },
    )["feeds"]["x"]
    assert found["status"] == status
    assert found["entries"] == int(stays)
    assert host.edited.deny.get("feed-x", "").count("\n") == int(stays)
    if stays:
        assert (
            "the publisher's list is empty, and the last good copy of 1 entries stays"
            in (found["reason"])
        )
        assert "set allow_empty" in found["reason"]
