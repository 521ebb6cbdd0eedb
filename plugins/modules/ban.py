#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ban
short_description: Ban sources for a time, or lift their bans
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Bans sources at run time, or lifts all bans that match them, whatever made them.
  - A ban is not declared. It expires by itself, and allow lists have precedence over it. To deny a source for good use
    M(packetwatch.xdp.access_lists).
  - The program must be attached to at least one interface.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
options:
  address:
    description:
      - The address of the source, or a list of addresses. All are checked before the first one is banned.
      - An IPv6 address stands for its /64, unless that network holds the host itself or a protected address, or unrelated
        hosts share it (C(packetwatch_shared_prefixes)).
    type: list
    elements: str
    required: true
  state:
    description:
      - V(present) bans the source. If the source has a ban of the same O(duration), nothing changes. A ban of another duration
        begins anew.
      - V(absent) lifts all bans that match the source, and nothing that it did before counts towards its next ban.
      - In a fleet, a ban of the fleet comes back within a minute. M(packetwatch.xdp.fleet_ban) lifts it for all hosts.
    type: str
    choices: [present, absent]
    default: present
  duration:
    description:
      - Time until the ban expires, as seconds or such as V(10m), V(2h) or V(7d).
      - If omitted, the ban holds until it is lifted.
    type: str
  reason:
    description: Reason of the ban. Ansible writes it to the host's system log, with all options of the task.
    type: str
    default: ""
seealso:
  - module: packetwatch.xdp.access_lists
  - module: packetwatch.xdp.host_info
"""

EXAMPLES = r"""
- name: Ban a source for a day
  packetwatch.xdp.ban:
    address: 203.0.113.9
    duration: 1d
    reason: ticket 4711

- name: Lift the bans of two sources
  packetwatch.xdp.ban:
    address: [203.0.113.9, 2001:db8:0:1::7]
    state: absent
"""

RETURN = r"""
source:
  description: The banned address or IPv6 /64, or the one whose bans were lifted.
  returned: success, if one address was given
  type: str
  sample: 2001:db8:0:1::/64
sources:
  description: The same for each address that was given.
  returned: success
  type: list
  elements: str
lifted:
  description: The bans that were lifted, or that would be lifted in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: The banned address or IPv6 /64.
      type: str
    origin:
      description: What made the ban, V(scan), V(manual) or V(fleet).
      type: str
    kind:
      description:
        - The kind of the probes that led to the ban, V(syn), V(stealth), V(ack), V(udp), V(sctp), V(proto) or V(slow).
        - Empty if no scan led to it.
      type: str
    evidence:
      description:
        - What the ban is based on. V(syn) is a SYN, which proves nothing about its sender.
        - V(answer) means that the source had a connection with the host, so its address is real.
        - V(manual) and V(fleet) are bans by hand and by the fleet.
      type: str
    by:
      description: Who made the ban, according to the host's journal. Empty if the journal does not say.
      type: str
    reason:
      description: Reason of the ban, according to the host's journal. Empty if the journal does not say.
      type: str
    since:
      description: When the ban was made, in seconds since 1970. V(none) if that was before the host was booted.
      type: float
    until:
      description: When it would have expired. V(none) if never.
      type: float
    ports:
      description: Number of distinct ports that led to it. A port counts once for each address of the host.
      type: int
    dropped:
      description: Number of packets that it has dropped.
      type: int
    interface:
      description: The interface that received the packets that led to the ban. Empty if no packets did.
      type: str
    short:
      description: Whether the ban was short because too many bans were made at that time.
      type: bool
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._bans.bans import MAX_DURATION
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.duration import parse_duration
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import InvalidInput
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import run_module

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._bans.by_hand import BanChange
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host


def apply(module: AnsibleModule, host: Host) -> Result:
    """Ban the addresses, or lift their bans."""
    params = module.params
    duration = _seconds(params)

    def change(address: str, check: bool) -> BanChange:
        if params["state"] == "absent":
            return host.unban(address, check=check)
        return host.ban(address, duration, check=check)

    addresses = params["address"]
    if not addresses:
        raise InvalidInput("address is an empty list: write at least one address")
    if len(addresses) > 1:
        # A wrong address is refused before any other is banned.
        for address in addresses:
            change(address, True)
    changes = [change(address, module.check_mode) for address in addresses]
    result: Result = {
        "changed": any(item.changed for item in changes),
        "sources": [item.source for item in changes],
        "lifted": [lifted for item in changes for lifted in item.lifted],
        "diff": {
            "before": "".join(item.before for item in changes),
            "after": "".join(item.after for item in changes),
        },
    }
    return result | {"source": changes[0].source} if len(changes) == 1 else result


def _seconds(params: t.Mapping[str, t.Any]) -> float | None:
    """The length of the ban; None: until it is lifted."""
    if params["duration"] is None:
        return None
    return parse_duration(params["duration"], "duration", 0, MAX_DURATION)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "duration": {"type": "str"},
            "reason": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    run_module(module, lambda host: apply(module, host))


if __name__ == "__main__":
    main()
