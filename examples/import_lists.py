# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turn the lists of another tool into a variable of the inventory.

ssh web1 ipset save | python3 import_lists.py ipset >inventory/group_vars/packetwatch/imported.yml

The other tool's output comes in, and YAML goes out. Standard error names what was left out, and why.
It needs Python 3.11 or newer, and nothing else.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# A duration as CrowdSec writes it, such as 3h59m58.417s.
PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|µs|ns)")
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
# A line of `fail2ban-client get JAIL banip --with-time`, in the time of the host. -1 means for ever.
BANNED = re.compile(r"(\S+)\s+\S+ \S+ \+ (-?\d+) = (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)")


class Entry(NamedTuple):
    """An entry of the other tool: an address, a prefix or a range, its origin, and its end in Unix seconds."""

    text: str
    comment: str
    end: float | None = None


def read_ipset(text: str, now: float) -> Iterator[Entry]:
    """Read the output of `ipset save`."""
    for line in text.splitlines():
        words = shlex.split(line)
        if not words or words[0] == "create":
            continue
        if words[0] != "add" or len(words) < 3:
            raise ValueError(f"{line!r} is not a line of ipset save")
        _add, name, value, *options = words
        if "nomatch" in options:
            skip(value, f"an exception in the set {name}; put it on the list of the other kind")
            continue
        found = dict(pairwise(options))
        left = float(found.get("timeout", 0))
        yield Entry(value, describe(name, found.get("comment")), now + left if left else None)


def read_nft(text: str, now: float) -> Iterator[Entry]:
    """Read the output of `nft -j list ruleset`, or of `nft -j list set`."""
    for item in json.loads(text)["nftables"]:
        found = item.get("set")
        if found and found["type"] in ("ipv4_addr", "ipv6_addr"):
            for element in found.get("elem", []):
                inner = element.get("elem") if isinstance(element, dict) else None
                inner = inner or {"val": element}
                left = inner.get("expires")
                comment = describe(found["name"], inner.get("comment"))
                yield Entry(nft_text(inner["val"]), comment, now + left if left else None)


def nft_text(value: Any) -> str:
    """Write an element of a set as an address, a prefix or a range."""
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if isinstance(value, dict) and "range" in value:
        return "-".join(value["range"])
    return str(value)


def read_fail2ban(text: str, now: float) -> Iterator[Entry]:
    """Read `fail2ban-client get JAIL banip --with-time`, or `get JAIL ignoreip`."""
    for line in text.splitlines():
        banned = BANNED.fullmatch(line.strip())
        if banned:
            for_ever = int(banned[2]) < 0
            end = datetime.strptime(banned[3], "%Y-%m-%d %H:%M:%S").timestamp()
            yield Entry(banned[1], "fail2ban", None if for_ever else end)
        elif line.startswith(("|- ", "`- ")):
            yield Entry(line[3:].strip(), "fail2ban: ignoreip")
        elif line.strip() and not line.endswith(":"):
            raise ValueError(f"{line!r} is not a line of fail2ban-client")


def read_crowdsec(text: str, now: float) -> Iterator[Entry]:
    """Read the output of `cscli decisions list -o json`."""
    for alert in json.loads(text) or []:
        for decision in alert["decisions"]:
            value = decision["value"]
            if decision["type"] != "ban" or decision["scope"] not in ("Ip", "Range"):
                skip(
                    value, f"a {decision['type']} of a {decision['scope']}, not a ban of addresses"
                )
                continue
            left = sum(
                float(number) * SECONDS[unit] for number, unit in PART.findall(decision["duration"])
            )
            past = decision["duration"].startswith("-")
            end = now - left if past else now + left
            yield Entry(value, describe("crowdsec", decision["scenario"]), end)


READERS = {
    "ipset": read_ipset,
    "nft": read_nft,
    "fail2ban": read_fail2ban,
    "crowdsec": read_crowdsec,
}


def describe(origin: str, comment: str | None) -> str:
    """Join the name of a set and an entry's comment."""
    return f"{origin}: {comment}" if comment else origin


def skip(text: str, why: str) -> None:
    """Say on standard error what is left out."""
    print(f"left out: {text}: {why}", file=sys.stderr)


def networks(text: str) -> Iterable[Network]:
    """The prefixes of an address, a prefix or a range. Raises ValueError if it is none of them."""
    first, dash, last = text.partition("-")
    if dash:
        return ipaddress.summarize_address_range(
            ipaddress.ip_address(first), ipaddress.ip_address(last)
        )
    return [ipaddress.ip_network(text, strict=False)]


def items(entries: Iterable[Entry], now: float) -> Iterator[str]:
    """The YAML of each entry that Packetwatch can have. Strings of JSON are strings of YAML."""
    for entry in entries:
        if entry.end is not None and entry.end <= now:
            skip(entry.text, "expired")
            continue
        try:
            found = networks(entry.text)
        except ValueError:
            skip(entry.text, "not an address, a prefix or a range of addresses")
            continue
        for network in found:
            if network.is_loopback or network.is_multicast:
                skip(str(network), "no packet from a network has such a source")
                continue
            yield f"  - address: {json.dumps(str(network))}"
            yield f"    comment: {json.dumps(entry.comment)}"
            if entry.end is not None:
                end = datetime.fromtimestamp(entry.end, UTC) + timedelta(seconds=0.5)
                yield f'    expires: "{end:%Y-%m-%dT%H:%M:%SZ}"'


def main() -> int:
    """Convert standard input; return the exit status."""
    parser = argparse.ArgumentParser(description="Turn another tool's lists into a variable.")
    parser.add_argument("format", choices=READERS)
    parser.add_argument("--allow", action="store_true", help="the sources are allowed, not denied")
    parser.add_argument("--name", default="imported", help="packetwatch_deny__NAME (%(default)s)")
    options = parser.parse_args()
    if not re.fullmatch(r"[a-z0-9_]+", options.name):
        parser.error(f"--name {options.name!r}: use the characters a-z, 0-9 and _")

    text = sys.stdin.read()
    if not text.strip():
        print("standard input is empty: did the other tool print anything?", file=sys.stderr)
        return 1
    now = datetime.now(UTC).timestamp()
    try:
        lines = list(items(READERS[options.format](text, now), now))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"standard input is not what {options.format} prints: {error!r}", file=sys.stderr)
        return 1
    print(f"---\npacketwatch_{'allow' if options.allow else 'deny'}__{options.name}:", end="")
    print("", *lines, sep="\n") if lines else print(" []")
    return 0


if __name__ == "__main__":
    sys.exit(main())
