# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Presets: how publishers of well-known feeds publish them.

A preset only fills in options of a feed that names it. Nothing is fetched because a preset exists.
"""

from __future__ import annotations

import typing as t

from .._base.duration import parse_duration
from .._base.errors import InvalidInput

Options = t.Mapping[str, t.Any]

_HOUR = 3600.0
_DAY = 24 * _HOUR
_MAX_TIME = 365 * _DAY
_TIMES = frozenset({"timeout", "interval", "max_age", "expire_after"})

DEFAULTS: t.Final[dict[str, t.Any]] = {
    "format": "plain",
    "column": "1",
    "delimiter": ",",
    "header": "auto",
    "interval": 0.0,
    "max_change": 50.0,
}
"""What holds if neither the feed nor its preset sets an option."""

_SPAMHAUS = {"format": "json", "column": "cidr", "interval": _HOUR, "max_age": 7 * _DAY}

PRESETS: t.Final[dict[str, dict[str, t.Any]]] = {
    "aws": {
        "url": "https://ip-ranges.amazonaws.com/ip-ranges.json",
        "format": "json",
        "column": "prefixes[].ip_prefix, ipv6_prefixes[].ipv6_prefix",
        "interval": _HOUR,
    },
    # The address changes every week, so the feed must have its own url or path.
    "azure": {"format": "json", "column": "values[].properties.addressPrefixes[]"},
    "blocklist-de": {"url": "https://lists.blocklist.de/lists/all.txt", "interval": _HOUR / 2},
    "cins-army": {"url": "https://cinsscore.com/list/ci-badguys.txt", "interval": _HOUR},
    "cloudflare-ipv4": {"url": "https://www.cloudflare.com/ips-v4", "interval": _HOUR},
    "cloudflare-ipv6": {"url": "https://www.cloudflare.com/ips-v6", "interval": _HOUR},
    "dshield": {
        "url": "https://feeds.dshield.org/block.txt",
        "format": "ranges",
        "interval": _HOUR,
        # The twenty most active networks, most of which change from day to day.
        "max_change": 100.0,
    },
    "et-compromised": {
        "url": "https://rules.emergingthreats.net/blockrules/compromised-ips.txt",
        "interval": _HOUR,
    },
    "fastly": {
        "url": "https://api.fastly.com/public-ip-list",
        "format": "json",
        "column": "addresses[], ipv6_addresses[]",
        "interval": _HOUR,
    },
    "feodo-tracker": {
        "url": "https://feodotracker.abuse.ch/downloads/ipblocklist.csv",
        "format": "csv",
        "column": "dst_ip",
        "interval": _HOUR / 2,
    },
    "firehol-level1": {
        "url": "https://iplists.firehol.org/files/firehol_level1.netset",
        "format": "ipset",
        "interval": _HOUR,
        "max_age": 7 * _DAY,
    },
    "github-hooks": {
        "url": "https://api.github.com/meta",
        "format": "json",
        "column": "hooks[]",
        "interval": _HOUR,
    },
    "google-cloud": {
        "url": "https://www.gstatic.com/ipranges/cloud.json",
        "format": "json",
        "column": "prefixes[].ipv4Prefix, prefixes[].ipv6Prefix",
        "interval": _HOUR,
    },
    "oracle-cloud": {
        "url": "https://docs.oracle.com/en-us/iaas/tools/public_ip_ranges.json",
        "format": "json",
        "column": "regions[].cidrs[].cidr",
        "interval": _HOUR,
    },
    "spamhaus-drop": {"url": "https://www.spamhaus.org/drop/drop_v4.json", **_SPAMHAUS},
    "spamhaus-drop-ipv6": {"url": "https://www.spamhaus.org/drop/drop_v6.json", **_SPAMHAUS},
    "tor-exits": {"url": "https://check.torproject.org/torbulkexitlist", "interval": _HOUR},
}


def fill_in(feed: Options) -> dict[str, t.Any]:
    """Return the options of a feed with those of its preset and the defaults; None counts as not set.

    Times are numbers of seconds. A feed with a `path` does not get the preset's address. Raises InvalidInput
    if there is no such preset, or if a time is wrong.
    """
    name = feed.get("preset")
    if name is not None and (not isinstance(name, str) or name not in PRESETS):
        raise InvalidInput(f"preset is {name!r}: write one of {', '.join(PRESETS)}")
    own = {option: value for option, value in feed.items() if value is not None}
    preset = dict(PRESETS[name]) if name is not None else {}
    if "path" in own:
        preset.pop("url", None)
    for option in own.keys() & _TIMES:
        own[option] = parse_duration(own[option], option, 0, _MAX_TIME)
    return {**feed, **DEFAULTS, **preset, **own}
