# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``quorum``: hosts of the fleet have banned a source themselves."""

from __future__ import annotations

import typing as t

from packetwatch_fleet.observed import HostBan, Pair
from packetwatch_fleet.pages import EVIDENCE

from .interface import UNREACHABLE, Decision, Found, Hosts

# Bans of all hosts, about 400 bytes each, and sources that were decided on within the window.
MOST, _MAX_DECIDED = 40_000, 10_000
_SHOWN = 8
_SYN, _ANSWER = EVIDENCE[:2]


class _Vote(t.NamedTuple):
    """What a host's ban counts for."""

    made: float
    claimed: float
    """The time that the host has reported, which may be in the future."""
    is_strong: bool
    ports: tuple[int, ...]


class Quorum:
    """`hosts` hosts, which have addresses in at least `networks` networks, have banned a source within `window` s."""

    name = "quorum"

    def __init__(self, thresholds: t.Mapping[str, float], hosts: Hosts) -> None:
        self._hosts = round(thresholds["hosts"])
        self._networks = round(thresholds["networks"])
        self._window = thresholds["window"]
        self._seconds = thresholds["seconds"]
        self._fleet = hosts
        self._votes: dict[bytes, dict[int, _Vote]] = {}
        self._of_host: dict[int, frozenset[bytes]] = {}
        self._decided: dict[bytes, tuple[float, bool]] = {}
        """When a source was decided on, and whether with strong evidence."""
        self._size = self._lost = 0

    def seen(self, host: int, pairs: t.Sequence[Pair], now: float) -> t.Iterator[Found]:
        yield from ()

    def bans(self, host: int, bans: t.Sequence[HostBan], now: float) -> t.Iterator[Found]:
        former = self._of_host.pop(host, frozenset())
        present = {ban.source: ban for ban in bans}
        for source in former - present.keys():
            self._drop(source, host)
        kept, changed = set(), []
        for source, ban in present.items():
            known = self._votes.get(source, {}).get(host)
            is_same = known is not None and known.claimed == ban.made
            made = known.made if known and is_same else min(ban.made, now)
            vote = _Vote(made, ban.made, ban.evidence != _SYN, ban.ports)
            if known is None and self._size >= MOST:
                self._lost += 1
                continue
            kept.add(source)
            if known != vote:
                self._size += known is None
                self._votes.setdefault(source, {})[host] = vote
                changed.append(source)
        if kept:
            self._of_host[host] = frozenset(kept)
        for source in changed:
            yield from self._judge(source, now)

    def tick(self, now: float) -> t.Iterator[Found]:
        oldest = now - self._window
        self._decided = {
            source: found for source, found in self._decided.items() if found[0] > oldest
        }
        yield from ()

    def forget(self, source: bytes) -> None:
        # Also when it begins anew: the hosts go on to report the bans that they have.
        newest = max((vote.made for vote in self._votes.get(source, {}).values()), default=None)
        if newest is not None:
            self._decide(source, newest, True)

    def values(self) -> t.Mapping[str, float]:
        return {
            "entries": self._size,
            "lost": self._lost,
            UNREACHABLE: not self._is_reachable(),
        }

    def _judge(self, source: bytes, now: float) -> t.Iterator[Found]:
        decided, was_strong = self._decided.get(source, (0.0, False))
        oldest = now - self._window
        votes = {host: vote for host, vote in self._votes[source].items() if vote.made >= oldest}
        fresh = {host: vote for host, vote in votes.items() if vote.made > decided}
        # A decision with weak evidence leaves room for one with strong evidence.
        proofs = fresh if was_strong else votes
        strong = {host: vote for host, vote in proofs.items() if vote.is_strong}
        for found, is_strong in ((strong, True), (fresh, False)):
            if self._is_quorum(found):
                self._decide(source, now, is_strong)
                yield self._decision(source, found, is_strong)
                return

    def _is_quorum(self, hosts: t.Collection[int]) -> bool:
        if len(hosts) < self._hosts:
            return False
        if self._networks <= 1:
            return True
        # Hosts that share a network count as one for this.
        used: set[str] = set()
        count = 0
        for host in hosts:
            networks = self._fleet.networks(host)
            if networks and used.isdisjoint(networks):
                used |= networks
                count += 1
        return count >= self._networks

    def _is_reachable(self) -> bool:
        """Whether all hosts together may be a quorum."""
        hosts = self._fleet.present()
        if len(hosts) < self._hosts or self._networks <= 1:
            return len(hosts) >= self._hosts
        found: set[str] = set()
        for host in hosts:
            found |= self._fleet.networks(host)
            if len(found) >= self._networks:
                return True
        return False

    def _decision(self, source: bytes, votes: t.Mapping[int, _Vote], is_strong: bool) -> Decision:
        ports = dict.fromkeys(port for vote in votes.values() for port in vote.ports)
        return Decision(
            source,
            self._seconds,
            _ANSWER if is_strong else _SYN,
            len(votes),
            tuple(votes)[:_SHOWN],
            tuple(ports)[:_SHOWN],
            f"{len(votes)} hosts have banned it within {self._window:g} s",
        )

    def _decide(self, source: bytes, now: float, is_strong: bool) -> None:
        if source not in self._decided and len(self._decided) >= _MAX_DECIDED:
            del self._decided[next(iter(self._decided))]
        self._decided[source] = now, is_strong

    def _drop(self, source: bytes, host: int) -> None:
        votes = self._votes[source]
        del votes[host]
        self._size -= 1
        if not votes:
            del self._votes[source]
