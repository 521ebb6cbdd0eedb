# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who made a ban, from journal lines of the agent, of packetwatchctl and of the module."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from packetwatch_core._bans.story import Story, story
from packetwatch_core._base.address import parse_prefix

SOURCE = "203.0.113.9"
OTHER = {"event.action": "ban", "source.ip": "203.0.113.8", "packetwatch.ports": [1, 2]}
SCAN = OTHER | {"source.ip": SOURCE, "packetwatch.ports": [22, 23, 8080]}
AUDIT = {
    "event.action": "audit",
    "packetwatch.command": "ban",
    "packetwatch.arguments": [f"address={SOURCE}", "duration=600"],
    "user.name": "alice",
    "event.reason": "ticket 4711",
}
FLEET = {"event.action": "ban", "source.ip": SOURCE, "packetwatch.rule": "e1/quorum"}
NESTED = '{"event.action":"audit","packetwatch.command":"ban","packetwatch.arguments":' + (
    "[" * 950 + "]" * 950 + "}"
)
MODULE = f"Invoked with address={SOURCE} state=present duration=60.0 reason=ticket 4711, urgent"


def read_story(source: str, *lines: object, status: int = 0) -> Story:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]

    def run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        assert "--since=@997" in argv and "--until=@1004" in argv
        return status, "".join(f"{text}\n" for text in texts), ""

    return story(run, parse_prefix(source), 1000.5)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([OTHER, SCAN], Story("the program", "scanned ports 22, 23, 8080")),
        ([SCAN | {"packetwatch.kind": "slow"}], Story("the agent", "scanned ports 22, 23, 8080")),
        ([AUDIT | {"packetwatch.command": "unban"}, AUDIT], Story("user alice", "ticket 4711")),
        ([AUDIT | {"user.name": None, "user.id": "1000"}], Story("user 1000", "ticket 4711")),
        ([MODULE], Story("Ansible", "ticket 4711, urgent")),
        ([FLEET | {"source.ip": "203.0.113.250"}, FLEET], Story("the fleet", "rule e1/quorum")),
        ([MODULE.replace("present", "absent"), "[]", "{", "7", OTHER], Story()),
        ([], Story()),
        # The agent may have written anything.
        (["[" * 100_000, NESTED, AUDIT], Story("user alice", "ticket 4711")),
        ([SCAN | {"packetwatch.ports": 7}], Story("the program", "scanned ports ")),
        (
            [SCAN | {"packetwatch.ports": None, "source.ip": []}, AUDIT],
            Story("user alice", "ticket 4711"),
        ),
        ([AUDIT | {"packetwatch.arguments": 7}, AUDIT | {"packetwatch.arguments": None}], Story()),
    ],
)
def test_lines(lines: list[object], found: Story) -> None:
    assert read_story(SOURCE, *lines) == found


def test_an_address_stands_for_its_network() -> None:
    line = AUDIT | {"packetwatch.arguments": ["address=2001:db8::7"]}
    assert read_story("2001:db8::/64", line).by == "user alice"
    assert read_story("2001:db8:0:1::/64", line) == Story()


def test_no_journal_or_no_time() -> None:
    assert read_story(SOURCE, SCAN, status=127) == Story()
    assert (
        story(lambda argv, stdin: pytest.fail("the journal was asked"), parse_prefix(SOURCE), None)
        == Story()
    )
