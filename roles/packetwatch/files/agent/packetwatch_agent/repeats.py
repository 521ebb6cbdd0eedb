# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How often a source has scanned, and how long its ban lasts therefore. All times are nanoseconds."""

from __future__ import annotations

import typing as t

from packetwatch_core._declared.kinds import nanoseconds

if t.TYPE_CHECKING:
    from packetwatch_core._declared.policy import Policy

_MAX_SOURCES = 4096
_MAX_DOUBLINGS = 40


class _Offence(t.NamedTuple):
    times: int
    expires: int


class Repeats:
    """Remembers a source until the longest ban has passed after its last one."""

    def __init__(self) -> None:
        self._offences: dict[t.Hashable, _Offence] = {}

    def count(self, source: t.Hashable, time: int, policy: Policy) -> int:
        """Return how often the source has scanned now, and forget it until `remember`."""
        former = self._offences.pop(source, None)
        if former and time < former.expires + nanoseconds(policy.longest_ban):
            return former.times + 1
        return 1

    def remember(self, source: t.Hashable, times: int, expires: int, policy: Policy) -> None:
        """Note the ban of a source, unless all bans of the policy last equally long."""
        if policy.longest_ban <= policy.ban_time:
            return
        if len(self._offences) >= _MAX_SOURCES:
            del self._offences[next(iter(self._offences))]
        self._offences[source] = _Offence(times, expires)


def length_of(times: int, policy: Policy) -> int:
    """How long a ban lasts if its source has scanned so often, and has not proved its address."""
    first, longest = nanoseconds(policy.ban_time), nanoseconds(policy.longest_ban)
    return min(first << min(times - 1, _MAX_DOUBLINGS), longest)
