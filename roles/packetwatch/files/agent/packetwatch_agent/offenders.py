# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bans a source that scans again for twice as long each time, up to the policy's ban_time_max.

A source that has proved its address is banned for ban_time_max at once. By default ban_time_max equals
ban_time, and no source is remembered. Otherwise forged packets with a victim's address could ban the victim
for long.
"""

from __future__ import annotations

from packetwatch_core._bans.bans import MAPS, Ban, Bans
from packetwatch_core._base.errors import PacketwatchError, TooLarge
from packetwatch_core._declared.kinds import nanoseconds
from packetwatch_core._kernel import abi

from .confirmed import Confirmed
from .events import Event
from .repeats import Repeats, length_of


class Offenders:
    """Remembers a source until the longest ban has passed after its last one, or a restart."""

    def __init__(self, bans: Bans, confirmed: Confirmed) -> None:
        self._bans = bans
        self._confirmed = confirmed
        self._repeats = Repeats()
        self.room = 0
        """So many bans may be prolonged before the map of bans is too full for those by hand."""

    def judge(self, event: Event, interface: str) -> Event:
        """Prolong the ban of a repeated scan; return the event with the present end of its ban."""
        policy = self._confirmed.policy(interface)
        longest = nanoseconds(policy.longest_ban)
        first = nanoseconds(policy.ban_time)
        is_proved = bool(event.flags & abi.EVENT_ANSWER)
        if not event.expires or (longest <= first and not is_proved):
            return event
        source = event.source
        times = self._repeats.count(source, event.time, policy)
        expires = event.time + (longest if is_proved else length_of(times, policy))
        is_longer = expires > event.expires and (times > 1 or is_proved)
        if is_longer and self._prolong(event, expires):
            event = event._replace(expires=expires)
        self._repeats.remember(source, times, event.expires, policy)
        return event

    def take_room(self) -> None:
        """Take room for a ban in the map of bans; raises `TooLarge`."""
        if self.room <= 0:
            raise TooLarge(
                "the last quarter of the map of bans is kept for bans by hand: lift some"
            )
        self.room -= 1

    def prove(self, event: Event) -> Event:
        """Note in a ban that its source has proved its address, if the event says so and the ban is there."""
        ban = self._ban_of(event) if event.flags & abi.EVENT_ANSWER else None
        if ban and self._bans.prove(ban):
            return event
        return event._replace(flags=event.flags & ~abi.EVENT_ANSWER)

    def _ban_of(self, event: Event) -> Ban | None:
        """The ban that the event is about. An older one of its source has expired."""
        found = (self._bans.find(event.source, table) for table in MAPS)
        return next((ban for ban in found if ban and ban.since == event.time), None)

    def _prolong(self, event: Event, expires: int) -> bool:
        ban = self._ban_of(event) if self.room > 0 else None
        if ban is None:
            return False
        try:
            self._bans.prolong(ban, expires)
        except PacketwatchError:
            # The ban stays as long as the program made it.
            return False
        self.room -= 1
        return True
