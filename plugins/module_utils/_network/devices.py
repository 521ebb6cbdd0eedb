# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Network devices: those that the filter can be attached to, and ports of bridges, bonds and VRFs."""

from __future__ import annotations

import typing as t

from .._base.errors import InvalidInput, Unsupported
from .._kernel.netlink import ARPHRD_ETHER, ARPHRD_LOOPBACK

if t.TYPE_CHECKING:
    from .._kernel.netlink import Link

_WITH_HEADER = (ARPHRD_ETHER, ARPHRD_LOOPBACK)
# Common types without an Ethernet header (include/uapi/linux/if_arp.h).
_TYPES = {
    32: "InfiniBand",
    512: "PPP",
    768: "IP tunnel",
    776: "IPv6-in-IPv4",
    65534: "tun or WireGuard",
}


def check_device(name: str, links: t.Sequence[Link]) -> Link:
    """Return the link of an interface; refuse one that is missing or has no Ethernet header.

    On tun, WireGuard or PPP devices the program would read the IP header as an Ethernet header, and
    pass everything.
    """
    link = next((link for link in links if link.name == name), None)
    if link is None:
        fit = sorted(link.name for link in links if link.type in _WITH_HEADER)
        raise InvalidInput(
            f"there is no interface {name!r}; there are: {', '.join(fit) or 'none that fits'}"
        )
    if link.type not in _WITH_HEADER:
        raise Unsupported(
            f"{name} has no Ethernet header (device type {link.type}, "
            f"{_TYPES.get(link.type, 'unknown')}), so all its packets would pass unfiltered; attach "
            "to the Ethernet device that carries them"
        )
    return link


def check_listeners(name: str, links: t.Sequence[Link]) -> None:
    """Refuse a port of a bridge, bond or VRF, for a policy that looks for listeners.

    Services listen on the master, so all their ports would look closed (`bpf_skc_lookup_tcp` looks for
    listeners of the packet's own device).
    """
    names = {link.ifindex: link.name for link in links}
    for link in links:
        if link.name == name and link.master:
            master = names.get(link.master, "?")
            raise Unsupported(
                f"{name} is a port of {master}, where services listen, so all their ports would look "
                f"closed; attach to {master} instead, or set scan_counts of {name} to any"
            )
