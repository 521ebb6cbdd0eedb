# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Log lines: alerts have a priority of their own in the journal."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from packetwatch_agent.output import Output, encode

ALERT = encode({"event.action": "scan", "event.kind": "alert"})
EVENT = encode({"event.action": "connection", "event.kind": "event", "user.name": ALERT})


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.mark.parametrize(("is_journal", "prefix"), [(True, "<4>"), (False, "")])
def test_alerts_are_warnings_in_the_journal_only(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, is_journal: bool, prefix: str
) -> None:
    reader, writer = pipe
    status = os.fstat(writer)
    inode = status.st_ino if is_journal else status.st_ino + 1
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{inode}")
    output = Output(writer, "host")
    seen: list[str] = []
    output.tap = seen.extend
    output.write([EVENT, ALERT])
    assert os.read(reader, 10_000).decode() == f"{EVENT}\n{prefix}{ALERT}\n"
    assert seen == [EVENT, ALERT]
