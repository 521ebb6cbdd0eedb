# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The self-test: the loaded program shows whether protected addresses can reach the SSH server."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from kernel.hosting import DENIED, OWN, UNLISTED, Site, ip
from kernel.timers import Timers

from packetwatch_core._base.errors import LoadFailed
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared.edits import set_lists, set_policy
from packetwatch_core._network import reach

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

MINUTE = Terms(60, "", "a test")
PEER = "192.0.2.7"
PEER6 = "2001:db8:1::7"


def mapped(text: str) -> bytes:
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return b"\0" * 10 + b"\xff\xff" + socket.inet_aton(text)


@pytest.fixture
def confirming(filtered: Site) -> Timers:
    filtered.settings(PW_PROTECT=f"{PEER} {PEER6} 203.0.113.0/28")
    Path("/proc/sys/net/ipv6/conf/pw0/disable_ipv6").write_text("0")
    ip("address add 2001:db8:1::1/64 dev pw0 nodad")
    return Timers(filtered)


def deny(timers: Timers, text: str) -> None:
    edit = set_lists("ansible", {"deny": text}, True)
    assert timers.host.apply(edit, force=True, terms=MINUTE).pending


@pytest.mark.slow
def test_who_is_protected_and_denied_fails_it(filtered: Site, confirming: Timers) -> None:
    before = filtered.host.store.read_current()
    for text, named in (
        (PEER, f"{PEER} on pw0"),
        ("192.0.2.0/28", f"{PEER} on pw0"),
        ("2001:db8:1::/64", f"{PEER6} on pw0"),
        ("203.0.113.0/24", "203.0.113.0 on pw0"),
        (OWN, f"{OWN} on pw0"),
    ):
        deny(confirming, text)
        with pytest.raises(LoadFailed, match="the host has reverted") as caught:
            confirming.host.self_test()
        assert named in str(caught.value)
        assert confirming.host.pending() is None
        assert filtered.host.store.read_current() == before


def test_other_changes_pass_it(filtered: Site, confirming: Timers) -> None:
    deny(confirming, f"{DENIED}\n203.0.113.64/26\n2001:db8:2::/48")
    confirming.host.self_test()
    confirming.host.confirm()
    deny(confirming, f"{PEER}\n203.0.113.64/26\n{PEER6}")
    allow = set_lists("local", {"allow": f"{PEER}\n{PEER6}"}, True)
    confirming.host.roll_back()
    filtered.host.apply(allow)
    deny(confirming, f"{PEER}\n203.0.113.64/26\n{PEER6}")
    confirming.host.self_test()
    assert confirming.host.pending()


def test_what_only_reports_lets_everybody_pass(filtered: Site, confirming: Timers) -> None:
    filtered.host.apply(set_lists("ansible", {"deny": PEER}, True), force=True)
    edit = set_policy("pw0", {"PW_ACTION": "monitor"}, False)
    assert confirming.host.apply(edit, terms=MINUTE).pending
    confirming.host.self_test()
    # The test packets ban nobody.
    assert filtered.host.info({"bans"})["bans"] == []


@pytest.mark.parametrize(("source", "target"), [(UNLISTED, OWN), ("2001:db8::9", "2001:db8:1::1")])
def test_the_packet_is_a_sound_one(source: str, target: str) -> None:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    raw = socket.inet_pton(family, target)
    packet = reach.syn(mapped(source), raw, 22)
    head = packet[14:34] if family == socket.AF_INET else packet[14:54]
    tcp = packet[14 + len(head) :][:24]
    assert int.from_bytes(tcp[2:4], "big") == 22
    assert tcp[12] >> 4 == 5 and tcp[13] == 2
    if family == socket.AF_INET:
        assert add_up(head) == 0xFFFF
        length = int.from_bytes(head[2:4], "big") - 20
        pseudo = head[12:20] + bytes([0, 6]) + length.to_bytes(2, "big")
    else:
        length = int.from_bytes(head[4:6], "big")
        pseudo = head[8:40] + length.to_bytes(4, "big") + bytes([0, 0, 0, 6])
    assert length == 20
    assert add_up(pseudo + tcp[:20]) == 0xFFFF


def add_up(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
