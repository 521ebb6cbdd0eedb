# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change decides on one snapshot: it reads network and links once each, whatever it is about."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from kernel.hosting import DENIED, Site, Wire

from packetwatch_core._base.steps import Steps
from packetwatch_core._declared.edits import set_lists, set_policy
from packetwatch_core._kernel import netlink

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

FEED = "feed-blocklist"


@pytest.fixture
def reads(wire: Wire, filtered: Site, monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each kind of object was read from the kernel, by the number of its request."""
    wire.add("pw1")
    filtered.lists(deny=DENIED)
    counted: Counter[int] = Counter()
    dump = netlink._dump_in_steps

    def counting(kind: netlink.Kind, *arguments: Any) -> Steps[list[Any]]:
        counted[kind.request] += 1
        return (yield from dump(kind, *arguments))

    monkeypatch.setattr(netlink, "_dump_in_steps", counting)
    return counted


CHANGES: dict[str, Callable[[Site], object]] = {
    "lists": lambda site: site.lists(deny="203.0.113.0/24"),
    "lists, forced": lambda site: site.host.apply(
        set_lists("ansible", {"deny": "192.0.2.0/24"}, True), force=True
    ),
    "a feed": lambda site: site.host.apply(set_lists(FEED, {"deny": "45.1.2.0/24"}, True)),
    "a policy": lambda site: site.host.apply(
        set_policy("pw0", {"PW_SCAN_PORTS": "7"}, replace=True)
    ),
    "a plan": lambda site: site.host.plan(set_lists("ansible", {"deny": "203.0.113.0/24"}, True)),
    "an interface": lambda site: site.host.attach("pw1"),
    "an interface, checked": lambda site: site.host.attach("pw1", check=True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_reads_the_network_once(filtered: Site, reads: Counter[int], name: str) -> None:
    CHANGES[name](filtered)
    assert reads and max(reads.values()) == 1
