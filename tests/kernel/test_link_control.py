# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Control traffic of the link, which passes the lists: what it is, what it is not, and that a link lives by it."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator, Sequence
from socket import AF_INET, AF_INET6, SOCK_DGRAM, AddressFamily, getaddrinfo, socket

import pytest
from kernel.datapath import Datapath, join, reaches, wait_for
from kernel.hosting import Namespace, ip
from kernel.packets import (
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    HOST4,
    ICMP6,
    IPV4,
    IPV6,
    MORE_FRAGMENTS,
    TCP,
    UDP,
    VLAN,
    VLAN_S,
    chain,
    ethernet,
    fragment6,
    ipv4,
    ipv6,
    options,
    syn4,
    syn6,
    udp4,
    udp6,
)

from packetwatch_core._declared import edits
from packetwatch_core._kernel import abi

NEIGHBOUR, ROUTER, GLOBAL, NOBODY = "fe80::7", "febf::7", "2001:db8:7::7", "::"
SERVER = "198.51.100.7"
ALL_NODES = "ff02::1"
SOLICIT_ROUTER, ROUTER_ADVERT, SOLICIT, ADVERT, REDIRECT = range(133, 138)
QUERY, REPORT, DONE, REPORT_2 = 130, 131, 132, 143
ECHO = 128
DISCOVERY = {
    "router solicitation": SOLICIT_ROUTER,
    "router advertisement": ROUTER_ADVERT,
    "neighbour solicitation": SOLICIT,
    "neighbour advertisement": ADVERT,
    "redirect": REDIRECT,
}
LISTENERS = {"query": QUERY, "report": REPORT, "done": DONE, "report of version 2": REPORT_2}
ALERT, PADDING = bytes((5, 2, 0, 0)), bytes((1, 0))

PASSES4, PASSES6 = "pass link_control ipv4", "pass link_control ipv6"
DENIED4, DENIED6 = "drop deny ipv4", "drop deny ipv6"


def icmp6(
    source: str,
    kind: int,
    hop_limit: int = 255,
    *,
    code: int = 0,
    before: bytes = b"",
    first: int = ICMP6,
    tags: Sequence[int] = (),
) -> bytes:
    """Return a frame with an ICMPv6 message after the headers `before`, of which the first is of kind `first`."""
    payload = before + bytes((kind, code)) + bytes(22)
    return ethernet(IPV6, ipv6(source, ALL_NODES, payload, first, hop_limit=hop_limit), tags)


def mld(source: str, kind: int, hop_limit: int = 1, *, extra: bytes = ALERT + PADDING) -> bytes:
    """Return a frame with a message for multicast listeners; extra: options of the hop-by-hop header."""
    header = bytes((ICMP6, (2 + len(extra)) // 8 - 1)) + extra
    return icmp6(source, kind, hop_limit, before=header, first=HOP_BY_HOP)


def datagram(source: int, target: int) -> bytes:
    return struct.pack("!HHHH", source, target, 8 + 240, 0) + bytes(240)


def dhcp4(
    source: int = 67, target: int = 68, *, tags: Sequence[int] = (), **fields: object
) -> bytes:
    packet = ipv4(SERVER, "255.255.255.255", datagram(source, target), UDP, **fields)  # type: ignore[arg-type]
    return ethernet(IPV4, packet, tags)


def dhcp6(source: str = ROUTER, ports: tuple[int, int] = (547, 546), first: int = UDP) -> bytes:
    before = chain([first], UDP) if first != UDP else b""
    return ethernet(IPV6, ipv6(source, NEIGHBOUR, before + datagram(*ports), first))


CONTROL = {
    **{name: icmp6(NEIGHBOUR, kind) for name, kind in DISCOVERY.items()},
    "router solicitation without an address": icmp6(NOBODY, SOLICIT_ROUTER),
    "router solicitation from a global address": icmp6(GLOBAL, SOLICIT_ROUTER),
    "probe for a duplicate address": icmp6(NOBODY, SOLICIT),
    "neighbour solicitation from a global address": icmp6(GLOBAL, SOLICIT),
    "neighbour advertisement from a global address": icmp6(GLOBAL, ADVERT),
    "discovery in a VLAN": icmp6(ROUTER, SOLICIT, tags=[VLAN]),
    **{f"listener's {name}": mld(ROUTER, kind) for name, kind in LISTENERS.items()},
    "listener's report without an address": mld(NOBODY, REPORT_2),
    "padding before the alert": mld(NEIGHBOUR, REPORT_2, extra=PADDING + ALERT),
    "DHCP": dhcp4(),
    "DHCP in two VLANs": dhcp4(tags=[VLAN_S, VLAN]),
    "DHCPv6": dhcp6(),
}
NO_CONTROL = {
    **{f"{name} over a router": icmp6(NEIGHBOUR, kind, 254) for name, kind in DISCOVERY.items()},
    **{f"{name} with a code": icmp6(NEIGHBOUR, kind, code=1) for name, kind in DISCOVERY.items()},
    "router advertisement from a global address": icmp6(GLOBAL, ROUTER_ADVERT),
    "router advertisement without an address": icmp6(NOBODY, ROUTER_ADVERT),
    "redirect from a global address": icmp6(GLOBAL, REDIRECT),
    "type below discovery": icmp6(NEIGHBOUR, 132),
    "type above discovery": icmp6(NEIGHBOUR, 138),
    "echo request": icmp6(NEIGHBOUR, ECHO),
    "discovery after options": icmp6(NEIGHBOUR, SOLICIT, before=options(ICMP6), first=DESTINATION),
    "fragment of discovery": icmp6(NEIGHBOUR, SOLICIT, before=fragment6(ICMP6), first=FRAGMENT),
    "discovery as its only fragment": icmp6(
        NEIGHBOUR, SOLICIT, before=fragment6(ICMP6, more=False), first=FRAGMENT
    ),
    "discovery cut short": icmp6(NEIGHBOUR, SOLICIT)[:57],
    **{f"listener's {name} from afar": mld(GLOBAL, kind) for name, kind in LISTENERS.items()},
    "report that a router would forward": mld(NEIGHBOUR, REPORT_2, 2),
    "report with the hop limit of discovery": mld(NEIGHBOUR, REPORT_2, 255),
    "report without hop-by-hop options": icmp6(NEIGHBOUR, REPORT_2, 1),
    "report without an alert": mld(NEIGHBOUR, REPORT_2, extra=bytes((1, 4)) + bytes(4)),
    "alert for another protocol": mld(NEIGHBOUR, REPORT_2, extra=bytes((5, 2, 0, 1)) + PADDING),
    "report after more options": mld(NEIGHBOUR, REPORT_2, extra=ALERT + bytes((1, 8)) + bytes(8)),
    "echo request with an alert": mld(NEIGHBOUR, ECHO),
    "discovery with an alert": mld(NEIGHBOUR, SOLICIT),
    "report cut short": mld(NEIGHBOUR, REPORT_2)[:65],
    "DHCP to a server": dhcp4(68, 67),
    "DHCP between relays": dhcp4(67, 67),
    "first fragment of DHCP": dhcp4(fragment=MORE_FRAGMENTS),
    "later fragment that looks like DHCP": dhcp4(fragment=3),
    "DHCP after options": dhcp4(options=b"\x01" * 4),
    "DHCP cut short": dhcp4()[:37],
    "TCP between DHCP's ports": ethernet(
        IPV4, ipv4(SERVER, "255.255.255.255", datagram(67, 68), TCP)
    ),
    "DHCPv6 from a global address": dhcp6(GLOBAL),
    "DHCPv6 to a server": dhcp6(ports=(546, 547)),
    "DHCPv6 after options": dhcp6(first=DESTINATION),
    "DHCPv6 cut short": dhcp6()[:57],
    "name service": udp4(SERVER),
    "name service of a neighbour": udp6(NEIGHBOUR),
    "connection": syn4(SERVER, 22),
    "connection of a neighbour": syn6(NEIGHBOUR, 22),
}


@pytest.fixture
def shut(datapath: Datapath) -> Datapath:
    """The filter with lists that deny every source."""
    datapath.lists(deny=["0.0.0.0/0", "::/0"])
    return datapath


def fates(datapath: Datapath, frames: dict[str, bytes]) -> dict[str, str]:
    return {name: datapath.fate(frame) for name, frame in frames.items()}


def by_family(frames: dict[str, bytes], ipv4_fate: str, ipv6_fate: str) -> dict[str, str]:
    """Return the fate that each frame must have."""
    return {name: ipv4_fate if is_ipv4(frame) else ipv6_fate for name, frame in frames.items()}


def is_ipv4(frame: bytes) -> bool:
    types = [int.from_bytes(frame[at : at + 2], "big") for at in (12, 16, 20)]
    return next(kind for kind in types if kind not in (VLAN, VLAN_S)) == IPV4


def test_control_traffic_of_the_link_passes_the_lists(shut: Datapath) -> None:
    assert fates(shut, CONTROL) == by_family(CONTROL, PASSES4, PASSES6)


def test_nothing_else_passes_them(shut: Datapath) -> None:
    assert fates(shut, NO_CONTROL) == by_family(NO_CONTROL, DENIED4, DENIED6)


def test_the_lists_decide_it_if_the_policy_says_so(shut: Datapath) -> None:
    shut.policy(link_control="lists")
    assert fates(shut, CONTROL) == by_family(CONTROL, DENIED4, DENIED6)


def test_the_policy_of_the_interface_counts(shut: Datapath) -> None:
    keys = {"PW_LINK_CONTROL": "lists"}
    shut.host.apply(edits.set_policy("v0", keys, replace=True))
    assert shut.fate(icmp6(NEIGHBOUR, SOLICIT)) == DENIED6
    shut.policy(link_control="lists")
    shut.host.apply(edits.set_policy("v0", {"PW_LINK_CONTROL": "pass"}, replace=True))
    assert shut.fate(icmp6(NEIGHBOUR, SOLICIT)) == PASSES6


@pytest.mark.parametrize(
    ("policy", "fate", "logged"),
    [
        ({"action": "monitor"}, ("pass link_control ipv4", "pass link_control ipv6"), 0),
        (
            {"action": "monitor", "link_control": "lists"},
            ("pass monitor_deny ipv4", "pass monitor_deny ipv6"),
            2,
        ),
        ({"action": "off"}, ("pass off ipv4", "pass off ipv6"), 0),
    ],
    ids=["monitor", "monitor lists", "off"],
)
def test_it_is_no_drop_that_monitor_mode_lets_pass(
    shut: Datapath, policy: dict[str, str], fate: tuple[str, str], logged: int
) -> None:
    shut.policy(**policy)
    assert shut.fates(dhcp4(), icmp6(NEIGHBOUR, SOLICIT)) == list(fate)
    events = shut.events()
    assert [event["type"] for event in events] == [abi.EVENT_WOULD_DROP] * logged
    assert all(event["sport"] == event["dport"] == 0 for event in events)


def test_an_allowed_or_unlisted_source_counts_as_such(datapath: Datapath) -> None:
    assert datapath.fates(icmp6(GLOBAL, SOLICIT), dhcp4()) == [
        "pass unlisted ipv6",
        "pass unlisted ipv4",
    ]
    datapath.lists(allow=[GLOBAL, SERVER], deny=["0.0.0.0/0", "::/0"])
    assert datapath.fates(icmp6(GLOBAL, SOLICIT), dhcp4()) == [
        "pass allow ipv6",
        "pass allow ipv4",
    ]


@pytest.mark.parametrize("link_control", ["pass", "lists"])
def test_no_ban_drops_it(datapath: Datapath, link_control: str) -> None:
    datapath.policy(ban_scope="all", link_control=link_control)
    for source in (NEIGHBOUR, ROUTER, GLOBAL):
        datapath.bans.add(f"{source}/128", 600)
    datapath.bans.add(SERVER, 600)
    assert set(fates(datapath, CONTROL).values()) == {"pass unlisted ipv4", "pass unlisted ipv6"}
    others = {k: frame for k, frame in NO_CONTROL.items() if "without an address" not in k}
    assert fates(datapath, others) == by_family(others, "drop ban ipv4", "drop ban ipv6")


# A link: the host 2001:db8:1::1, its gateway 2001:db8:1::7, and a client behind the gateway

HOST, GATEWAY, CLIENT = "2001:db8:1::1", "2001:db8:1::7", "2001:db8:2::9"


@pytest.fixture(scope="module")
def client(plugged_in: None, loaded_datapath: Datapath) -> Iterator[Namespace]:
    """The client's namespace; the peer of the cable is the gateway."""
    found = Namespace()
    with loaded_datapath.host_namespace.entered():
        join("v0", f"{HOST}/64")
        ip(f"route add 2001:db8:2::/64 via {GATEWAY}")
    with loaded_datapath.peer():
        ip(f"link add behind type veth peer name c0 netns {found.path}")
        join("v1", f"{GATEWAY}/64")
        join("behind", "2001:db8:2::1/64")
        forward()
    with found.entered():
        ip("link set lo up")
        join("c0", f"{CLIENT}/64")
        ip("route add default via 2001:db8:2::1")
        wait_for(lambda: reaches(HOST))
    yield found
    with loaded_datapath.peer():
        ip("link delete behind")
        ip(f"address delete {GATEWAY}/64 dev v1")
    with loaded_datapath.host_namespace.entered():
        ip(f"address delete {HOST}/64 dev v0")
    found.close()


def forward() -> None:
    with open("/proc/sys/net/ipv6/conf/all/forwarding", "w", encoding="ascii") as switch:
        switch.write("1")


def link_local(device: str) -> str:
    """Return the link-local address of a device."""
    command = ["ip", "-6", "-o", "address", "show", device, "scope", "link"]
    return subprocess.check_output(command, text=True).split()[3].partition("/")[0]


def flush_neighbours(datapath: Datapath) -> None:
    """Forget all neighbours at both ends of the cable."""
    for namespace in (datapath.host_namespace, datapath.peer_namespace):
        with namespace.entered():
            ip("-6 neigh flush all")


@pytest.mark.slow
@pytest.mark.parametrize(
    "allowed",
    [("2001:db8:2::/64", "2001:db8:1::/64", "::1"), ("2001:db8:2::/64", "::1")],
    ids=["gateway too", "client alone"],
)
def test_an_allowed_host_reaches_a_host_that_denies_everything_else(
    datapath: Datapath, client: Namespace, allowed: tuple[str, ...]
) -> None:
    datapath.lists(allow=[*allowed, link_local("v0")], deny=["::/0"])
    flush_neighbours(datapath)
    with client.entered():
        wait_for(lambda: reaches(HOST))
    assert datapath.cells()["pass link_control ipv6"] > 0


@pytest.mark.slow
def test_without_control_traffic_it_is_cut_off(datapath: Datapath, client: Namespace) -> None:
    datapath.policy(link_control="lists")
    datapath.lists(allow=["2001:db8:2::/64", link_local("v0")], deny=["::/0"])
    flush_neighbours(datapath)
    with client.entered():
        assert not reaches(HOST)
    datapath.policy(link_control="pass")
    with client.entered():
        wait_for(lambda: reaches(HOST))


def test_a_duplicate_address_is_noticed(datapath: Datapath, client: Namespace) -> None:
    """The probe of a neighbour that wants the host's address reaches the host, which defends it."""
    datapath.lists(deny=["::/0"])
    with datapath.peer():
        ip(f"address add {HOST}/64 dev v1")
        try:
            wait_for(lambda: b"dadfailed" in addresses("v1"))
        finally:
            ip(f"address delete {HOST}/64 dev v1")


@pytest.mark.parametrize("family", [AF_INET, AF_INET6], ids=["DHCP", "DHCPv6"])
def test_a_client_hears_a_denied_server(
    datapath: Datapath, plugged_in: None, family: AddressFamily
) -> None:
    datapath.lists(deny=["0.0.0.0/0", "::/0"])
    target, ports = (HOST4, (67, 68)) if family == AF_INET else (link_local("v0"), (547, 546))
    with socket(family, SOCK_DGRAM) as client:
        client.bind(("", ports[1]))
        client.settimeout(5)
        with datapath.peer(), socket(family, SOCK_DGRAM) as server:
            server.bind(("", ports[0]))
            there = getaddrinfo(f"{target}%v1" if ":" in target else target, ports[1])[0][4]
            server.sendto(b"not an offer, but between its ports", there)
        assert client.recv(100).startswith(b"not an offer")
    assert datapath.cells()[PASSES4 if family == AF_INET else PASSES6] > 0


def addresses(device: str) -> bytes:
    return subprocess.check_output(["ip", "-6", "-o", "addr", "show", device])
