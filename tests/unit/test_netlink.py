# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""rtnetlink: answers of this machine's kernel, and messages made by the tests."""

from __future__ import annotations

import socket
import struct

import pytest

from packetwatch_core._base.errors import Unreadable
from packetwatch_core._kernel import netlink

ARPHRD_LOOPBACK = 772


def attribute(kind: int, data: bytes) -> bytes:
    return (struct.pack("=HH", len(data) + 4, kind) + data).ljust((len(data) + 7) & ~3, b"\0")


def view(*attributes: bytes) -> memoryview:
    return memoryview(b"".join(attributes))


def test_loopback_is_found() -> None:
    loopback = next(link for link in netlink.links() if link.name == "lo")
    assert loopback.type == ARPHRD_LOOPBACK
    assert loopback.xdp_mode == ""


def test_loopback_address_is_found() -> None:
    found = {address.address for address in netlink.addresses()}
    assert socket.inet_aton("127.0.0.1") in found or not found


def test_routes_are_readable() -> None:
    assert all(len(route.destination) in (4, 16) for route in netlink.routes())


def test_changes_are_quiet_while_nothing_happens() -> None:
    changes = netlink.Changes()
    assert changes.fileno() >= 0
    assert changes.drain() is False
    changes.close()


def test_attributes_stop_at_a_broken_length() -> None:
    good = attribute(3, b"eth0\0")
    broken = struct.pack("=HH", 400, 3)
    assert bytes(netlink.attributes_of(view(good, broken), {3: "name"})["name"]) == b"eth0\0"
    assert netlink.attributes_of(view(struct.pack("=HH", 0, 3)), {3: "name"}) == {}


def test_messages_of_another_request_are_left_out() -> None:
    datagram = struct.pack("=IHHII", 20, 16, 0, 1, 0) + b"abcd"
    datagram += struct.pack("=IHHII", 20, 16, 0, 2, 0) + b"efgh"
    found = [(kind, bytes(body)) for kind, dummy, body in netlink.messages(datagram, 2)]
    assert found == [(16, b"efgh")]


def test_message_with_a_broken_length_ends_the_datagram() -> None:
    assert not list(netlink.messages(struct.pack("=IHHII", 4, 16, 0, 1, 0), 1))
    assert not list(netlink.messages(struct.pack("=IHHII", 400, 16, 0, 1, 0), 1))


class InterruptedKernel:
    """Answers requests for links as the kernel does, and marks the first dumps as interrupted."""

    def __init__(self, interrupted: int) -> None:
        self.interrupted = interrupted
        self.dumps = 0
        self.answer = b""

    def __enter__(self) -> InterruptedKernel:
        return self

    def __exit__(self, *dummy: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        pass

    def send(self, request: bytes) -> None:
        sequence = struct.unpack_from("=IHHII", request)[3]
        self.dumps += 1
        flags = 0x10 if self.dumps <= self.interrupted else 0
        body = struct.pack("=BxHiII", 0, 1, self.dumps, 0, 0) + attribute(3, b"pw0\0")
        link = struct.pack("=IHHII", 16 + len(body), 16, flags, sequence, 0) + body
        self.answer = link + struct.pack("=IHHII", 20, 3, flags, sequence, 0) + bytes(4)

    def recv(self, size: int) -> bytes:
        return self.answer


def test_an_interrupted_dump_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = InterruptedKernel(3)
    monkeypatch.setattr(netlink, "_open", lambda: kernel)
    assert [(link.ifindex, link.name) for link in netlink.links()] == [(4, "pw0")]


def test_a_dump_that_is_always_interrupted_is_not_taken_for_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(netlink, "_open", lambda: InterruptedKernel(1000))
    with pytest.raises(Unreadable, match="changed during each of"):
        netlink.links()


@pytest.mark.parametrize(("mode", "name"), [(1, "native"), (2, "generic"), (9, "")])
def test_xdp_mode_and_program(mode: int, name: str) -> None:
    inner = attribute(2, struct.pack("=B", mode)) + attribute(4, struct.pack("=I", 42))
    attributes = netlink.attributes_of(
        view(attribute(3, b"eth0\0"), attribute(0x8000 | 43, inner)), netlink.LINK.attributes
    )
    link = netlink._link((0, 1, 7, 0, 0), attributes)
    assert (link.name, link.ifindex, link.xdp_mode, link.xdp_program) == ("eth0", 7, name, 42)


def test_kind_of_a_device() -> None:
    inner = attribute(1, b"vrf\0") + attribute(2, bytes(8))
    attributes = netlink.attributes_of(
        view(attribute(3, b"red\0"), attribute(18, inner)), netlink.LINK.attributes
    )
    link = netlink._link((0, 1, 7, 0, 0), attributes)
    assert (link.name, link.kind) == ("red", "vrf")


def test_address_with_a_peer() -> None:
    attributes = netlink.attributes_of(
        view(
            attribute(1, socket.inet_aton("198.51.100.2")),
            attribute(2, socket.inet_aton("198.51.100.1")),
            attribute(8, struct.pack("=I", 0x280)),
        ),
        netlink.ADDRESS.attributes,
    )
    address = netlink._address((socket.AF_INET, 32, 0x80, 0, 3), attributes)
    assert address is not None
    assert address.address == socket.inet_aton("198.51.100.1")
    assert address.network == socket.inet_aton("198.51.100.2")
    assert (address.family, address.flags, address.ifindex) == (4, 0x280, 3)


def test_gateways_of_several_hops() -> None:
    first = attribute(5, socket.inet_aton("192.0.2.1"))
    via = struct.pack("=H", socket.AF_INET6) + socket.inet_pton(socket.AF_INET6, "fe80::1")
    second = attribute(18, via)
    hops = b"".join(struct.pack("=HBBi", len(hop) + 8, 0, 0, 2) + hop for hop in (first, second))
    attributes = netlink.attributes_of(view(attribute(9, hops)), netlink.ROUTE.attributes)
    route = netlink._route((socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0), attributes)
    assert route.gateways == (
        socket.inet_aton("192.0.2.1"),
        socket.inet_pton(socket.AF_INET6, "fe80::1"),
    )
    assert route.destination == bytes(4)


@pytest.mark.parametrize(
    ("family", "prefixlen", "table", "protocol", "kind", "wanted"),
    [
        (socket.AF_INET, 0, 254, 3, 1, True),
        (socket.AF_INET, 24, 254, 2, 1, False),
        (socket.AF_INET6, 64, 254, 2, 1, True),
        (socket.AF_INET6, 64, 254, 9, 1, True),
        (socket.AF_INET6, 64, 254, 3, 1, False),
        (socket.AF_INET6, 0, 100, 3, 1, True),
        (socket.AF_INET6, 128, 255, 2, 1, False),
        (socket.AF_INET6, 8, 254, 2, 5, False),
        (128, 0, 254, 3, 1, False),
    ],
)
def test_only_default_and_on_link_routes_are_wanted(
    family: int, prefixlen: int, table: int, protocol: int, kind: int, wanted: bool
) -> None:
    header = (family, prefixlen, 0, 0, table, protocol, 0, kind, 0)
    assert netlink._is_wanted(header) is wanted
