# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator does about one address takes the same time, whatever the lists hold."""

from __future__ import annotations

import math
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from struct import iter_unpack

import pytest
from kernel.controlling import PROTECTED, PYTHON, Controlled, controlled
from kernel.hosting import XDP_DROP, XDP_PASS

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._tables.ranges import DENY
from packetwatch_core._tables.reader import lookup

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs"),
    pytest.mark.slow(35),
]

MANY = 2_000_000
# Beside as many IPv6 hosts, 58 MB of tables are copied thrice, and 50 MB of lists once. Compiling these lists
# takes ten times as long as all of `deny`.
MAX_RATIOS = {"IPv4": 2.5, "IPv6": 4.2}
# `remove` searches the lists, which `deny` does not even read.
MORE_FOR_REMOVE = 1.6
ROUNDS = 2


@pytest.fixture(scope="module")
def host(bytecode_cache: Path) -> Iterator[Controlled]:
    """A host whose programs are compiled, as the role installs them."""
    with controlled(bytecode_cache) as found:
        folder = str(found.folder / "lib")
        # Into the folder itself, where the processes that are measured look for it.
        clean = {key: text for key, text in os.environ.items() if key != "PYTHONPYCACHEPREFIX"}
        subprocess.run([PYTHON, "-m", "compileall", "-q", folder], check=True, env=clean)
        found.site.settings(PW_PROTECT=PROTECTED, PW_PROTECT_AUTO="0", PW_LIST_MEMORY="512")
        yield found


def entries(family: str, count: int) -> str:
    """Hosts; every other address of the network 203.0.113.0/24 stays free, and all of 2001:db8::/32."""
    random = Random(count)
    if family == "IPv6":
        groups = iter_unpack("3H", random.randbytes(6 * count))
        return "".join(
            "2001:db9:{:x}:{:x}::{:x}\n".format(*words) for words in groups if 0 not in words
        )
    numbers = {
        (1 << 24) + word % (202 << 24) for (word,) in iter_unpack("I", random.randbytes(4 * count))
    }
    words = (
        (number >> 24, number >> 16 & 255, number >> 8 & 255, number & 255) for number in numbers
    )
    return "".join("{}.{}.{}.{}\n".format(*word) for word in words if word[:3] != (192, 0, 2))


def seconds(host: Controlled, *command: str) -> float:
    """Return the processor time of a command, which other load hardly changes."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = host.ctl(*command)
    assert done.status == 0, done
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


# Prefixes to deny, and an address in each: an address beside one that is listed, networks, IPv6.
PREFIXES = {
    "203.0.113.200": "203.0.113.200",
    "203.0.113.201": "203.0.113.201",
    "203.0.112.16/28": "203.0.112.20",
    "203.16.0.0/12": "203.17.1.1",
    "2001:db8::7": "2001:db8::7",
    "2001:db8:1::/64": "2001:db8:1::9",
    "2001:db8:2::/48": "2001:db8:2:1::9",
}


def verdict(host: Controlled, address: str) -> int:
    """Return what happens to a packet; of IPv6, what the tables in the kernel say of its source."""
    prefix = parse_prefix(address)
    if prefix.family == 4:
        return host.site.verdict(address)
    with Loaded(host.pins) as loaded, loaded.generation() as current:
        found = lookup(current.areas().tables(), prefix.family, prefix.value)
    return XDP_DROP if found == DENY else XDP_PASS


def measure(host: Controlled, family: str, count: int) -> dict[str, float]:
    """Return the least time of each command beside so many entries of a family."""
    host.site.lists(deny=entries(family, count))
    expiring = "192.0.2.200 expires=2040-01-01T00:00:00Z\n"
    host.site.lists(name="local", allow=expiring, deny="203.0.113.202\n")
    found: dict[str, float] = {}

    def note(*command: str) -> None:
        name = " ".join(command)
        found[name] = min(seconds(host, *command), found.get(name, math.inf))

    # IPv6 addresses can be written in many ways, so their removal from a long list compiles all lists.
    compiled = [name for name in PREFIXES if ":" in name and family == "IPv6" and count == MANY]
    for number in range(ROUNDS):
        for command in ("why", "ban"):
            note(command, "203.0.113.100")
        for prefix, address in PREFIXES.items():
            note("deny", prefix)
            assert verdict(host, address) == XDP_DROP
        for prefix in PREFIXES.keys() - compiled:
            note("remove", prefix)
            assert verdict(host, PREFIXES[prefix]) == XDP_PASS
        if compiled and number < ROUNDS - 1:
            assert host.ctl("remove", *compiled).status == 0
    assert host.site.host.verify() == []
    return found


def test_one_prefix_takes_the_same_time_beside_two_million(host: Controlled) -> None:
    with host.site.wire.host.entered():
        few = measure(host, "IPv4", 10)
        for family, limit in MAX_RATIOS.items():
            many = measure(host, family, MANY)
            ratios = {command: spent / few[command] for command, spent in many.items()}
            for command, ratio in ratios.items():
                more = MORE_FOR_REMOVE if command.startswith("remove") else 1
                assert ratio <= limit * more, (family, command, ratios, few, many)
