# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs ``packetwatchctl replay`` without agent and without state, and compares decisions."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from packetwatch_agent.control import cli
from packetwatch_agent.control.ctl.session import Places
from packetwatch_core._bans.recorded import Line, parse
from packetwatch_core._base.address import format_prefix, parse_prefix
from packetwatch_core._base.paths import Paths

NOWHERE = Path("/nonexistent")


class Decision(NamedTuple):
    """A ban: its source, its length, the kind of its scan, its ports and the number of its probes."""

    source: str
    seconds: float
    kind: str
    ports: list[int]
    probes: int


class Replayed(NamedTuple):
    """Exit status, what was printed, and, with --json, the decisions and their times."""

    status: int
    text: str
    result: dict[str, Any]
    decisions: list[Decision]
    times: list[float]


def places(folder: Path = NOWHERE) -> Places:
    """The places of a host whose state and settings are in a folder."""
    paths = Paths(
        state=str(folder / "state"),
        settings=str(folder / "settings"),
        spared=str(folder / "spared"),
        clock=str(folder / "clock"),
    )
    return Places(paths, str(folder / "control.sock"))


def run(*arguments: str, folder: Path = NOWHERE) -> Replayed:
    """Run ``replay`` with these arguments."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = cli.main(["replay", *arguments], places(folder))
    output.seek(0)
    text = output.read()
    result = json.loads(text) if "--json" in arguments and status < 2 else {}
    bans = result.get("bans", [])
    decisions = [
        Decision(ban["source"], ban["seconds"], ban["kind"], ban["ports"], ban["probes"])
        for ban in bans
    ]
    return Replayed(status, text, result, decisions, [ban["time"] for ban in bans])


def recorded_bans(journal: Path) -> list[Line]:
    """The bans of scans in a journal, by their times."""
    lines = (parse(data) for data in journal.read_bytes().splitlines())
    bans = [
        line
        for line in lines
        if line and line.action == "ban" and line.fields["packetwatch.origin"] == "scan"
    ]
    return sorted(bans, key=lambda line: line.time)


def decisions_of(bans: Iterable[Line]) -> list[Decision]:
    """What the agent says of its own bans."""
    found = []
    for ban in bans:
        fields = ban.fields
        end = parse(json.dumps({"@timestamp": fields["packetwatch.expires"]}).encode())
        assert end is not None
        found.append(
            Decision(
                format_prefix(parse_prefix(fields["packetwatch.prefix"])),
                round((end.time - ban.time) / 1e9, 3),
                fields["packetwatch.kind"],
                fields["packetwatch.ports"],
                fields["packetwatch.ports_count"],
            )
        )
    return found
