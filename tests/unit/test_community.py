# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Community IDs against their specification (corelight/community-id-spec, baseline)."""

from __future__ import annotations

import socket

import pytest

from packetwatch_agent.community import community_id

UDP, SCTP = 17, 132
BASELINE = (
    (6, "1.2.3.4", "5.6.7.8", 1122, 3344, "1:wCb3OG7yAFWelaUydu0D+125CLM="),
    (UDP, "1.2.3.4", "5.6.7.8", 1122, 3344, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg="),
    (SCTP, "1.2.3.4", "5.6.7.8", 1122, 3344, "1:EKt4MsxuyaE6mL+hmrEkQ9csDD8="),
    (6, "128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    (UDP, "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
    (SCTP, "192.168.170.8", "192.168.170.56", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
    (
        6,
        "2001:470:e5bf:dead:4957:2174:e82c:4887",
        "2607:f8b0:400c:c03::1a",
        63943,
        25,
        "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
    ),
)


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


@pytest.mark.parametrize(("protocol", "one", "other", "port", "other_port", "name"), BASELINE)
def test_both_directions_of_the_baseline(
    protocol: int, one: str, other: str, port: int, other_port: int, name: str
) -> None:
    assert community_id(packed(one), packed(other), port, other_port, protocol) == name
    assert community_id(packed(other), packed(one), other_port, port, protocol) == name


def test_ports_decide_between_equal_addresses() -> None:
    own = packed("192.0.2.1")
    assert community_id(own, own, 40000, 22) == community_id(own, own, 22, 40000)
