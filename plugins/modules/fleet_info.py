#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_info
short_description: Show the hosts, nodes and bans of a fleet
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Reads the store of a fleet, and changes nothing.
  - The module runs on a node of the fleet. One node is enough.
extends_documentation_fragment:
  - packetwatch.xdp._attributes.info
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._fleet
  - packetwatch.xdp._fleet.access
options:
  gather_subset:
    description: What to return.
    type: list
    elements: str
    choices: [all, hosts, nodes, bans]
    default: [all]
seealso:
  - module: packetwatch.xdp.fleet_ban
  - module: packetwatch.xdp.host_info
"""

EXAMPLES = r"""
- name: Ask for the fleet's hosts
  packetwatch.xdp.fleet_info:
    gather_subset: [hosts]
    password: "{{ lookup('ansible.builtin.file', fleet_node_secrets ~ '/users/api/password') }}"
  run_once: true
  delegate_to: "{{ groups['packetwatch_fleet_nodes'] | first }}"
  register: fleet

- name: Refuse to go on if a host has not got all decisions
  ansible.builtin.assert:
    that: fleet.hosts.values() | rejectattr('current') | length == 0
"""

RETURN = r"""
revision:
  description: The store's revision of the newest ban or lift.
  returned: success
  type: int
hosts:
  description: The last report of each host, by its name in the store. Hosts write them, so they may be wrong.
  returned: if asked for
  type: dict
  contains:
    age:
      description: Seconds since the report. A host reports every 30 seconds.
      type: float
    version:
      description: The version of Packetwatch.
      type: str
    applied:
      description: The store's revision that the host has applied.
      type: int
    current:
      description: Whether the host has applied all decisions.
      type: bool
    bans:
      description: Number of the fleet's bans in the host's kernel.
      type: int
    missing:
      description: Number of the fleet's bans that are not in the host's kernel, for example because they are refused there.
      type: int
    refused:
      description: Number of bans that the host has refused since its last comparison, by reason.
      type: dict
nodes:
  description: The names of the store's nodes.
  returned: if asked for
  type: list
  elements: str
store:
  description: The health of the node on which the module runs.
  returned: if O(gather_subset) has V(nodes)
  type: dict
  contains:
    version:
      description: The version of etcd.
      type: str
    bytes:
      description: Size of the store on disk.
      type: int
    has_leader:
      description: Whether the nodes have a leader. Without one, nothing can be written.
      type: bool
    problems:
      description: What is wrong, such as an alarm. Empty if nothing is.
      type: list
      elements: str
bans:
  description: The bans in force, sorted by source.
  returned: if asked for
  type: list
  elements: dict
  contains:
    source:
      description: The banned address or IPv6 /64.
      type: str
    until:
      description: When the ban expires, in seconds since 1970, by the clock of the nodes.
      type: float
    made:
      description: When it was made.
      type: float
    enforcer:
      description: Who has decided it. V(api) stands for people and plays.
      type: str
    rule:
      description: The enforcer's rule.
      type: str
    evidence:
      description: What the ban is based on, V(syn), V(answer) or V(manual).
      type: str
    hosts:
      description: Number of hosts that have seen the source.
      type: int
    reason:
      description: The reason that was given. Empty if none was.
      type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.overview import SUBSETS, gather
from ansible_collections.packetwatch.xdp.plugins.module_utils._store import STORE, run_on_store

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._node.gateway import Gateway


def read(module: AnsibleModule, gateway: Gateway) -> Result:
    """The parts that are wanted."""
    wanted = set(module.params["gather_subset"])
    subsets = set(SUBSETS) if "all" in wanted else wanted
    return {"changed": False} | gather(gateway, subsets)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "gather_subset": {
                "type": "list",
                "elements": "str",
                "choices": ["all", *SUBSETS],
                "default": ["all"],
            },
            **STORE,
        },
        supports_check_mode=True,
    )
    run_on_store(module, lambda gateway: read(module, gateway))


if __name__ == "__main__":
    main()
