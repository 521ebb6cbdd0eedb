#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: policy
short_description: Set what counts as a port scan and what follows
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Sets detection and enforcement, of one interface or as the default for all.
  - The change becomes active at once and as a whole. The program is not loaded anew.
  - Options that are omitted stay as they are, unless O(replace=true).
  - An interface inherits options that are not set for it from the default. Options that are not set there have the values that
    are named here.
  - Existing bans keep their duration.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
options:
  interface:
    description:
      - Set the policy of this interface.
      - If omitted, the default policy is set, which holds for all interfaces that have no value of their own.
    type: str
  replace:
    description:
      - Whether options that are omitted are unset, so that they are inherited.
      - V(true) with no further option makes an interface follow the default again.
    type: bool
    default: false
  action:
    description:
      - With V(enforce) packets of denied and banned sources are dropped. This is what an unset option means.
      - With V(monitor) nothing is dropped. Packets that would have been dropped are counted and reported.
      - With V(off) packets are only counted.
    type: str
    choices: [enforce, monitor, "off"]
  scan_ports:
    description:
      - How many distinct ports within O(scan_window) make a scan, from 1 to 64. Unset means 5.
      - A port counts once for each address of the host.
      - The packet that reaches this number is the first one to be dropped.
    type: int
  scan_window:
    description: Length of the sliding window, as seconds or such as V(90s) or V(5m), from 0.001 to 86400 seconds. Unset means 60.
    type: str
  scan_counts:
    description:
      - With V(closed) only ports count on which no service of the host listens. This is what an unset option means.
      - With V(any) every port counts, so that a client of many services is taken for a scanner too.
    type: str
    choices: [closed, any]
  published_ports:
    description:
      - Ports and ranges that are served although no socket of the host listens on them, for example because they are
        forwarded to a container, such as V(8080), V(9000-9010) or V(53/udp). Unset means none.
      - Without a protocol (V(tcp), V(udp) or V(sctp)) they are ports of TCP.
      - They hold for all interfaces, so O(interface) must be omitted.
    type: list
    elements: str
  scan_grace:
    description: How long a port does not count after its service has ended, as seconds or such as V(2m), up to 86400 seconds. Unset means 120.
    type: str
  slow_scan_ports:
    description:
      - How many distinct closed ports within O(slow_scan_window) make a slow scan, from 0 to 64. Unset means 20.
      - With V(0), slow scans are not detected. With O(scan_counts=any), they never are.
      - The host's agent counts them.
    type: int
  slow_scan_window:
    description: Window of slow scans, as seconds or such as V(12h) or V(2d), from 1 to 604800 seconds. Unset means 86400.
    type: str
  ban_time:
    description:
      - How long a scanner is banned, as seconds or such as V(10m), V(2h) or V(7d), from 1 to 31536000 seconds. Unset means 600.
    type: str
  ban_time_max:
    description:
      - Bans of repeated scanners double up to this time. Unset means O(ban_time), so that they never do.
      - A scanner that has a connection with the host is banned for this time at once.
      - A SYN proves nothing about its sender. An attacker who forges addresses can get other sources banned, for up to this time.
    type: str
  ban_scope:
    description:
      - With V(connections) a banned scanner can open no TCP connection to the host, but gets answers to connections that the
        host opens. This is what an unset option means.
      - With V(all) all its packets are dropped.
    type: str
    choices: [connections, all]
  log_connections:
    description:
      - Which new connections are reported, V(all) within the rate limit, V(sampled) ones, or V(none).
      - Unset means V(all).
    type: str
    choices: [all, sampled, none]
  link_control:
    description:
      - What decides the control traffic of the link from denied sources, which is neighbour and router discovery, MLD,
        and DHCP to a client.
      - With V(pass) it passes. Every host on the same link can then send it; guards of the switch decide who may.
      - With V(lists) the lists decide it, like all other packets.
      - Bans never drop it.
      - Unset means V(pass).
    type: str
    choices: [pass, lists]
  scan_kinds:
    description:
      - Which kinds of probes count. Unset means V(syn), V(stealth) and V(ack).
      - V(syn) are packets that begin a TCP connection, V(stealth) those that no stack sends, such as FIN, NULL and XMAS.
      - V(ack) are bare TCP segments with ACK to a port where no socket expects them.
      - V(udp) are datagrams to a port without a socket, V(sctp) the first packets of SCTP associations on a host without SCTP,
        V(proto) packets of IP protocols that nobody uses.
      - With O(scan_counts=any), only V(syn) and V(stealth) count.
    type: list
    elements: str
    choices: [syn, stealth, ack, udp, sctp, proto]
  closed_ports:
    description:
      - What happens to packets that count because nobody serves their port.
      - With V(reset) the kernel answers them, TCP with a reset. This is what an unset option means.
      - With V(drop) they are dropped, so that a scan sees a dead host. Clients of a closed port then wait for their timeout.
        Allowed and protected sources still get answers. V(drop) needs O(scan_counts=closed).
    type: str
    choices: [reset, drop]
seealso:
  - module: packetwatch.xdp.change
  - module: packetwatch.xdp.access_lists
  - module: packetwatch.xdp.program
"""

EXAMPLES = r"""
- name: Only report what would be dropped
  packetwatch.xdp.policy:
    action: monitor

- name: Ban sources for an hour that try ten closed ports within five minutes
  packetwatch.xdp.policy:
    action: enforce
    scan_ports: 10
    scan_window: 5m
    ban_time: 1h

- name: Do not count ports of containers as closed
  packetwatch.xdp.policy:
    published_ports:
      - 8080
      - 9000-9010
      - 53/udp

# A client that uses three services of this host within a minute is banned too.
- name: Be strict on the management interface
  packetwatch.xdp.policy:
    interface: eth1
    scan_counts: any
    scan_ports: 3

- name: Let the management interface follow the default again
  packetwatch.xdp.policy:
    interface: eth1
    replace: true
"""

RETURN = r"""
digest_before:
  description: As M(packetwatch.xdp.access_lists) returns it.
  returned: success
  type: str
  sample: 5f1d7a84db00d2fc
digest_after:
  description: As M(packetwatch.xdp.access_lists) returns it.
  returned: success
  type: str
  sample: 0c8a4d2ab1f0e4d5
live:
  description:
    - Whether a program reads these tables.
    - V(false) if no interface is attached yet, or if the loaded and the installed program are of another version. The declared
      state then becomes active when an interface is attached or the program is replaced.
  returned: success
  type: bool
  sample: true
counts:
  description: How many entries the lists hold after the change.
  returned: success
  type: dict
  sample: {"allow": 3, "deny": 10200}
confirmed:
  description:
    - Whether the change is confirmed, so that boot reads it. Always V(true) for a task that has succeeded.
    - Not returned in check mode.
  returned: success
  type: bool
  sample: true
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.edits import set_policy
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.policy import (
    OPTIONS,
    keys_from_options,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import (
    CONFIRMATION,
    change,
    run_module,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.edits import Edit


def read_edit(params: t.Mapping[str, t.Any]) -> Edit:
    """The edit that the options describe."""
    keys = keys_from_options(params)
    return set_policy(params["interface"], keys, params["replace"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "interface": {"type": "str"},
            "replace": {"type": "bool", "default": False},
            **OPTIONS,
            **CONFIRMATION,
        },
        supports_check_mode=True,
    )
    run_module(module, lambda host: change(module, host, read_edit(module.params)))


if __name__ == "__main__":
    main()
