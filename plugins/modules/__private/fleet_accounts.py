#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_accounts
short_description: Make the accounts of a fleet's store equal to those declared
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.fleet_node#role); it may change or vanish in any release.
  - Adds, changes and deletes users and roles of etcd on this node, and lets it refuse requests without a token.
  - Deletes the reports of hosts and enforcers that have no account any more.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._fleet.access
attributes:
  diff_mode:
    support: none
options:
  hosts:
    description: Password of each host, by the host's name.
    type: dict
    required: true
  services:
    description: Password of each other user, by its name.
    type: dict
    required: true
  writes:
    description: Keys that each of the other users may write, by the user's name. A key that ends with a slash stands for all below it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Settle the accounts
  packetwatch.xdp.__private.fleet_accounts:
    authority: /etc/packetwatch-fleet-node/nodes-ca.pem
    certificate: /etc/packetwatch-fleet-node/etcd.pem
    port: 2379
    password: "{{ root_password }}"
    hosts:
      web1: "{{ web1_password }}"
    services: {}
    writes: {}
"""

RETURN = r"""
changes:
  description: What changed, without secrets.
  returned: success
  type: list
  elements: str
  sample: [user web1 added]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.accounts import (
    Accounts,
    host_account,
    service_account,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._store import ACCESS, gateway_of

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "dict", "required": True, "no_log": True},
            "services": {"type": "dict", "required": True, "no_log": True},
            "writes": {"type": "dict", "required": True},
            **ACCESS,
        },
        supports_check_mode=True,
    )
    options = module.params
    accounts = [host_account(name, password) for name, password in options["hosts"].items()]
    accounts += [
        service_account(name, password, options["writes"][name])
        for name, password in options["services"].items()
    ]

    def settle(run: Run) -> Result:
        stored = Accounts(
            lambda user: gateway_of(options, user), options["password"], dry=module.check_mode
        )
        changes = stored.settle(accounts, forget=True)
        return {"changed": bool(changes), "changes": changes}

    call_library(module, settle)


if __name__ == "__main__":
    main()
