# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The keys in a fleet's store (docs/fleet-nodes.md): who writes which."""

from __future__ import annotations

KEYS = "/packetwatch/v1/"
"""What all keys begin with."""
BANS, LIFTS, LISTS, RULES, HOSTS = (
    f"{KEYS}{name}/" for name in ("bans", "lifts", "lists", "rules", "hosts")
)
EVENTS = f"{KEYS}events/api"
"""The last changes through the API. Hosts do not read them."""
FOLLOWED = (BANS, LIFTS, LISTS, RULES)
"""What a host reads. Reports of other hosts are for those who decide."""
REPORTS = ("seen", "bans", "status")
"""The names of a host's own three keys, below `HOSTS` and the host's name."""
