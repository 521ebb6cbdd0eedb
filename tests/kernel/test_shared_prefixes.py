# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In prefixes that unrelated hosts share, one host is one source; elsewhere its /64 is."""

from __future__ import annotations

from pathlib import Path
from socket import AF_INET6

import pytest
from kernel.datapath import DROP, PASS, Datapath, listening
from kernel.packets import syn6

from packetwatch_core._base.errors import InvalidInput

SERVED = 8443
SHARED = "2001:db8:46::/96 2001:db8:47:0:1::/80 2001:db8:4800::/40"
# A scanner and another host of its /64.
STRANGERS = {
    "NAT64": ("64:ff9b::c633:6407", "64:ff9b::cb00:7109"),
    "local NAT64": ("64:ff9b:1:7::c633:6407", "64:ff9b:1:7::cb00:7109"),
    "SIIT": ("::ffff:0:198.51.100.7", "::ffff:0:203.0.113.9"),
    "Teredo": ("2001:0:c000:201:0:1234:39cc:9bf8", "2001:0:c000:201:0:4321:34ff:8ef6"),
    "6to4": ("2002:c633:6407::1", "2002:c633:6407::2"),
    "declared": ("2001:db8:46::c633:6407", "2001:db8:46::cb00:7109"),
    "declared, longer than /64": ("2001:db8:47:0:1::7", "2001:db8:47:0:1::9"),
    "declared, beside it in its /64": ("2001:db8:47:0:2::7", "2001:db8:47:0:1::9"),
    "declared, shorter than /64": ("2001:db8:48c6:3364:7::", "2001:db8:48c6:3364:9::"),
}
# The first address outside a shared prefix, or the last one before it.
NEIGHBOURS = {
    "before NAT64": ("64:ff9a:ffff:ffff::7", "64:ff9a:ffff:ffff::9"),
    "between both NAT64": ("64:ff9b:0:1::7", "64:ff9b:0:1::9"),
    "after local NAT64": ("64:ff9b:2::7", "64:ff9b:2::9"),
    "after Teredo": ("2001:1::7", "2001:1::9"),
    "after 6to4": ("2003::7", "2003::9"),
    "beside the declared": ("2001:db8:46:1::7", "2001:db8:46:1::9"),
}


@pytest.fixture(params=["0", "1"], ids=["declared only", "auto"])
def shared(closed: Datapath, request: pytest.FixtureRequest) -> Datapath:
    text = f'PW_PROTECT_AUTO={request.param}\nPW_SHARED_PREFIXES="{SHARED}"\n'
    Path(closed.paths.settings).write_text(text)
    closed.host.apply()
    return closed


def scan_then_ask(datapath: Datapath, scanner: str, other: str) -> int:
    """Scan from one address; return the verdict for the other one's SYN to a served port."""
    with listening(AF_INET6, "::", SERVED):
        assert [datapath.run(syn6(scanner, port)) for port in range(1, 6)] == [PASS] * 4 + [DROP]
        return datapath.run(syn6(other, SERVED))


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger_in_the_same_slash_64_passes(shared: Datapath, kind: str) -> None:
    scanner, other = STRANGERS[kind]
    assert scan_then_ask(shared, scanner, other) == PASS
    (ban,) = shared.bans.active()
    assert ban.source.plen == 128
    assert shared.run(syn6(scanner, SERVED)) == DROP


@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_outside_of_them_a_slash_64_is_one_source(shared: Datapath, kind: str) -> None:
    scanner, other = NEIGHBOURS[kind]
    assert scan_then_ask(shared, scanner, other) == DROP


def test_strangers_are_counted_apart(shared: Datapath) -> None:
    sources = [f"64:ff9b::cb00:71{number:02x}" for number in range(5)]
    assert [shared.run(syn6(source, port)) for port, source in enumerate(sources, 1)] == [PASS] * 5
    assert not shared.banned()


def test_by_hand_one_address_is_banned_and_the_slash_64_refused(shared: Datapath) -> None:
    ban, dummy = shared.bans.add("64:ff9b::cb00:7109", 60)
    assert ban.source.text == "64:ff9b::cb00:7109"
    with pytest.raises(InvalidInput, match=r"64:ff9b::/64 is shared by unrelated hosts.*/128"):
        shared.bans.add("64:ff9b::/64", 60)
