# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a replay has found, for programs and as text."""

from __future__ import annotations

import typing as t

from packetwatch_agent.control.words import count, moment, printable, span, table
from packetwatch_core._node.rules import OFF

from ..rules.interface import UNREACHABLE
from .player import Player

Result = dict[str, t.Any]
_WITHOUT_PROBES = "quorum"


def result(player: Player) -> Result:
    """The whole report."""
    decisions = player.decisions
    return {
        "recording": {
            "hosts": player.hosts,
            "from": player.first,
            "to": player.last,
            "lines": {action or "message": number for action, number in player.actions.items()},
        },
        "rules": {
            seat.name: {
                "action": seat.action,
                "thresholds": seat.thresholds,
                "decided": sum(one["rule"] == seat.name for one in decisions),
                "values": seat.values(),
                "fault": seat.fault,
            }
            for seat in player.panel.seats
        },
        "decisions": decisions,
        "refused": dict(player.judge.refused),
        "sum": {
            "decisions": len(decisions),
            "sources": len({one["source"] for one in decisions}),
            "seconds": sum(one["seconds"] for one in decisions),
        },
        "unknown": _unknown(player),
        "problems": _problems(player),
    }


def lines(found: Result) -> list[str]:
    """The report as text."""
    recording, total = found["recording"], found["sum"]
    kinds = sorted(item for item in recording["lines"].items() if item[0] != "message")
    text = [
        f"recorded by {count(len(recording['hosts']), 'host')} from {moment(recording['from'])} to "
        f"{moment(recording['to'])} ({span(recording['to'] - recording['from'])}): "
        + ", ".join(f"{number} {name}" for name, number in kinds)
    ]
    for name, rule in found["rules"].items():
        numbers = ", ".join(f"{key} {value:g}" for key, value in rule["thresholds"].items())
        few = ", too few hosts" if rule["values"].get(UNREACHABLE) else ""
        text.append(
            f"rule {name}: {rule['action']}, {numbers}: {count(rule['decided'], 'decision')}{few}"
        )
    if found["decisions"]:
        head = ("TIME", "SOURCE", "FOR", "RULE", "ACTION", "EVIDENCE", "SEEN", "HOSTS", "PORTS")
        text += table([head, *map(_row, found["decisions"])])
    text += [f"refused: {number} ({reason})" for reason, number in found["refused"].items()]
    text.append(
        f"sum: {count(total['decisions'], 'decision')} on {count(total['sources'], 'source')}, "
        f"{span(total['seconds'])} in all"
    )
    text += [f"unknown: {what}" for what in found["unknown"]]
    text += [f"PROBLEM: {what}" for what in found["problems"]]
    return [printable(line) for line in text]


def _row(found: Result) -> tuple[object, ...]:
    return (
        moment(found["t"]),
        found["source"],
        span(found["seconds"]) if found["seconds"] else "",
        found["rule"],
        found["action"],
        found["evidence"],
        found["seen"],
        ",".join(found["hosts"]),
        ",".join(map(str, found["ports"])),
    )


def _unknown(player: Player) -> list[str]:
    """What the recording cannot tell, with numbers where it has them."""
    found = [
        "bans that people have lifted, lists that allow a source, and addresses of hosts that nobody has probed: "
        "see --never",
        "how far the clocks of the hosts differed",
    ]
    numbers = (
        (player.probes_lost, "probes that were above a host's limit, or lost"),
        (player.lost, "probes that no report would have had, because there were too many"),
        (player.monitored, "scans under monitor, which are no bans of a host"),
        (player.damaged, "lines without a source or an end"),
    )
    return found + [f"{number} {what}" for number, what in numbers if number]


def _problems(player: Player) -> list[str]:
    """What makes the report worthless, or a part of it."""
    found = []
    needy = [
        seat.name
        for seat in player.panel.seats
        if seat.action != OFF and seat.name != _WITHOUT_PROBES
    ]
    if needy and not player.actions["probe"]:
        found.append(
            f"the recording has no probe lines, which {', '.join(needy)} need: set packetwatch_log_probes on the hosts, "
            "and record again"
        )
    if player.nameless:
        found.append(
            f"{player.nameless} lines from standard input do not name their host: write them to a file HOST.jsonl"
        )
    found += [
        f"the rule {seat.name} was switched off: {seat.fault}"
        for seat in player.panel.seats
        if seat.fault
    ]
    return found
