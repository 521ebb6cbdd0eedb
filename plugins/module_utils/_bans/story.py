# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Who made a ban, and why, according to the journal: the kernel stores neither names nor reasons."""

from __future__ import annotations

import math
import re
import typing as t

from .._base.address import Prefix, parse_prefix
from .._base.errors import InvalidInput
from .._base.files import parse_json

if t.TYPE_CHECKING:
    from .._base.types import Run

_MODULE = "ansible-packetwatch.xdp.ban"
# Matches for journalctl(1): lines of the agent, of packetwatchctl, or of the Ansible module.
_MATCHES = (
    "_SYSTEMD_UNIT=packetwatch.service",
    "+",
    "SYSLOG_IDENTIFIER=packetwatchctl",
    "+",
    f"SYSLOG_IDENTIFIER={_MODULE}",
)
# The log line may be older or newer than the ban by so many seconds.
_SLACK = 3
# A flood of events has 10,000 lines a second.
_LINES = "--lines=100000"
_OPTION = re.compile(r"(\w+)=(.*?)(?= (?:address|duration|reason|state)=|$)")


class Story(t.NamedTuple):
    """Who made a ban and why; empty if the journal does not say."""

    by: str = ""
    reason: str = ""


def story(run: Run, source: Prefix, since: float | None) -> Story:
    """Return the story of the ban of a source that began at `since` (Unix seconds).

    since None: the ban began before this boot, and the journal is not read.
    """
    if since is None:
        return Story()
    span = f"--since=@{math.floor(since) - _SLACK}", f"--until=@{math.ceil(since) + _SLACK}"
    status, output, dummy = run(
        ["journalctl", "--quiet", "--output=cat", "--reverse", _LINES, *span, *_MATCHES], None
    )
    if status:
        return Story()
    found = (_read(line, source) for line in output.splitlines())
    return next((each for each in found if each), Story())


def _read(line: str, source: Prefix) -> Story | None:
    """Return the story in a journal line; None if the line is not about a ban of this source.

    The agent may have written anything into the journal.
    """
    try:
        return _of_line(line, source)
    except RecursionError:
        return None


def _of_line(line: str, source: Prefix) -> Story | None:
    if line.startswith("Invoked with "):
        options = dict(_OPTION.findall(line.removeprefix("Invoked with ")))
        is_meant = options.get("state") == "present" and _matches(options.get("address"), source)
        return Story("Ansible", options.get("reason", "")) if is_meant else None
    try:
        fields = parse_json(line)
    except ValueError:
        return None
    action = fields.get("event.action") if isinstance(fields, dict) else None
    if action == "ban" and "packetwatch.ports" in fields:
        ports = ", ".join(_texts(fields["packetwatch.ports"]))
        is_meant = _matches(fields.get("source.ip"), source)
        by = "the agent" if fields.get("packetwatch.kind") == "slow" else "the program"
        return Story(by, f"scanned ports {ports}") if is_meant else None
    if action == "ban" and "packetwatch.rule" in fields:
        is_meant = _matches(fields.get("source.ip"), source)
        return Story("the fleet", f"rule {fields['packetwatch.rule']}"[:200]) if is_meant else None
    if action != "audit" or fields.get("packetwatch.command") != "ban":
        return None
    words = dict(word.partition("=")[::2] for word in _texts(fields.get("packetwatch.arguments")))
    if not _matches(words.get("address"), source):
        return None
    user = fields.get("user.name") or fields.get("user.id", "")
    return Story(f"user {user}", str(fields.get("event.reason", "")))


def _texts(value: t.Any) -> list[str]:
    """The items of a list as texts; none if it is not a list."""
    return list(map(str, value)) if isinstance(value, list) else []


def _matches(address: t.Any, source: Prefix) -> bool:
    try:
        prefix = parse_prefix(str(address))
    except InvalidInput:
        return False
    return prefix.family == source.family and source.value <= prefix.value <= source.last
