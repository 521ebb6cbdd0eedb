# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a replay has found, for programs and as text."""

from __future__ import annotations

import typing as t

from packetwatch_core._declared.policy import KNOBS, Policy

from ..control.words import count, moment, printable, span, table

if t.TYPE_CHECKING:
    from .detector import Ban
    from .player import Player

_SECOND = 1_000_000_000
_SHOWN = (
    *("scan_ports", "scan_window", "scan_counts", "scan_kinds"),
    *("slow_scan_ports", "slow_scan_window", "ban_time", "ban_time_max"),
)
Result = dict[str, t.Any]


def result(
    player: Player,
    bans: t.Sequence[Ban],
    spared: t.Mapping[str, str],
    policies: t.Mapping[str, Policy],
) -> Result:
    """The whole report. bans: those that were not spared. spared: why, by source."""
    return {
        "recording": {
            "hosts": sorted(player.hosts),
            "from": player.first / _SECOND,
            "to": player.last / _SECOND,
            "lines": {action or "message": number for action, number in player.actions.items()},
            "bans": player.scan_bans,
        },
        "policies": {name: _policy(policy) for name, policy in policies.items()},
        "bans": [_ban(ban) for ban in bans],
        "spared": dict(spared),
        "sum": {
            "bans": len(bans),
            "sources": len({ban.source for ban in bans}),
            "spared": len(spared),
            "seconds": sum(ban.expires - ban.time for ban in bans) / _SECOND,
        },
        "unknown": _unknown(player),
        "problems": _problems(player, policies),
    }


def lines(found: Result) -> list[str]:
    """The report as text."""
    recording, total = found["recording"], found["sum"]
    kinds = [
        f"{number} {name}"
        for name, number in sorted(recording["lines"].items())
        if name != "message"
    ]
    text = [
        f"recorded by {', '.join(recording['hosts'])} from {moment(recording['from'])} to "
        f"{moment(recording['to'])} ({span(recording['to'] - recording['from'])}): {', '.join(kinds)}"
    ]
    for name, policy in found["policies"].items():
        words = [f"{field} {value}" for field, value in policy.items()]
        text.append(f"policy {name}: {', '.join(words)}")
    if found["bans"]:
        head = ("TIME", "SOURCE", "FOR", "KIND", "PROBES", "PORTS")
        text += table([head, *map(_row, found["bans"])])
    text += [f"not banned: {source} ({reason})" for source, reason in found["spared"].items()]
    text.append(
        f"sum: {count(total['bans'], 'ban')} of {count(total['sources'], 'source')}, "
        f"{span(total['seconds'])} in all; {count(total['spared'], 'source')} not banned; "
        f"the host itself made {count(recording['bans'], 'ban')} of scans"
    )
    text += [f"unknown: {what}" for what in found["unknown"]]
    text += [f"PROBLEM: {what}" for what in found["problems"]]
    return [printable(line) for line in text]


def _policy(policy: Policy) -> dict[str, str]:
    longest = policy._replace(ban_time_max=policy.longest_ban)
    return {field: KNOBS[field].kind.write(getattr(longest, field)) for field in _SHOWN}


def _ban(ban: Ban) -> Result:
    return {
        "time": ban.time / _SECOND,
        "source": ban.source,
        "seconds": (ban.expires - ban.time) / _SECOND,
        "kind": ban.kind,
        "probes": ban.probes,
        "ports": list(ban.ports),
    }


def _row(ban: Result) -> tuple[object, ...]:
    ports = ",".join(map(str, ban["ports"]))
    return (
        moment(ban["time"]),
        ban["source"],
        span(ban["seconds"]),
        ban["kind"],
        ban["probes"],
        ports,
    )


def _unknown(player: Player) -> list[str]:
    """What the recording cannot tell, with numbers where it has them."""
    found = [
        "repeated probes of other kinds than syn, which keep a probe within its window",
        "what proves the address of a source: bans with the evidence answer last ban_time_max",
        "sources that were protected for a while, such as those of SSH sessions, unless they scanned",
    ]
    numbers = (
        (player.suppressed, "events held back by the limits"),
        (player.lost, "events lost because the ring was full"),
        (player.probes_lost, "probes that were above their limit, or lost"),
        (player.hidden, "packets that hid their port"),
        (
            player.scan_bans + player.other_bans,
            "bans while it was recorded, each with what its source did until its end",
        ),
        (player.damaged, "lines without a source or destination"),
    )
    return found + [f"{number} {what}" for number, what in numbers if number]


def _problems(player: Player, policies: t.Mapping[str, Policy]) -> list[str]:
    """What makes the report worthless."""
    found = []
    counts = {policy.scan_counts for policy in policies.values()}
    if "closed" in counts and not player.actions["probe"]:
        found.append(
            "the recording has no probe lines, and only these say that a port was closed: set "
            "packetwatch_log_probes, and record again; or use --scan-counts any"
        )
    if "any" in counts and not player.actions["connection"]:
        found.append(
            "the recording has no connection lines, which --scan-counts any needs: set "
            "packetwatch_log_connections to all, and record again"
        )
    if len(player.hosts) > 1:
        found.append(
            f"the recording is of {len(player.hosts)} hosts, and a policy is that of one host: replay them "
            "one by one, or use packetwatch-enforcer replay"
        )
    return found
