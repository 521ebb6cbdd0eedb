# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rule is. A rule has no clock of its own and does no input or output, so recorded events can drive it too.

A rule of your own is a file ``NAME.py`` in the folder of rules with the function ``make_rule``, or an entry point of the
group ``packetwatch.rules``: docs/guides/write-a-rule.md.
"""

from __future__ import annotations

import typing as t

from packetwatch_fleet.observed import HostBan, Pair


class Decision(t.NamedTuple):
    """A rule wants a source to be banned on all hosts."""

    source: bytes
    """4 bytes of IPv4, 8 of an IPv6 /64, 16 of a single IPv6 address (`packetwatch_fleet.sources.packed`)."""
    seconds: float
    """For how long. With the evidence ``syn``, at most 600 seconds count."""
    evidence: str
    """``syn``: the source may be forged; ``answer``: it has completed a handshake."""
    seen: int
    """How many hosts have seen the source."""
    hosts: tuple[int, ...]
    """Some of them, by number."""
    ports: tuple[int, ...]
    """Some of the ports that the source has tried."""
    why: str
    """One sentence for people."""


class Proposal(t.NamedTuple):
    """A rule shows people a network. Nothing bans networks: deny it with a list if you agree."""

    network: bytes
    """The first 3 bytes of an IPv4 /24, or the first 6 of an IPv6 /48."""
    seen: int
    """How many sources of the network were seen."""
    ports: tuple[int, ...]
    why: str


Found = Decision | Proposal
UNREACHABLE = "unreachable"


class Hosts(t.Protocol):
    """The hosts of the fleet, by number."""

    def present(self) -> t.Sequence[int]:
        """The hosts that have reported their status and have not left."""

    def name(self, host: int) -> str:
        """The name of a host in the store."""

    def networks(self, host: int) -> frozenset[str]:
        """The /24 and /48 networks of a host's addresses, as far as the host has reported them."""


class Rule(t.Protocol):
    """Times are Unix seconds of the store. `now` is the time of what was observed, and may go back by seconds.

    Every structure of a rule must be bounded, because anybody can send packets.
    """

    name: str

    def seen(self, host: int, pairs: t.Sequence[Pair], now: float) -> t.Iterable[Found]:
        """A host has seen sources that have tried closed ports. Each pair is new to the host."""

    def bans(self, host: int, bans: t.Sequence[HostBan], now: float) -> t.Iterable[Found]:
        """A host has these bans of its own now, instead of those that it had before."""

    def tick(self, now: float) -> t.Iterable[Found]:
        """Some seconds have passed."""

    def forget(self, source: bytes) -> None:
        """Forget what was counted of a source: it was decided on, or people have lifted its ban."""

    def values(self) -> t.Mapping[str, float]:
        """What the rule counts now, for the metrics: ``entries`` and ``lost`` at least.

        `UNREACHABLE` is 1 while the fleet has too few hosts for any decision, which people are warned of.
        """


Make = t.Callable[[t.Mapping[str, float], Hosts], Rule]
"""Makes a rule with these thresholds."""
