# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program's verdict for each kind of packet, and the one cell in which the packet counts."""

from __future__ import annotations

import random
from collections import Counter
from socket import AF_INET, AF_INET6, inet_pton

import pytest
from kernel.datapath import DROP, PASS, Datapath, difference
from kernel.packets import (
    ACK,
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    HOST4,
    HOST6,
    ICMP6,
    IPV4,
    IPV6,
    MORE_FRAGMENTS,
    NO_NEXT_HEADER,
    ROUTING,
    RST,
    SYN,
    TCP,
    UDP,
    VLAN,
    VLAN_S,
    authentication,
    chain,
    ethernet,
    fragment6,
    ipv4,
    ipv6,
    options,
    syn4,
    syn6,
    tcp,
    udp4,
    udp6,
)

from packetwatch_core._kernel import abi

SOURCE4, SOURCE6 = "198.51.100.7", "2001:db8:7::7"
EXT_MAX = 8
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION)

PASSES4, PASSES6 = "pass unlisted ipv4", "pass unlisted ipv6"
SCAN4, SCAN6 = "drop scan ipv4", "drop scan ipv6"
BAN4, BAN6 = "drop ban ipv4", "drop ban ipv6"
OPAQUE4, OPAQUE6 = "pass opaque ipv4", "pass opaque ipv6"
SHORT4, SHORT6 = "pass malformed ipv4", "pass malformed ipv6"


def first_fragment(port: int) -> bytes:
    """Return the first fragment of a SYN, as `nmap -f` sends it: 8 bytes of TCP, padded for Ethernet."""
    head = tcp(40000, port)[:8]
    return ethernet(IPV4, ipv4(SOURCE4, HOST4, head, fragment=MORE_FRAGMENTS))


def later_fragment(offset: int, protocol: int = TCP) -> bytes:
    return ethernet(IPV4, ipv4(SOURCE4, HOST4, bytes(8), protocol, fragment=offset))


def behind(kinds: list[int], port: int = 80) -> bytes:
    return syn6(SOURCE6, port, kinds=kinds)


# Ethernet and VLAN


@pytest.mark.slow
@pytest.mark.parametrize("size", [14, 17])
def test_a_cut_short_ethernet_or_vlan_header_passes(datapath: Datapath, size: int) -> None:
    frame = syn4(SOURCE4, 1, tags=[VLAN])[:size]
    assert datapath.fate(frame) == "pass malformed other"


@pytest.mark.parametrize("kind", [0x0806, 0x88CC, 0x86DC, 46, 0])
def test_what_is_not_ip_passes(datapath: Datapath, kind: int) -> None:
    datapath.lists(deny=["0.0.0.0/0", "::/0"])
    assert datapath.fate(ethernet(kind, bytes(46))) == "pass not_ip other"


@pytest.mark.parametrize("tags", [[], [VLAN], [VLAN_S], [VLAN, VLAN], [VLAN_S, VLAN]])
def test_lists_and_detection_apply_after_up_to_two_tags(
    datapath: Datapath, tags: list[int]
) -> None:
    datapath.lists(allow=["203.0.113.0/25"], deny=["203.0.113.0/24", "2001:db8:dead::/48"])
    assert datapath.fate(syn4("203.0.113.200", 80, tags=tags)) == "drop deny ipv4"
    assert datapath.fate(syn4("203.0.113.100", 80, tags=tags)) == "pass allow ipv4"
    assert datapath.fate(syn6("2001:db8:dead::1", 80, tags=tags)) == "drop deny ipv6"
    frames = [syn4(SOURCE4, port, tags=tags) for port in (1, 2, 3, 4)]
    assert datapath.fates(*frames) == [PASSES4, PASSES4, SCAN4, BAN4]


@pytest.mark.parametrize("tags", [[VLAN] * 3, [VLAN_S, VLAN, VLAN], [VLAN] * 8])
def test_more_tags_are_dropped_and_counted_without_a_ban(
    datapath: Datapath, tags: list[int]
) -> None:
    datapath.lists(allow=[SOURCE4])
    frames = [syn4(SOURCE4, port, tags=tags) for port in range(1, 20)]
    assert set(datapath.fates(*frames)) == {"drop vlan other"}
    assert not datapath.banned()
    assert not datapath.hits()


@pytest.mark.parametrize(
    ("action", "fate"), [("monitor", "pass monitor_deny other"), ("off", "pass off other")]
)
def test_more_tags_pass_where_nothing_is_enforced(
    datapath: Datapath, action: str, fate: str
) -> None:
    datapath.policy(action=action)
    assert datapath.fates(*[syn4(SOURCE4, 1, tags=[VLAN] * 3)] * 2) == [fate] * 2
    logged = [(event["type"], event["count"], event["ifindex"]) for event in datapath.events()]
    would_drop = (abi.EVENT_WOULD_DROP, abi.WOULD_VLAN, datapath.ifindex)
    assert logged == [would_drop] * (action == "monitor")


# IPv4


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(SOURCE4, HOST4, tcp(1, 2), version=6),
        ipv4(SOURCE4, HOST4, tcp(1, 2), words=4),
        ipv4(SOURCE4, HOST4, tcp(1, 2), words=0),
    ],
    ids=["version 6", "ihl 4", "ihl 0"],
)
def test_a_malformed_ipv4_header_passes(datapath: Datapath, packet: bytes) -> None:
    datapath.lists(deny=["0.0.0.0/0"])
    assert datapath.fate(ethernet(IPV4, packet)) == SHORT4


def test_a_cut_short_ip_header_passes(datapath: Datapath) -> None:
    datapath.lists(deny=["0.0.0.0/0", "::/0"])
    assert datapath.fate(syn4(SOURCE4, 1)[:33]) == SHORT4
    assert datapath.fate(syn6(SOURCE6, 1)[:53]) == SHORT6


@pytest.mark.parametrize("words", range(11))
def test_ipv4_options_do_not_hide_a_syn(datapath: Datapath, words: int) -> None:
    frames = [
        ethernet(IPV4, ipv4(SOURCE4, HOST4, tcp(40000, port), options=b"\x01" * 4 * words))
        for port in (1, 2, 3)
    ]
    assert datapath.fates(*frames) == [PASSES4, PASSES4, SCAN4]


def test_ihl_beyond_the_packet_is_cut_short(datapath: Datapath) -> None:
    assert datapath.fate(ethernet(IPV4, ipv4(SOURCE4, HOST4, tcp(1, 2), words=15))) == SHORT4


def test_total_length_below_the_header_is_cut_short(datapath: Datapath) -> None:
    assert datapath.fate(ethernet(IPV4, ipv4(SOURCE4, HOST4, tcp(1, 2), total=19))) == SHORT4


@pytest.mark.parametrize("size", range(14))
def test_a_whole_packet_with_a_cut_short_tcp_header_is_no_evidence(
    datapath: Datapath, size: int
) -> None:
    frames = [
        ethernet(IPV4, ipv4(SOURCE4, HOST4, tcp(40000, port)[:size])) for port in range(1, 10)
    ]
    frames6 = [
        ethernet(IPV6, ipv6(SOURCE6, HOST6, tcp(40000, port)[:size])) for port in range(1, 10)
    ]
    assert set(datapath.fates(*frames)) == {SHORT4}
    assert set(datapath.fates(*frames6)) == {SHORT6}
    assert not datapath.hits()


def test_a_frame_cut_within_tcp_is_no_evidence(datapath: Datapath) -> None:
    frame = ethernet(IPV4, ipv4(SOURCE4, HOST4, tcp(40000, 1) + bytes(40)))
    assert {datapath.fate(frame[:size]) for size in range(34, 48)} == {SHORT4}
    assert datapath.fate(frame[:48]) == PASSES4
    frame = ethernet(IPV6, ipv6(SOURCE6, HOST6, tcp(40000, 1) + bytes(40)))
    assert {datapath.fate(frame[:size]) for size in range(54, 68)} == {SHORT6}
    assert datapath.fate(frame[:68]) == PASSES6


def test_other_protocols_are_no_evidence(datapath: Datapath) -> None:
    assert datapath.fate(udp4(SOURCE4)) == PASSES4
    assert datapath.fate(udp6(SOURCE6)) == PASSES6
    assert datapath.fate(ethernet(IPV4, ipv4(SOURCE4, HOST4, bytes(20), 1))) == PASSES4
    assert not datapath.hits()


# IPv4 fragments


def test_a_first_fragment_without_flags_counts_as_a_syn_to_its_port(datapath: Datapath) -> None:
    frames = [first_fragment(port) for port in (1, 2, 2, 1, 3, 4)]
    assert datapath.fates(*frames) == [OPAQUE4, OPAQUE4, OPAQUE4, OPAQUE4, SCAN4, BAN4]
    assert datapath.banned() == {SOURCE4}


def test_a_first_fragment_with_flags_is_judged_by_them(datapath: Datapath) -> None:
    def fragment(port: int, flags: int) -> bytes:
        head = tcp(40000, port, flags)[:16]
        return ethernet(IPV4, ipv4(SOURCE4, HOST4, head, fragment=MORE_FRAGMENTS))

    assert datapath.fates(*(fragment(port, ACK) for port in range(1, 10))) == [PASSES4] * 9
    assert datapath.fates(*(fragment(port, SYN) for port in (1, 2, 3))) == [
        PASSES4,
        PASSES4,
        SCAN4,
    ]


def test_fragments_at_offset_one_count_each_as_one_more_port(datapath: Datapath) -> None:
    assert datapath.fates(*[later_fragment(1)] * 4) == [OPAQUE4, OPAQUE4, SCAN4, BAN4]


def test_fragments_at_offset_one_of_other_protocols_pass(datapath: Datapath) -> None:
    assert datapath.fates(*[later_fragment(1, UDP)] * 4) == [PASSES4] * 4


@pytest.mark.parametrize("offset", [2, 3, 100, 0x1FFF])
def test_later_fragments_pass(datapath: Datapath, offset: int) -> None:
    assert datapath.fates(*[later_fragment(offset)] * 9) == [PASSES4] * 9
    assert datapath.fates(*[later_fragment(offset | MORE_FRAGMENTS)] * 9) == [PASSES4] * 9


def test_fragments_of_a_denied_source_are_dropped(datapath: Datapath) -> None:
    datapath.lists(deny=[SOURCE4])
    frames = (first_fragment(80), later_fragment(1), later_fragment(2))
    assert datapath.fates(*frames) == ["drop deny ipv4"] * 3


# IPv6 extension headers

CHAINS = [
    [HOP_BY_HOP],
    [DESTINATION],
    [ROUTING],
    [AUTHENTICATION],
    [FRAGMENT],
    [HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION],
    [DESTINATION] * EXT_MAX,
    [AUTHENTICATION] * EXT_MAX,
]


@pytest.mark.parametrize("kinds", CHAINS)
def test_a_syn_after_extension_headers_is_seen(datapath: Datapath, kinds: list[int]) -> None:
    frames = [behind(kinds, port) for port in (1, 1, 2, 3, 4)]
    assert datapath.fates(*frames) == [PASSES6, PASSES6, PASSES6, SCAN6, BAN6]


@pytest.mark.parametrize("size", [8, 264, 1024, 2048])
def test_long_extension_headers_are_skipped_whole(datapath: Datapath, size: int) -> None:
    def frame(port: int) -> bytes:
        payload = options(TCP, size) + tcp(40000, port)
        return ethernet(IPV6, ipv6(SOURCE6, HOST6, payload, DESTINATION))

    assert datapath.fates(*map(frame, (1, 1, 2, 3))) == [PASSES6, PASSES6, PASSES6, SCAN6]


@pytest.mark.parametrize("size", [12, 24, 1028])
def test_authentication_headers_count_their_length_in_words(datapath: Datapath, size: int) -> None:
    def frame(port: int) -> bytes:
        payload = authentication(TCP, size) + tcp(40000, port)
        return ethernet(IPV6, ipv6(SOURCE6, HOST6, payload, AUTHENTICATION))

    assert datapath.fates(*map(frame, (1, 1, 2, 3))) == [PASSES6, PASSES6, PASSES6, SCAN6]


@pytest.mark.parametrize("count", [EXT_MAX + 1, 12, 40])
def test_more_extension_headers_count_each_packet_as_one_more_port(
    datapath: Datapath, count: int
) -> None:
    frame = behind([DESTINATION] * count)
    assert datapath.fates(*[frame] * 4) == [OPAQUE6, OPAQUE6, SCAN6, BAN6]


def test_lists_apply_however_many_extension_headers(datapath: Datapath) -> None:
    frame = behind([DESTINATION] * 12)
    datapath.lists(deny=["2001:db8:7::/48"])
    assert datapath.fate(frame) == "drop deny ipv6"
    datapath.lists(allow=[SOURCE6])
    assert datapath.fates(*[frame] * 5) == ["pass allow ipv6"] * 5


def test_a_banned_source_cannot_hide_behind_extension_headers(datapath: Datapath) -> None:
    datapath.bans.add(SOURCE6, 600)
    assert datapath.fate(behind([DESTINATION] * 12)) == BAN6
    assert datapath.fate(udp6(SOURCE6)) == PASSES6


def test_other_upper_layers_after_extension_headers_are_no_evidence(datapath: Datapath) -> None:
    for last in (UDP, ICMP6, NO_NEXT_HEADER, 50, 253):
        for count in (1, EXT_MAX):
            payload = chain([DESTINATION] * count, last) + b"\x80" + bytes(31)
            frame = ethernet(IPV6, ipv6(SOURCE6, HOST6, payload, DESTINATION))
            assert datapath.fate(frame) == PASSES6
    assert not datapath.hits()


def test_extension_headers_that_end_with_the_packet_are_cut_short(datapath: Datapath) -> None:
    whole = chain([DESTINATION] * 3, TCP)
    for size in range(1, 24):
        frame = ethernet(IPV6, ipv6(SOURCE6, HOST6, whole[:size], DESTINATION))
        assert datapath.fate(frame) == SHORT6, size
    assert not datapath.hits()


def test_a_syn_in_a_later_buffer_is_seen(datapath: Datapath) -> None:
    """Eight headers of 2 KiB: the packet comes in several buffers."""
    payload = b"".join(options(DESTINATION, 2048) for dummy in range(7)) + options(TCP, 2048)

    def frame(port: int) -> bytes:
        return ethernet(IPV6, ipv6(SOURCE6, HOST6, payload + tcp(40000, port), DESTINATION))

    assert datapath.fates(*map(frame, (1, 1, 2, 3, 4))) == [PASSES6, PASSES6, PASSES6, SCAN6, BAN6]


def test_a_payload_length_of_zero_hides_nothing(datapath: Datapath) -> None:
    def frame(port: int) -> bytes:
        payload = options(TCP) + tcp(40000, port)
        return ethernet(IPV6, ipv6(SOURCE6, HOST6, payload, HOP_BY_HOP, length=0))

    assert datapath.fates(*map(frame, (1, 2, 3))) == [PASSES6, PASSES6, SCAN6]


# IPv6 fragments


def fragment_of(payload: bytes, following: int, offset: int = 0, more: bool = True) -> bytes:
    whole = fragment6(following, offset, more) + payload
    return ethernet(IPV6, ipv6(SOURCE6, HOST6, whole, FRAGMENT))


def test_an_ipv6_first_fragment_without_flags_counts_as_a_syn_to_its_port(
    datapath: Datapath,
) -> None:
    frames = [fragment_of(tcp(40000, port)[:8], TCP) for port in (1, 2, 2, 3, 4)]
    assert datapath.fates(*frames) == [OPAQUE6, OPAQUE6, OPAQUE6, SCAN6, BAN6]


def test_an_ipv6_first_fragment_without_tcp_counts_as_one_more_port(datapath: Datapath) -> None:
    frame = fragment_of(options(TCP), DESTINATION)
    assert datapath.fates(*[frame] * 3) == [OPAQUE6, OPAQUE6, SCAN6]


def test_ipv6_fragments_where_flags_may_be_count(datapath: Datapath) -> None:
    frames = [fragment_of(bytes(8), TCP, 1, more=more) for more in (True, False, True)]
    assert datapath.fates(*frames) == [OPAQUE6, OPAQUE6, SCAN6]


def test_later_ipv6_fragments_pass(datapath: Datapath) -> None:
    frames = (
        fragment_of(bytes(8), TCP, 2),
        fragment_of(bytes(8), TCP, 0x1FFF, more=False),
        fragment_of(bytes(8), UDP, 1),
        fragment_of(bytes(8), DESTINATION, 1),
        fragment_of(bytes(8), DESTINATION, 5, more=False),
    )
    assert datapath.fates(*frames) == [PASSES6] * 5
    assert not datapath.hits()


@pytest.mark.parametrize("following", [TCP, *EXTENSIONS, NO_NEXT_HEADER])
def test_the_fragments_of_a_long_datagram_are_no_evidence(
    datapath: Datapath, following: int
) -> None:
    """In later fragments the next header says nothing (RFC 8200, section 4.5)."""
    datagram = options(UDP) + bytes(8000)
    frames = [fragment_of(datagram[:1440], DESTINATION)]
    for start in range(1440, len(datagram), 1440):
        part, more = datagram[start : start + 1440], start + 1440 < len(datagram)
        frames.append(fragment_of(part, following, start // 8, more))
    assert datapath.fates(*frames) == [PASSES6] * 6
    assert not datapath.hits()


def test_an_atomic_fragment_is_a_whole_packet(datapath: Datapath) -> None:
    assert datapath.fate(fragment_of(tcp(40000, 1)[:8], TCP, more=False)) == SHORT6
    assert datapath.fate(fragment_of(tcp(40000, 1), TCP, more=False)) == PASSES6


# Neighbour discovery


def discovery(source: str, kind: int) -> bytes:
    payload = bytes((kind,)) + bytes(31)
    return ethernet(IPV6, ipv6(source, "ff02::1", payload, ICMP6, hop_limit=255))


def test_discovery_from_link_local_is_never_dropped_by_a_ban(datapath: Datapath) -> None:
    datapath.policy(ban_scope="all")
    for source in ("fe80::7", "febf::7", SOURCE6):
        datapath.bans.add(f"{source}/128", 600)
    for source in ("fe80::7", "febf::7"):
        fates = {kind: datapath.fate(discovery(source, kind)) for kind in range(130, 141)}
        passed = [kind for kind, fate in fates.items() if fate == PASSES6]
        assert passed == [133, 134, 135, 136, 137]
        assert datapath.fate(udp6(source)) == BAN6
    assert datapath.fate(discovery(SOURCE6, 134)) == BAN6


def test_discovery_from_a_denied_source_is_dropped(datapath: Datapath) -> None:
    datapath.policy(link_control="lists")
    datapath.lists(deny=["fe80::/10"])
    assert datapath.fate(discovery("fe80::7", 135)) == "drop deny ipv6"


# Everything


def corpus() -> list[bytes]:
    """One packet of each kind above, from a denied, an allowed and an unlisted source."""
    frames = []
    for source in (SOURCE4, "203.0.113.1", "203.0.113.200"):
        for tags in ([], [VLAN], [VLAN_S, VLAN], [VLAN] * 3):
            frames.append(syn4(source, 80, tags=tags))
        frames += [
            syn4(source, 81, flags=SYN | ACK),
            syn4(source, 82, flags=RST),
            udp4(source),
            ethernet(IPV4, ipv4(source, HOST4, tcp(1, 2), options=b"\x01" * 8)),
            ethernet(IPV4, ipv4(source, HOST4, tcp(1, 2)[:8], fragment=MORE_FRAGMENTS)),
            ethernet(IPV4, ipv4(source, HOST4, bytes(8), fragment=1)),
        ]
    for source in (SOURCE6, "2001:db8:dead::1", "fe80::1"):
        frames += [syn6(source, 80, kinds=kinds) for kinds in CHAINS]
        frames += [syn6(source, 80), udp6(source), syn6(source, 80, kinds=[DESTINATION] * 12)]
        frames.append(ethernet(IPV6, ipv6(source, "ff02::1", b"\x87" + bytes(31), ICMP6)))
        for first in (fragment6(TCP), fragment6(TCP, 1), fragment6(DESTINATION, 3)):
            frames.append(ethernet(IPV6, ipv6(source, HOST6, first + bytes(8), FRAGMENT)))
    return [*frames, ethernet(0x0806, bytes(46))]


def mutated(frame: bytes, choice: random.Random) -> bytes:
    """Return the frame with a few changes, most of them in its headers."""
    data = bytearray(frame)
    for _dummy in range(choice.randrange(4)):
        data[choice.randrange(12, len(data))] = choice.choice(
            (0, 1, 4, 6, 43, 44, 51, 60, 0x81, 0xFF, choice.randrange(256))
        )
    if choice.random() < 0.2:
        del data[choice.randrange(14, len(data) + 1) :]
    if choice.random() < 0.1:
        data += choice.randbytes(choice.randrange(80))
    return bytes(data)


@pytest.mark.parametrize("scope", ["connections", "all"])
def test_any_bytes_count_in_one_cell_with_its_verdict(datapath: Datapath, scope: str) -> None:
    count = 60_000
    choice = random.Random(scope)
    datapath.policy(ban_scope=scope, ban_time=1)
    datapath.lists(
        allow=["203.0.113.0/25"], deny=["203.0.113.0/24", "2001:db8:dead::/48", "0.0.0.0/9"]
    )
    frames = corpus()
    before, run = datapath.cells(), datapath.run
    verdicts: Counter[int] = Counter()
    for _dummy in range(count):
        if choice.random() < 0.05:
            frame = choice.randbytes(choice.randrange(14, 120))
        else:
            frame = mutated(choice.choice(frames), choice)
        verdicts[run(frame)] += 1
    grown = difference(datapath.cells(), before)
    assert set(verdicts) == {PASS, DROP}
    dropped = sum(number for name, number in grown.items() if name.startswith("drop "))
    assert (sum(grown.values()), dropped) == (count, verdicts[DROP])
    assert len(grown) > 12, grown


def test_no_mutation_lets_a_denied_source_pass(datapath: Datapath) -> None:
    """Bytes after the IP header change nothing for a denied or allowed source."""
    datapath.lists(allow=["203.0.113.0/25"], deny=["203.0.113.0/24", "2001:db8:dead::/48"])
    choice = random.Random(7)
    cases = [(inet_pton(AF_INET, "203.0.113.200"), "drop deny ipv4")]
    cases += [(inet_pton(AF_INET, "203.0.113.1"), "pass allow ipv4")]
    cases += [(inet_pton(AF_INET6, "2001:db8:dead::1"), "drop deny ipv6")]
    frames = corpus()
    for source, fate in cases:
        mine = [frame for frame in frames if source in frame and frame[12:18].count(b"\x81\0") < 2]
        assert len(mine) > 5
        before = datapath.cells()
        for _dummy in range(2000):
            frame = choice.choice(mine)
            end = frame.index(source) + 2 * len(source)
            datapath.run(frame[:end] + choice.randbytes(max(len(frame) - end, 1)))
        grown = difference(datapath.cells(), before)
        assert set(grown) <= {fate, "drop vlan other"}, grown
        assert grown[fate] > 1500
