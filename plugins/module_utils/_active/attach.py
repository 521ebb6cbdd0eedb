# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Attaching to an interface in native or generic mode, never over the program of another tool."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import typing as t

from .._base.errors import Foreign, LoadFailed
from .._declared.policy import DEFAULT
from .._dispatcher.member import NAME
from .._dispatcher.membership import Membership, explain_frags, join, refuse_second
from .._dispatcher.place import is_dispatcher, read_place
from .._kernel import netlink
from .._kernel.programs import XDP_GENERIC, XDP_NATIVE, Link, Program, attached
from .._network import devices

if t.TYPE_CHECKING:
    from .._declared.policy import Policy
    from .._dispatcher.chain import Dispatchers

_SIOCGIFMTU = 0x8921
_IFREQ = struct.Struct("16s24s")
_TAKEN = (errno.EBUSY, errno.EEXIST)


class Attached(t.NamedTuple):
    """A new link and its mode. reason: why generic mode had to be chosen; else empty."""

    link: Link | Membership
    mode: str
    reason: str


def check_listeners(
    policies: t.Mapping[str, Policy],
    interfaces: t.Iterable[str],
    links: t.Sequence[netlink.Link],
) -> None:
    """Raise an error if a policy counts closed ports on a port of a bridge, bond or VRF."""
    for name in interfaces:
        if policies.get(name, policies[DEFAULT]).looks_for_listeners:
            devices.check_listeners(name, links)


def check_free(
    interface: str, ifindex: int, mode: str, ours: t.Container[int], dispatchers: Dispatchers
) -> None:
    """Raise `Foreign` if the interface has a program that is not one of `ours` (ids).

    mode: the wanted one. A dispatcher can be joined if that is wanted.
    """
    found = attached(ifindex)
    if not found.program_id or found.program_id in ours:
        return
    chain = dispatchers.read(ifindex) if is_dispatcher(mode) else None
    if chain:
        refuse_second(chain.members)
        return
    raise _foreign(interface, found.program_id, found.mode)


def create_link(program: Program, interface: str, ifindex: int, mode: str) -> Attached:
    """Attach in a mode: native, generic, or auto, which tries native before generic."""
    refused = ""
    if mode != "generic":
        try:
            return Attached(Link.create(program, ifindex, XDP_NATIVE), "native", "")
        except OSError as error:
            refused = _explain(interface, ifindex, error)
            if mode == "native":
                raise LoadFailed(
                    f"{interface} refuses native mode: {refused}; use mode auto or generic"
                ) from error
    try:
        link = Link.create(program, ifindex, XDP_GENERIC)
    except OSError as error:
        reason = _explain(interface, ifindex, error)
        before = f" (before that, native mode: {refused})" if refused else ""
        raise LoadFailed(
            f"cannot attach to {interface} in generic mode: {reason}{before}"
        ) from error
    return Attached(link, "generic", f"native mode refused: {refused}" if refused else "")


def enter(
    dispatchers: Dispatchers, extension: Program, interface: str, ifindex: int, mode: str
) -> Attached:
    """Join the dispatcher of an interface, or make one: in native mode if the driver has it.

    mode: the text of the wanted place.
    """
    place = read_place(mode)
    refused = ""
    for kind in ("native", "generic"):
        chain = dispatchers.read(ifindex)
        try:
            join(dispatchers, ifindex, extension, place, kind, is_ours=False)
            reason = f"native mode refused: {refused}" if refused else ""
            return Attached(Membership.find(dispatchers, ifindex), place.mode(), reason)
        except OSError as error:
            refused = _explain(interface, ifindex, error)
            if chain:
                # Its mode is that of all its programs.
                refused += explain_frags(chain.members)
                break
    raise LoadFailed(f"cannot join the dispatcher of {interface}: {refused}")


def _explain(interface: str, ifindex: int, error: OSError) -> str:
    """Explain the driver's errno; raises `Foreign` if another program is attached."""
    number = error.errno or 0
    found = attached(ifindex)
    if number in _TAKEN and found.program_id:
        raise _foreign(interface, found.program_id, found.mode) from error
    text = os.strerror(number)
    if number == errno.EOPNOTSUPP:
        return f"{text}: the driver has no native XDP"
    if number in (errno.ERANGE, errno.EINVAL):
        mtu = struct.unpack_from("=i", _ioctl(interface, _SIOCGIFMTU))[0]
        return (
            f"{text}: drivers often refuse XDP with a large MTU (it is {mtu}) or with LRO; lower the "
            f"MTU, or switch LRO off with ethtool -K {interface} lro off"
        )
    if number == errno.ENOMEM:
        return f"{text}: the driver may need more queues or rings for native XDP (ethtool -L, -G)"
    return text


def _foreign(interface: str, number: int, mode: str) -> Foreign:
    name = ""
    try:
        with Program.by_id(number) as program:
            name = program.info().name
    except OSError:
        name = "unknown"
    remedy = "remove it with the tool that attached it (bpftool net shows it)"
    if name == NAME:
        remedy = f"join it with mode dispatcher, or {remedy}"
    return Foreign(
        f"{interface} already has another XDP program: {name!r}, id {number}, mode {mode}; Packetwatch "
        f"does not replace it: {remedy}"
    )


def _ioctl(interface: str, request: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name = interface.encode()[:15]
        return fcntl.ioctl(control, request, _IFREQ.pack(name, b""))[16:]
