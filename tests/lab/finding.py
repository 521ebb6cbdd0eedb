# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""What the demo expects, beside what it has seen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.traffic import Answer, connect

if TYPE_CHECKING:
    from typing import TypeAlias

    from lab.fleet import Fleet
    from lab.machine import Machine

    # A station that connects, to a machine, at its address, with this answer.
    Visit: TypeAlias = tuple[str, Machine, str, Answer]

# Each machine of the demo has a web server here.
SERVED = 80
# An answer that is expected may be slow. For silence, this is after the kernel has sent a SYN three times.
_ANSWER_SECONDS, _SILENCE_SECONDS = 60.0, 5.0


@dataclass(frozen=True)
class Finding:
    """An expected result, and the one that was seen."""

    text: str
    expected: str
    seen: str

    @property
    def good(self) -> bool:
        """Whether the expected result was seen."""
        return self.expected == self.seen


def table(findings: list[Finding]) -> list[str]:
    """A line for each finding."""
    width = max(len(finding.text) for finding in findings)
    return [
        f"  {'ok  ' if it.good else 'FAIL'}  {it.text:{width}}  {it.seen}"
        + ("" if it.good else f", expected: {it.expected}")
        for it in findings
    ]


def family(address: str) -> str:
    """The name of an address's family."""
    return "IPv6" if ":" in address else "IPv4"


def visit(fleet: Fleet, *visits: Visit, note: str = "") -> list[Finding]:
    """Connect all at the same time. note: appended to each text."""

    def one(who: str, machine: Machine, address: str, expected: Answer) -> Finding:
        patience = _SILENCE_SECONDS if expected is Answer.NONE else _ANSWER_SECONDS
        seen = connect(fleet.station(who), address, SERVED, timeout=patience)
        text = f"{who} connects to {machine.name} by {family(address)}{note}"
        return Finding(text, expected.value, seen.value)

    with ThreadPoolExecutor(len(visits)) as pool:
        return list(pool.map(lambda it: one(*it), visits))
