# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``replay``: whom a policy would have banned, from recorded events. It needs neither root nor the agent."""

from __future__ import annotations

import typing as t

from packetwatch_core._declared.policy import DEFAULT, keys_from_options, resolve_policies

from .. import wire, words
from .session import Command, Options, Outcome, Parser, Session

if t.TYPE_CHECKING:
    from packetwatch_core._base.address import Prefix

_KNOBS = {
    "scan_ports": "distinct probes that make a scan",
    "scan_window": "time within which they count",
    "scan_counts": "closed or any",
    "scan_kinds": "kinds of probes, as syn,stealth,ack",
    "slow_scan_ports": "distinct probes that make a slow scan; 0: none",
    "slow_scan_window": "time within which these count",
    "ban_time": "length of a ban",
    "ban_time_max": "maximum length for repeated scanners",
}


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="lines of the agent, also compressed by gzip; - is standard input",
    )
    for field, text in _KNOBS.items():
        parser.add_argument(
            f"--{field.replace('_', '-')}", metavar="VALUE", help=f"{text}; else as confirmed"
        )
    parser.add_argument(
        "--recorded-window",
        metavar="TIME",
        help="scan_window of the host when it recorded; else as confirmed",
    )
    parser.add_argument(
        "--spare", action="append", default=[], metavar="PREFIX", help="never ban these sources"
    )


def _replay(session: Session, options: Options) -> Outcome:
    # Only this command needs them.
    from packetwatch_core._bans.recorded import Recording
    from packetwatch_core._base.address import parse_prefix

    from ...replay import report
    from ...replay.detector import Detector
    from ...replay.player import Player
    from ...replay.sparing import Sparing

    state = session.state()
    given = {field: getattr(options, field) for field in _KNOBS}
    # Nobody is answered, so closed ports cannot be silent either.
    changed = keys_from_options(given | {"closed_ports": "reset"})
    confirmed = resolve_policies(state.policy)
    keys: dict[str, dict[str, str]] = {DEFAULT: {}} | {
        name: dict(one) for name, one in state.policy.items()
    }
    policies = resolve_policies({name: one | changed for name, one in keys.items()})
    window = confirmed[DEFAULT].scan_window
    if options.recorded_window:
        window = words.seconds_from(options.recorded_window)
    spare = {"spared by the command": [parse_prefix(text) for text in options.spare]}
    protected, shared = _settings(session)
    player = Player(Detector(policies), window, shared)
    for line in Recording(options.files):
        player.feed(line)
    sparing = Sparing(
        player.protected,
        spare | {"protected": protected},
        state.allow,
        session.clock(),
        session.note(),
    )
    bans, spared = sparing.split(player.bans)
    used = {
        name: policy
        for name, policy in policies.items()
        if name == DEFAULT or name in player.interfaces
    }
    found = report.result(player, bans, spared, used)
    status = wire.FAILED if found["problems"] else wire.DONE
    return Outcome(found, report.lines(found), status)


def _settings(session: Session) -> tuple[list[Prefix], list[Prefix]]:
    """The protected and the shared prefixes in the host's settings."""
    from packetwatch_core._network.protect import parse_declared, parse_shared
    from packetwatch_core._network.settings import read_values

    values, dummy = read_values(session.places.paths.settings)
    return parse_declared(values.get("PW_PROTECT", "")), parse_shared(
        values.get("PW_SHARED_PREFIXES", "")
    )


COMMANDS = {
    "replay": Command("whom a policy would have banned, from recorded events", _arguments, _replay)
}
