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

_VRF = "vrf"
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
    """Return the link of an interface; refuse one that is missing or on which everything would pass.

    On tun, WireGuard or PPP devices the program would read the IP header as an Ethernet header. A VRF
    gets a packet from its port only in the IP layer, after generic XDP has run.
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
    if link.kind == _VRF:
        ports = sorted(port.name for port in links if port.master == link.ifindex)
        raise Unsupported(
            f"{name} is a VRF, on which no filter sees the packets of its ports; attach to its ports "
            f"instead ({', '.join(ports) or 'it has none'}), with scan_counts: any"
        )
    return link


def check_listeners(name: str, links: t.Sequence[Link]) -> None:
    """Refuse a port of a bridge, bond or VRF, for a policy that looks for listeners.

    Services listen on the master, so all their ports would look closed (`bpf_skc_lookup_tcp` looks for
    listeners of the packet's own device).
    """
    masters = {link.ifindex: link for link in links}
    for link in links:
        if link.name == name and link.master:
            master = masters.get(link.master)
            text = master.name if master else "?"
            is_vrf = master is not None and master.kind == _VRF
            remedy = f"set scan_counts of {name} to any"
            raise Unsupported(
                f"{name} is a port of {'the VRF ' if is_vrf else ''}{text}, where services listen, so all "
                f"their ports would look closed; "
                f"{remedy if is_vrf else f'attach to {text} instead, or {remedy}'}"
            )
