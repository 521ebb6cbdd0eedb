# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""_feeds: which copies a host lacks, and what it makes of those that come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.packetwatch.xdp.plugins.modules import _feeds

from packetwatch_core._base.digest import digest_text
from packetwatch_core._declared.store import State

TEXT = "45.1.2.3\n"
FEED = {"name": "x", "list": "deny", "digest": digest_text(TEXT)}


def test_a_copy_that_is_not_here_is_asked_for(run: Any, host: Any) -> None:
    result = run(_feeds, {"feeds": [FEED, {"name": "y", "list": "deny", "problem": "404"}]})
    assert result["lacks"] == ["x"]
    assert result["changed"] is False
    assert host.edited is None


def test_one_that_was_brought_is_taken(run: Any, host: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(TEXT)
    result = run(_feeds, {"feeds": [FEED], "sources": {"x": str(tmp_path / "x")}})
    assert host.edited == State(deny={"feed-x": TEXT})
    assert result["feeds"]["x"] == {
        "status": "current",
        "reason": "",
        "entries": 1,
        "left_out": {"total": 0, "examples": []},
    }


def test_one_that_is_here_is_not_asked_for_again(run: Any, host: Any) -> None:
    host.state = State(deny={"feed-x": TEXT, "feed-old": TEXT})
    result = run(_feeds, {"feeds": [FEED]})
    assert "lacks" not in result
    assert host.edited == State(deny={"feed-x": TEXT})


def test_one_that_is_another_is_refused(run: Any, host: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("45.1.2.4\n")
    result = run(_feeds, {"feeds": [FEED], "sources": {"x": str(tmp_path / "x")}})
    assert result["failed"] is True
    assert "is not the copy of feed x that was fetched" in result["msg"]
    assert host.edited is None


def test_what_is_kept_is_a_warning(run: Any, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(_feeds.AnsibleModule, "warn", lambda dummy, text: warnings.append(text))
    host.state = State(deny={"feed-x": TEXT})
    result = run(_feeds, {"feeds": [{"name": "x", "list": "deny", "problem": "404"}]})
    assert host.edited == host.state
    assert result["feeds"]["x"]["status"] == "kept"
    assert warnings == ["feed x is kept: 404"]
