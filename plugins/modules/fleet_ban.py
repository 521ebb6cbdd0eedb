#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_ban
short_description: Ban sources on all hosts of a fleet, or lift their bans
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Writes bans to the store of a fleet, from which they reach the kernels of all its hosts, or lifts the fleet's bans, whatever has
    made them.
  - Each host decides for itself what it takes. It bans no source that is protected there, and no longer than
    C(packetwatch_fleet_longest). Bans that a host has made itself stay.
  - The module runs on a node of the fleet. One node is enough.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._fleet
  - packetwatch.xdp._fleet.access
options:
  address:
    description:
      - The address of the source, or a list of addresses. They are all banned, or none if one is refused. Thousands of them
        are written in several transactions; the same play goes on after a failure.
      - An IPv6 address stands for its /64. With C(/128), it stands for itself on hosts that ban its network singly
        (C(packetwatch_shared_prefixes)).
      - Addresses of the fleet's hosts and nodes, those that are protected (C(fleet_node_protect)), and those that a list of the fleet
        allows are refused.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(present) bans the source. If a play has made a ban of the same O(duration), nothing changes. A ban of another duration
        begins anew.
      - V(absent) lifts the bans of all enforcers on the source.
    type: str
    choices: [present, absent]
    default: present
  duration:
    description: Time until the ban expires, as seconds or such as V(10m), V(2h) or V(7d). It is needed with O(state=present).
    type: str
  hold:
    description: With O(state=absent), time for which no enforcer bans the source again.
    type: str
    default: 10m
  reason:
    description: Reason of the ban. The store keeps up to 200 characters of it.
    type: str
    default: ""
  never:
    description: Path of the addresses that nobody bans, on the node. The role C(packetwatch.xdp.fleet_node) writes this file.
    type: path
    default: /etc/packetwatch-fleet-node/never
seealso:
  - module: packetwatch.xdp.ban
  - module: packetwatch.xdp.fleet_info
"""

EXAMPLES = r"""
- name: Ban a source everywhere for a day
  packetwatch.xdp.fleet_ban:
    address: 203.0.113.9
    duration: 1d
    reason: ticket 4711
    password: "{{ lookup('ansible.builtin.file', fleet_node_secrets ~ '/users/api/password') }}"
  run_once: true
  delegate_to: "{{ groups['packetwatch_fleet_nodes'] | first }}"

- name: Lift the fleet's bans of two sources
  packetwatch.xdp.fleet_ban:
    address: [203.0.113.9, 2001:db8:0:1::7]
    state: absent
    password: "{{ lookup('ansible.builtin.file', fleet_node_secrets ~ '/users/api/password') }}"
  run_once: true
  delegate_to: "{{ groups['packetwatch_fleet_nodes'] | first }}"
"""

RETURN = r"""
sources:
  description: The sources that the addresses stand for.
  returned: success
  type: list
  elements: str
  sample: [203.0.113.9, 2001:db8:0:1::/64]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.duration import parse_duration
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import InvalidInput
from ansible_collections.packetwatch.xdp.plugins.module_utils._node import decisions
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.never import (
    ALWAYS,
    Never,
    read_always,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._store import STORE, run_on_store

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._node.gateway import Gateway


def apply(module: AnsibleModule, gateway: Gateway) -> Result:
    """Ban the addresses, or lift their bans."""
    params, check = module.params, module.check_mode
    addresses = params["address"]
    if not addresses:
        raise InvalidInput("address is an empty list: write at least one address")
    if params["state"] == "absent":
        hold = parse_duration(params["hold"], "hold", 0, decisions.MAX_DURATION)
        changed = decisions.lift(gateway, addresses, hold, check)
    else:
        seconds = parse_duration(params["duration"], "duration", 1, decisions.MAX_DURATION)
        never = Never(read_always(params["never"]))
        changed = decisions.ban(gateway, addresses, seconds, params["reason"], check, never)
    return {
        "changed": changed.is_change,
        "sources": changed.sources,
        "diff": {"before": changed.before, "after": changed.after},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "duration": {"type": "str"},
            "hold": {"type": "str", "default": "10m"},
            "reason": {"type": "str", "default": ""},
            "never": {"type": "path", "default": ALWAYS},
            **STORE,
        },
        required_if=[("state", "present", ["duration"])],
        supports_check_mode=True,
    )
    run_on_store(module, lambda gateway: apply(module, gateway))


if __name__ == "__main__":
    main()
