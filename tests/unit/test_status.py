# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The status note is JSON, for any name of an interface."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packetwatch_core._health.status import Status

LEAVES = (
    st.text() | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
)


NESTED = st.recursive(LEAVES, lambda s: st.lists(s) | st.dictionaries(st.text(), s), max_leaves=5)


# Fields that the status knows have types.
UNKNOWN = st.text().map("x-{}".format)


@settings(deadline=None)
@given(st.dictionaries(UNKNOWN, NESTED))
def test_json_reads_what_was_written(value: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "status.json")
        path.write_text(json.dumps(value))
        status = Status(str(path))
        status.healed({"found": ["eth0"]})
        written = value | {"heal": {"found": ["eth0"]}}
        assert json.loads(path.read_text()) == status.read() == written
        assert path.read_text().isascii()


@pytest.mark.parametrize("text", ["", "[]", "{", "nonsense"])
def test_a_damaged_note_is_no_note(tmp_path: Path, text: str) -> None:
    path = tmp_path / "status.json"
    path.write_text(text)
    assert Status(str(path)).read() == {}


def test_a_failure_keeps_what_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "run/status.json"
    status = Status(str(path))
    status.failed("why")
    assert status.read()["apply"]["success"] is False
    path.write_text('{"digest": "ab", "apply": {"time": 1, "success": true}}')
    status.failed("why")
    assert status.read()["digest"] == "ab"
    assert status.read()["apply"]["success"] is False
    status.clear()
    assert status.read() == {}
    assert not path.parent.exists()
