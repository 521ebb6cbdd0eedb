# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The keys in a fleet's store (docs/fleet-nodes.md): who writes which."""

from __future__ import annotations

import math

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

# Pages of bans: a page has the rows of one bucket of ends, and a lease that outlasts them.

OPEN_ROWS, MAX_ROWS, MAX_BYTES = 16, 128, 12_000
"""A page with `OPEN_ROWS` is not written again: each write goes to every host as a whole. Hosts refuse pages with more
rows than `MAX_ROWS`, or above 16 kB."""
GRACE = 600
"""Seconds from the end of a bucket to that of its lease."""
# Width of the buckets of rows that end within so many seconds.
_WIDTHS = ((3600.0, 600), (86400.0, 3600), (math.inf, 86400))


def bucket_of(end: float, now: float) -> int:
    """The end of the bucket of a row that counts until `end`."""
    width = next(width for limit, width in _WIDTHS if end - now < limit)
    return math.ceil(end / width) * width


def page_key(folder: str, bucket: int, number: int) -> str:
    """The key of one of a bucket's pages."""
    return f"{folder}{bucket}-{number:03}"
