# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Bans that the fleet has decided. They replace no ban that this host has made itself.

Unlike a ban by hand, a fleet ban forgets nothing that was counted of its source. So whoever decides for the fleet
cannot pardon a source that this host is about to ban.
"""

from __future__ import annotations

import math
import time
import typing as t

from .._kernel import abi
from .bans import Ban, Bans, Source


class FleetBans:
    """The fleet's bans in the map ``bans``."""

    def __init__(self, bans: Bans) -> None:
        self._bans = bans

    def find(self, source: Source) -> Ban | None:
        """Return the ban of a source, also an expired one, and one that this host has made."""
        return self._bans.find(source, "bans")

    def put(self, ban: Ban) -> None:
        """Write a ban; raises `TooLarge` if the map is full."""
        self._bans.put(ban)

    def remove(self, ban: Ban) -> bool:
        """End a ban; return whether it was there."""
        return self._bans.remove(ban)

    def walk(self) -> t.Iterator[bytes | None]:
        """Yield the keys of all fleet bans, and None for each other ban."""
        for key, dummy, dummy, origin in self._bans.times("bans"):
            yield key if origin == abi.ORIGIN_FLEET else None

    def get(self, key: bytes) -> Ban | None:
        """Return the fleet ban with this key, also an expired one; None if there is none."""
        ban = self._bans.read(key, "bans")
        return ban if ban and ban.origin == abi.ORIGIN_FLEET else None


class Trial(FleetBans):
    """What the fleet's bans would be. They are in memory alone, so nothing is dropped."""

    def __init__(self, bans: Bans) -> None:
        super().__init__(bans)
        self._trial: dict[bytes, Ban] = {}
        self._first_end = math.inf

    def count(self) -> int:
        """Return how many there are. Those that have expired are forgotten, once there are any."""
        now = time.monotonic_ns()
        if now >= self._first_end:
            kept = {key: ban for key, ban in self._trial.items() if not ban.has_expired(now)}
            self._trial = kept
            self._first_end = min((ban.expires for ban in kept.values()), default=math.inf)
        return len(self._trial)

    def find(self, source: Source) -> Ban | None:
        local = super().find(source)
        if (
            local
            and local.origin != abi.ORIGIN_FLEET
            and not local.has_expired(time.monotonic_ns())
        ):
            return local
        return self._trial.get(source.key)

    def put(self, ban: Ban) -> None:
        self._trial[ban.source.key] = ban
        self._first_end = min(self._first_end, ban.expires)

    def remove(self, ban: Ban) -> bool:
        return self._trial.pop(ban.source.key, None) is not None

    def walk(self) -> t.Iterator[bytes | None]:
        yield from list(self._trial)

    def get(self, key: bytes) -> Ban | None:
        return self._trial.get(key)
