# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines of the journal: decisions, rules that were switched off, blind detection."""

from __future__ import annotations

import time
import typing as t

from packetwatch_agent.metrics import COUNTER, GAUGE, Rows, Values, by_label
from packetwatch_agent.output import Output
from packetwatch_agent.part import Part

from .judge import PROPOSE, Judge, Record
from .rules.interface import UNREACHABLE
from .rules.panel import Panel

# Lines of decisions: so many at once, and so many a second. What is beyond is counted.
BURST, RATE = 200, 2.0
# Seconds for which no source can reach a rule before people are warned: hosts join a fleet slowly.
PATIENCE = 600.0
_WORDS = {"enforce": "is banned", "monitor": "would be banned"}


class Announcer(Part):
    """Also has the metrics of rules and decisions."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_enforcer_decisions_total": (COUNTER, "Decisions, by rule."),
        "packetwatch_enforcer_refused_total": (
            COUNTER,
            "Decisions that were refused, by reason; never: addresses that nobody bans.",
        ),
        "packetwatch_enforcer_rule_info": (GAUGE, "The action of each rule, always 1."),
        "packetwatch_enforcer_rule_fault": (GAUGE, "Whether a rule was switched off."),
        "packetwatch_enforcer_rule_seconds_total": (COUNTER, "Processor time of each rule."),
        "packetwatch_enforcer_rule_value": (GAUGE, "What a rule counts, by its own names."),
        "packetwatch_enforcer_lines_left_out_total": (COUNTER, "Decisions without a log line."),
    }

    def __init__(self, judge: Judge, panel: Panel, output: Output) -> None:
        self._judge = judge
        self._panel = panel
        self._output = output
        self._room = float(BURST)
        self._at = 0.0
        self._left_out = 0
        self._logged: set[str] = set()
        self._unreachable: dict[str, float] = {}
        """Since when no source can reach the thresholds of a rule."""
        self._warned: set[str] = set()
        self._is_blind = False

    def values(self) -> Values:
        seats = self._panel.seats
        return {
            "packetwatch_enforcer_decisions_total": by_label("rule", self._judge.decided),
            "packetwatch_enforcer_refused_total": by_label(
                "reason", {"never": 0} | self._judge.refused
            ),
            "packetwatch_enforcer_rule_info": [
                ({"rule": seat.name, "action": seat.action}, 1) for seat in seats
            ],
            "packetwatch_enforcer_rule_fault": [
                ({"rule": seat.name}, int(seat.fault is not None)) for seat in seats
            ],
            "packetwatch_enforcer_rule_seconds_total": [
                ({"rule": seat.name}, seat.used) for seat in seats
            ],
            "packetwatch_enforcer_rule_value": [
                ({"rule": seat.name, "value": name}, value)
                for seat in seats
                for name, value in seat.values().items()
            ],
            "packetwatch_enforcer_lines_left_out_total": [({}, self._left_out)],
        }

    def decision(self, record: Record) -> None:
        """Log a decision, unless there are too many."""
        now = time.monotonic()
        self._room = min(float(BURST), self._room + (now - self._at) * RATE)
        self._at = now
        if self._room < 1:
            self._left_out += 1
            return
        self._room -= 1
        is_proposal = record["action"] == PROPOSE
        what = (
            "consider a deny list"
            if is_proposal
            else f"{_WORDS[record['action']]} for {record['seconds']:g} s"
        )
        self._output.say(
            "info",
            f"{record['rule']}: {record['source']} {what}: {record['why']}",
            event__action=f"fleet_{record['action']}",
            event__kind="alert",
            source__ip=None if is_proposal else record["source"].partition("/")[0],
            packetwatch__prefix=record["source"],
            packetwatch__rule=record["rule"],
            packetwatch__evidence=record["evidence"],
            packetwatch__hosts=record["hosts"],
            packetwatch__hosts_count=record["seen"],
            packetwatch__ports=record["ports"],
        )

    def faults(self, panel: Panel) -> None:
        """Log each rule that was switched off, once."""
        for seat in panel.seats:
            if seat.fault is not None and seat.name not in self._logged:
                self._logged.add(seat.name)
                self._output.say(
                    "error",
                    f"the rule {seat.name} is switched off until the next start: {seat.fault}",
                    event__action="fleet_rule_off",
                    event__kind="alert",
                    packetwatch__rule=seat.name,
                )

    def unreachable(self, panel: Panel) -> None:
        """Warn of each rule whose thresholds no source can reach, once it has been so for a while."""
        now = time.monotonic()
        for seat in panel.seats:
            if not seat.values().get(UNREACHABLE):
                self._unreachable.pop(seat.name, None)
                self._warned.discard(seat.name)
                continue
            since = self._unreachable.setdefault(seat.name, now)
            if now - since < PATIENCE or seat.name in self._warned:
                continue
            self._warned.add(seat.name)
            wanted = ", ".join(
                f"{name} {seat.thresholds[name]:g}"
                for name in ("hosts", "networks")
                if name in seat.thresholds
            )
            self._output.say(
                "warn",
                f"the rule {seat.name} decides nothing: its thresholds want more hosts or networks than the fleet has "
                f"({wanted}): lower them in fleet_node_rules",
                event__action="fleet_rule_unreachable",
                event__kind="alert",
                packetwatch__rule=seat.name,
            )

    def blind(self, is_blind: bool, lost: int, pairs: int) -> None:
        """Log when detection becomes blind, and when it sees again."""
        if is_blind == self._is_blind:
            return
        self._is_blind = is_blind
        text = (
            f"scans of the fleet may be missed: of what hosts have seen in a minute, {lost} were lost and {pairs} were not"
            if is_blind
            else "hosts report what they see again"
        )
        self._output.say("warn" if is_blind else "info", text, event__action="fleet_blind")
