# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bans a source that scans again for twice as long each time, up to the policy's ban_time_max.

By default ban_time_max equals ban_time, and no source is remembered. Otherwise forged packets with a
victim's address could ban the victim for long.
"""

from __future__ import annotations

import typing as t

from packetwatch_core._bans.bans import MAPS, Bans, Source
from packetwatch_core._base.errors import PacketwatchError, TooLarge
from packetwatch_core._declared.kinds import nanoseconds

from .confirmed import Confirmed
from .events import Event

_MAX_SOURCES = 4096
_MAX_DOUBLINGS = 40


class _Offence(t.NamedTuple):
    times: int
    expires: int


class Offenders:
    """Remembers a source until the longest ban has passed after its last one, or a restart."""

    def __init__(self, bans: Bans, confirmed: Confirmed) -> None:
        self._bans = bans
        self._confirmed = confirmed
        self._offences: dict[Source, _Offence] = {}
        self.room = 0
        """So many bans may be prolonged before the map of bans is too full for those by hand."""

    def judge(self, event: Event, interface: str) -> Event:
        """Prolong the ban of a repeated scan; return the event with the present end of its ban."""
        policy = self._confirmed.policy(interface)
        longest = nanoseconds(policy.longest_ban)
        first = nanoseconds(policy.ban_time)
        if longest <= first or not event.expires:
            return event
        source = event.source
        former = self._offences.pop(source, None)
        times = 1
        if former and event.time < former.expires + longest:
            times = former.times + 1
        expires = event.time + min(first << min(times - 1, _MAX_DOUBLINGS), longest)
        if times > 1 and expires > event.expires and self._prolong(event, expires):
            event = event._replace(expires=expires)
        self._remember(source, _Offence(times, event.expires))
        return event

    def take_room(self) -> None:
        """Take room for a ban in the map of bans; raises `TooLarge`."""
        if self.room <= 0:
            raise TooLarge(
                "the last quarter of the map of bans is kept for bans by hand: lift some"
            )
        self.room -= 1

    def _prolong(self, event: Event, expires: int) -> bool:
        if self.room <= 0:
            return False
        for table in MAPS:
            ban = self._bans.find(event.source, table)
            # An older one is that of a former scan, and has expired.
            if ban is None or ban.since != event.time:
                continue
            try:
                self._bans.prolong(ban, expires)
            except PacketwatchError:
                # The ban stays as long as the program made it.
                return False
            self.room -= 1
            return True
        return False

    def _remember(self, source: Source, offence: _Offence) -> None:
        if len(self._offences) >= _MAX_SOURCES:
            del self._offences[next(iter(self._offences))]
        self._offences[source] = offence
