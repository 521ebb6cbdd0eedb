#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_services
short_description: Start and restart the services of a fleet's node
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.fleet_node#role); it may change or vanish in any release.
  - Starts services that do not run, and restarts those that run with other files than are there now.
  - A node is not restarted while another one does not answer.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
attributes:
  diff_mode:
    support: none
options:
  services:
    description: The services, in the order in which they start.
    type: list
    elements: dict
    required: true
    suboptions:
      unit:
        description: Name of the unit.
        type: str
        required: true
      files:
        description: Paths of files that the service reads only when it starts.
        type: list
        elements: path
        required: true
      declared:
        description: Path of the file with the digest of these files.
        type: path
        required: true
      running:
        description: Path to which the unit copies the digest when it starts.
        type: path
        required: true
  wait:
    description: Whether to restart what is due, and to wait until this node answers. Otherwise services are only started.
    type: bool
    default: true
  patience:
    description: For how many seconds to wait.
    type: int
    default: 120
  authority:
    description: Path of the certificate of the authority that the gates' certificates are checked with.
    type: path
    required: true
  certificate:
    description: Path of the certificate of this node's gate, with its key.
    type: path
    required: true
  node:
    description: Name of this node.
    type: str
    required: true
  gates:
    description: Addresses of all nodes, by name.
    type: dict
    required: true
  port:
    description: Port of all gates.
    type: int
    required: true
  password:
    description: Password of root in the store.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Restart what is due
  packetwatch.xdp.__private.fleet_services:
    services:
      - unit: packetwatch-fleet-gate.service
        files: [/etc/packetwatch-fleet-node/gate.conf]
        declared: /etc/packetwatch-fleet-node/gate.digest
        running: /run/packetwatch-fleet-gate/digest
    authority: /etc/packetwatch-fleet-node/hosts-ca.pem
    certificate: /etc/packetwatch-fleet-node/gate.pem
    node: node1
    gates:
      node1: 192.0.2.11
    port: 2378
    password: "{{ root_password }}"
"""

RETURN = r"""
changes:
  description: What changed, without secrets.
  returned: success
  type: list
  elements: str
  sample: [packetwatch-fleet-gate.service started]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.accounts import ROOT
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.gateway import Gateway, Identity
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.services import (
    Service,
    Services,
    update,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "services": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "unit": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "path", "required": True},
                    "declared": {"type": "path", "required": True},
                    "running": {"type": "path", "required": True},
                },
            },
            "wait": {"type": "bool", "default": True},
            "patience": {"type": "int", "default": 120},
            "authority": {"type": "path", "required": True},
            "certificate": {"type": "path", "required": True},
            "node": {"type": "str", "required": True},
            "gates": {"type": "dict", "required": True},
            "port": {"type": "int", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    options, dry = module.params, module.check_mode

    def settle(run: Run) -> Result:
        services = Services(run, [Service(**row) for row in options["services"]], dry=dry)
        changes = services.start()
        if options["wait"]:
            identity = Identity(options["authority"], options["certificate"])
            user = (ROOT, options["password"])
            gates = {
                name: Gateway((address, options["port"]), identity, user, name=name, timeout=5.0)
                for name, address in options["gates"].items()
            }
            own = gates.pop(options["node"])
            changes += update(services, own, gates, options["patience"], dry)
        return {"changed": bool(changes), "changes": changes}

    call_library(module, settle)


if __name__ == "__main__":
    main()
