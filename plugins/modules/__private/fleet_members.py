#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_members
short_description: Add a node to a fleet's store, or remove it
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.fleet_node#role); it may change or vanish in any release.
  - Speaks to etcd on this node about another node.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._fleet.access
attributes:
  diff_mode:
    support: none
options:
  url:
    description: Address of the other node for its peers.
    type: str
    required: true
  state:
    description:
      - V(learning) lets the node get all data, without a vote.
      - V(voting) gives it its vote as soon as it has all data. Only the leader can do this; on another node, it does nothing.
      - V(absent) removes it.
    type: str
    choices: [learning, voting, absent]
    required: true
  patience:
    description: For how many seconds to wait until the store agrees.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Let a node learn
  packetwatch.xdp.__private.fleet_members:
    authority: /etc/packetwatch-fleet-node/nodes-ca.pem
    certificate: /etc/packetwatch-fleet-node/etcd.pem
    port: 2379
    password: "{{ root_password }}"
    url: https://192.0.2.12:2380
    state: learning
"""

RETURN = r"""
members:
  description: Names of all members after the change, by their addresses for peers. A name is empty until the member has started once.
  returned: success
  type: dict
  sample:
    https://192.0.2.11:2380: node1
leader:
  description: Name of the member that leads the cluster; empty if none does.
  returned: success
  type: str
  sample: node1
voting:
  description: Whether the node has a vote after the change.
  returned: success
  type: bool
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.accounts import ROOT
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.members import change, leader
from ansible_collections.packetwatch.xdp.plugins.module_utils._store import ACCESS, gateway_of

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["learning", "voting", "absent"],
                "required": True,
            },
            "patience": {"type": "int", "default": 120},
            **ACCESS,
        },
        supports_check_mode=True,
    )
    options = module.params
    url, dry = options["url"], module.check_mode

    def settle(run: Run) -> Result:
        gateway = gateway_of(options, (ROOT, options["password"]))
        changed, present = change(gateway, url, options["state"], options["patience"], dry)
        return {
            "changed": changed,
            "members": {member.url: member.name for member in present},
            "leader": leader(gateway, present),
            "voting": any(member.url == url and not member.learner for member in present),
        }

    call_library(module, settle)


if __name__ == "__main__":
    main()
