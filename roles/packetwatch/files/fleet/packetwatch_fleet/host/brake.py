# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The brake: when bans that are missing in a new listing are kept to their ends instead of lifted.

A store that was wiped, or restored from an old backup, would lift what protects the fleet.
"""

from __future__ import annotations

import typing as t

# More lifts than this at once, and more than half of all bans, are not believed.
FEW = 100
HELD = "held"
"""In place of an enforcer's name, for what this host goes on to ban."""


class Place(t.NamedTuple):
    """Which state of which store. revision: 0: not known."""

    cluster: str = ""
    revision: int = 0


def why_not_lift(before: Place, after: Place, lifts: int, bans: int) -> str:
    """Why these lifts are not believed; empty: they are. bans: how many there were before."""
    if not lifts:
        return ""
    if before.cluster and before.cluster != after.cluster:
        return f"the store is another one (cluster {after.cluster} instead of {before.cluster})"
    if before.revision > after.revision:
        return f"the store went back from revision {before.revision} to {after.revision}"
    if lifts > FEW and 2 * lifts > bans:
        return f"{lifts} of {bans} bans are missing"
    return ""
