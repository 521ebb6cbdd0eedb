# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Addresses, routes and links, read from the kernel over rtnetlink, and notifications of their changes.

Any user may read them. Addresses are in network byte order, 4 or 16 bytes; families are 4 and 6.
Messages are declared as data (`Kind`); layouts: linux/rtnetlink.h, if_addr.h, if_link.h.
"""

from __future__ import annotations

import errno
import socket
import struct
import typing as t

from .._base.errors import Unreadable
from .._base.interface import text_of
from .._base.steps import Steps, finish

_MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, ifindex
_NLM_F_REQUEST_DUMP = 0x1 | 0x300
_NLM_F_DUMP_INTR = 0x10
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLA_TYPE = 0x3FFF
_ATTEMPTS = 10
# Objects that are read in about a millisecond.
_STEP = 1024

_RTN_UNICAST = 1
_RTN_LOCAL = 2
_RT_TABLE_LOCAL = 255
_RTPROT_KERNEL = 2
_RTPROT_RA = 9

# RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400

# linux/if_arp.h
ARPHRD_ETHER = 1
ARPHRD_LOOPBACK = 772

XDP_MODES = {1: "native", 2: "generic", 3: "offloaded", 4: "several"}


class Kind(t.NamedTuple):
    """One kind of object: its messages, its fixed header and the attributes that are read."""

    request: int
    reply: int
    header: struct.Struct
    attributes: dict[int, str]


# ifinfomsg: family, type, index, flags, change
LINK = Kind(18, 16, struct.Struct("=BxHiII"), {3: "name", 10: "master", 18: "info", 43: "xdp"})
# ifaddrmsg: family, prefixlen, flags, scope, index
ADDRESS = Kind(22, 20, struct.Struct("=BBBBI"), {1: "address", 2: "local", 8: "flags"})
# rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
ROUTE = Kind(
    26,
    24,
    struct.Struct("=BBBBBBBBI"),
    {1: "destination", 4: "output", 5: "gateway", 9: "multipath", 18: "via"},
)
_INFO = {1: "kind"}
_XDP = {2: "mode", 4: "program"}
_HOP = {5: "gateway", 18: "via"}

BROKEN: t.Final = (OSError, struct.error)
"""What reading a dump raises if the kernel refuses it, or if a message is too short."""
T = t.TypeVar("T")
Attributes = dict[str, memoryview]
Message = tuple[tuple[int, ...], Attributes]


class Address(t.NamedTuple):
    """An address of this host. network: the peer's address if there is a peer, else the same address."""

    family: int
    address: bytes
    prefixlen: int
    ifindex: int
    scope: int
    flags: int
    network: bytes


class Link(t.NamedTuple):
    """An interface. name: as `_base.interface.text_of` returns it.

    type: its ARPHRD number. xdp_mode: empty if no program is attached. master: index of the bridge, bond
    or VRF that it is a port of; 0: it is not a port. kind: such as bridge or vrf; empty: hardware.
    """

    ifindex: int
    name: str
    type: int
    flags: int
    xdp_mode: str
    xdp_program: int
    master: int = 0
    kind: str = ""


class Route(t.NamedTuple):
    """A unicast route, or one to this host itself. destination: padded to the family's length."""

    family: int
    destination: bytes
    prefixlen: int
    gateways: tuple[bytes, ...]
    ifindex: int
    is_local: bool = False


def links() -> list[Link]:
    """All interfaces."""
    return _dump(LINK, _link)


def addresses() -> list[Address]:
    """All addresses of all interfaces."""
    return [address for address in _dump(ADDRESS, _address) if address]


def routes() -> list[Route]:
    """Do all of `routes_in_steps` at once."""
    return finish(routes_in_steps())


def routes_in_steps() -> Steps[list[Route]]:
    """Default routes of all tables, IPv6 prefixes that are on a link, and the routes to this host.

    On-link prefixes come from the kernel (from addresses) or from router advertisements. Routes to this
    host are those of the table "local": rules may choose other tables, for instance for marked packets.
    Other routes are skipped before they are parsed, because a router may have a million.
    """
    return (yield from _dump_in_steps(ROUTE, _route, _is_wanted))


class Changes:
    """A subscription: readable (`fileno`) when a link, an address or a route may have changed."""

    def __init__(self) -> None:
        self._socket = _open(_GROUPS)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> bool:
        """Discard all notifications; return True if there were any, or if the kernel lost some."""
        changed = False
        for dummy in range(1000):
            try:
                self._socket.recv(1)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            changed = True
        return changed

    def close(self) -> None:
        self._socket.close()


def _open(groups: int = 0) -> socket.socket:
    try:
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        channel.bind((0, groups))
    except OSError as error:
        raise Unreadable(
            f"cannot open an rtnetlink socket: {error.strerror}; the unit or container must allow "
            "AF_NETLINK sockets"
        ) from error
    return channel


def _dump(kind: Kind, read: t.Callable[[tuple[int, ...], Attributes], T]) -> list[T]:
    return finish(_dump_in_steps(kind, read))


def _dump_in_steps(
    kind: Kind,
    read: t.Callable[[tuple[int, ...], Attributes], T],
    wanted: t.Callable[[tuple[int, ...]], bool] | None = None,
) -> Steps[list[T]]:
    """All objects of a kind, from one dump that no change interrupted; raises `Unreadable`."""
    with _open() as channel:
        channel.settimeout(10)
        for sequence in range(1, _ATTEMPTS + 1):
            try:
                found = yield from _dump_once(channel, kind, sequence, wanted)
                if found is not None:
                    return [read(*message) for message in found]
            except BROKEN as error:
                raise Unreadable(f"cannot read from the rtnetlink socket: {error}") from error
    raise Unreadable(
        f"the kernel's links, addresses or routes changed during each of {_ATTEMPTS} reads; try again"
    )


def _dump_once(
    channel: socket.socket,
    kind: Kind,
    sequence: int,
    wanted: t.Callable[[tuple[int, ...]], bool] | None,
) -> Steps[list[Message] | None]:
    """All objects of a kind; None if they changed while the kernel listed them (NLM_F_DUMP_INTR)."""
    found: list[Message] = []
    consistent = True
    reply = dump(channel, kind.request, bytes(kind.header.size), sequence)
    for number, (message, flags, body) in enumerate(reply, 1):
        if not number % _STEP:
            yield
        consistent = consistent and not flags & _NLM_F_DUMP_INTR
        if message == kind.reply:
            header = kind.header.unpack_from(body)
            if wanted is None or wanted(header):
                found.append((header, attributes_of(body[kind.header.size :], kind.attributes)))
    return found if consistent else None


def dump(
    channel: socket.socket, request: int, header: bytes, sequence: int
) -> t.Iterator[tuple[int, int, memoryview]]:
    """Ask for all objects; yield type, flags and body of each message up to the last one (NLMSG_DONE).

    Raises `OSError`.
    """
    length = _MESSAGE.size + len(header)
    channel.send(_MESSAGE.pack(length, request, _NLM_F_REQUEST_DUMP, sequence, 0) + header)
    while True:
        for message, flags, body in messages(channel.recv(1 << 16), sequence):
            if message == _NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", body)
                raise OSError(-code, errno.errorcode.get(-code, "unknown"))
            yield message, flags, body
            if message == _NLMSG_DONE:
                return


def messages(data: bytes, sequence: int) -> t.Iterator[tuple[int, int, memoryview]]:
    """Yield type, flags and body of each message in a datagram that answers request `sequence`."""
    view = memoryview(data)
    while len(view) >= _MESSAGE.size:
        length, kind, flags, answered, dummy = _MESSAGE.unpack_from(view)
        if not _MESSAGE.size <= length <= len(view):
            return
        if answered == sequence:
            yield kind, flags, view[_MESSAGE.size : length]
        view = view[(length + 3) & ~3 :]


def attributes_of(view: memoryview, names: dict[int, str]) -> Attributes:
    """Values of the attributes in `view` that have a name."""
    found: Attributes = {}
    while len(view) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(view)
        if not _ATTRIBUTE.size <= length <= len(view):
            break
        name = names.get(kind & _NLA_TYPE)
        if name:
            found[name] = view[_ATTRIBUTE.size : length]
        view = view[(length + 3) & ~3 :]
    return found


def _number(attributes: Attributes, name: str, default: int = 0) -> int:
    """An attribute of 1, 2 or 4 bytes."""
    value = attributes.get(name)
    if value is None:
        return default
    return int(struct.unpack({1: "=B", 2: "=H"}.get(len(value), "=I"), value)[0])


def _text(attributes: Attributes, name: str) -> str:
    return text_of(bytes(attributes.get(name, b"")).rstrip(b"\0"))


def _link(header: tuple[int, ...], attributes: Attributes) -> Link:
    dummy, hardware, index, flags, dummy = header
    name = _text(attributes, "name")
    info = attributes_of(attributes["info"], _INFO) if "info" in attributes else {}
    xdp = attributes_of(attributes["xdp"], _XDP) if "xdp" in attributes else {}
    mode = XDP_MODES.get(_number(xdp, "mode"), "")
    program, master = _number(xdp, "program"), _number(attributes, "master")
    return Link(index, name, hardware, flags, mode, program, master, _text(info, "kind"))


def _address(header: tuple[int, ...], attributes: Attributes) -> Address | None:
    family, prefixlen, flags, scope, index = header
    if family not in (socket.AF_INET, socket.AF_INET6) or not attributes:
        return None
    network = attributes.get("address", attributes.get("local", memoryview(b"")))
    return Address(
        4 if family == socket.AF_INET else 6,
        bytes(attributes.get("local", network)),
        prefixlen,
        index,
        scope,
        _number(attributes, "flags", flags),
        bytes(network),
    )


def _is_wanted(header: tuple[int, ...]) -> bool:
    family, prefixlen, dummy, dummy, table, protocol, dummy, kind, dummy = header
    if family not in (socket.AF_INET, socket.AF_INET6):
        return False
    if table == _RT_TABLE_LOCAL:
        return kind == _RTN_LOCAL
    if kind != _RTN_UNICAST:
        return False
    on_link = family == socket.AF_INET6 and protocol in (_RTPROT_KERNEL, _RTPROT_RA)
    return prefixlen == 0 or on_link


def _route(header: tuple[int, ...], attributes: Attributes) -> Route:
    size = 4 if header[0] == socket.AF_INET else 16
    gateways = _gateways(attributes)
    hops = attributes.get("multipath", memoryview(b""))
    while len(hops) >= _NEXTHOP.size:
        length, dummy, dummy, dummy = _NEXTHOP.unpack_from(hops)
        if not _NEXTHOP.size <= length <= len(hops):
            break
        gateways += _gateways(attributes_of(hops[_NEXTHOP.size : length], _HOP))
        hops = hops[(length + 3) & ~3 :]
    return Route(
        4 if size == 4 else 6,
        bytes(attributes.get("destination", b"")).ljust(size, b"\0"),
        header[1],
        gateways,
        _number(attributes, "output"),
        header[7] == _RTN_LOCAL,
    )


def _gateways(attributes: Attributes) -> tuple[bytes, ...]:
    """The gateway of one hop. RTA_VIA (a gateway of another family) starts with the family, 2 bytes."""
    found = [bytes(attributes["gateway"])] if "gateway" in attributes else []
    if "via" in attributes:
        found.append(bytes(attributes["via"][2:]))
    return tuple(address for address in found if len(address) in (4, 16))
