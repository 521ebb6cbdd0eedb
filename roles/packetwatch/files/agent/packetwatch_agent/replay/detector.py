# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom a policy bans: the program's detection, the agent's slow scans, and the lengths of bans.

`roles/packetwatch/files/bpf/detect.h`, `tracks.h` and `bans.h` have the program's part, `slow.py` and
`offenders.py` the agent's.
"""

from __future__ import annotations

import typing as t

from packetwatch_core._active.build import ban_rate
from packetwatch_core._declared.kinds import nanoseconds
from packetwatch_core._declared.policy import DEFAULT
from packetwatch_core._kernel import abi

from ..repeats import Repeats, length_of
from .window import Probe, Window

if t.TYPE_CHECKING:
    from packetwatch_core._declared.policy import Policy

_SECOND = 1_000_000_000
_OVERFLOW = 60 * _SECOND
_WITH_ANY = ("syn", "stealth")


class Ban(t.NamedTuple):
    """A ban that a policy makes; times are nanoseconds. probes: how many distinct ones."""

    time: int
    source: str
    expires: int
    kind: str
    ports: tuple[int, ...]
    probes: int


class Detector:
    """The detection of one host. policies: as `resolve_policies` returns them; monitor bans too."""

    def __init__(self, policies: t.Mapping[str, Policy]) -> None:
        self._policies = policies
        every = tuple(policies.values())
        self._tracks = Window(
            nanoseconds(max(policy.scan_window for policy in every)), 1 << abi.TIME_SHIFT
        )
        self._slow = Window(nanoseconds(max(policy.slow_scan_window for policy in every)), _SECOND)
        self._bans: dict[str, int] = {}
        self._repeats = Repeats()
        rate = ban_rate(every)
        self._rate = _Rate(rate["ban_interval_ns"], rate["ban_burst_ns"])

    def policy(self, interface: str) -> Policy:
        """The policy of an interface."""
        return self._policies.get(interface, self._policies[DEFAULT])

    def probe(self, time: int, source: str, probe: Probe, kind: str, interface: str) -> Ban | None:
        """Count a packet that goes to a closed port, or any packet if the policy counts all."""
        policy = self.policy(interface)
        if policy.action == "off" or kind not in policy.scan_kinds or self._is_banned(source, time):
            return None
        if policy.scan_counts == "any" and kind not in _WITH_ANY:
            return None
        window = nanoseconds(policy.scan_window)
        is_new, probes = self._tracks.touch(source, probe, time, window)
        if len(probes) >= policy.scan_ports:
            self._tracks.forget(source)
            self._slow.forget(source)
            return self._ban(time, source, kind, probes, policy)
        if not (is_new and policy.slow_scan_ports and policy.scan_counts == "closed"):
            return None
        window = nanoseconds(policy.slow_scan_window)
        dummy, probes = self._slow.touch(source, probe, time, window)
        if len(probes) < policy.slow_scan_ports:
            return None
        self._slow.forget(source)
        return self._ban(time, source, "slow", probes, policy)

    def _is_banned(self, source: str, time: int) -> bool:
        if self._bans.get(source, 0) > time:
            return True
        self._bans.pop(source, None)
        return False

    def _ban(
        self, time: int, source: str, kind: str, probes: t.Sequence[Probe], policy: Policy
    ) -> Ban:
        length = nanoseconds(policy.ban_time)
        if kind != "slow" and not self._rate.allows(time):
            length = min(length, _OVERFLOW)
        times = self._repeats.count(source, time, policy)
        if times > 1:
            length = max(length, length_of(times, policy))
        expires = self._bans[source] = time + length
        self._repeats.remember(source, times, expires, policy)
        ports = tuple(sorted({probe.port for probe in probes}))
        return Ban(time, source, expires, kind, ports, len(probes))


class _Rate:
    """The limit of bans that are not short (`rate.h`)."""

    def __init__(self, interval: int, burst: int) -> None:
        self._interval = interval
        self._burst = burst
        self._due = 0

    def allows(self, time: int) -> bool:
        due = max(self._due, time)
        if due - time > self._burst:
            return False
        self._due = due + self._interval
        return True
