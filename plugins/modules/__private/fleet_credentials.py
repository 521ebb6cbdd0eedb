#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_credentials
short_description: Make the certificates and passwords of a fleet on the controller
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.fleet_node#role); it may change or vanish in any release.
  - Makes what is missing, renews certificates that end soon or have other names, and removes what no member has any more.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
attributes:
  diff_mode:
    support: none
options:
  folder:
    description: Folder of the fleet's secrets. Only the user of the controller can read it.
    type: path
    required: true
  nodes:
    description: Address of each node's gate, by the node's name.
    type: dict
    required: true
  hosts:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  users:
    description: Names of further users of the store.
    type: list
    elements: str
    required: true
  tokens:
    description: Names of tokens for the API.
    type: list
    elements: str
    default: []
  authority:
    description: Paths of the C(certificate) and the C(key) of an authority that signs the hosts' and the gates' certificates. By
      default, one is made.
    type: dict
    suboptions:
      certificate:
        description: Path of the certificate.
        type: path
        required: true
      key:
        description: Path of the key, which has no passphrase.
        type: path
        required: true
  days:
    description: How many days certificates are valid.
    type: int
    default: 365
  renew:
    description: How many days before its end a certificate is renewed.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Make certificates and passwords
  packetwatch.xdp.__private.fleet_credentials:
    folder: fleet
    nodes:
      node1: 192.0.2.11
    hosts: [web1]
    users: [root]
  delegate_to: localhost
"""

RETURN = r"""
changes:
  description: Changed files, relative to the folder.
  returned: success
  type: list
  elements: str
  sample: [hosts/web1/host.pem]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.authority import Node, Vault

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "nodes": {"type": "dict", "required": True},
            "hosts": {"type": "list", "elements": "str", "required": True},
            "users": {"type": "list", "elements": "str", "required": True},
            "tokens": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "authority": {
                "type": "dict",
                "options": {
                    "certificate": {"type": "path", "required": True},
                    "key": {"type": "path", "required": True, "no_log": False},
                },
            },
            "days": {"type": "int", "default": 365},
            "renew": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    own = options["authority"]
    nodes = [Node(name, str(address)) for name, address in options["nodes"].items()]

    def provide(run: Run) -> Result:
        vault = Vault(
            run,
            options["folder"],
            days=options["days"],
            renew=options["renew"],
            own=(own["certificate"], own["key"]) if own else None,
            dry=module.check_mode,
        )
        changes = vault.provide(nodes, options["hosts"], options["users"], options["tokens"])
        return {"changed": bool(changes), "changes": changes}

    call_library(module, provide)


if __name__ == "__main__":
    main()
