#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_preflight
short_description: Check what the inventory says of a node
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.fleet_node#role); it may change or vanish in any release.
  - Checks ports of metrics, and the settings of a message broker. It changes nothing.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
attributes:
  diff_mode:
    support: none
options:
  metrics:
    description: C(ADDRESS:PORT) of the metrics of the node's processes, by the name of the setting. Empty is for none.
    type: dict
    required: true
  host:
    description: Variables of the role P(packetwatch.xdp.packetwatch#role), if the node is a host, too.
    type: dict
    default: {}
  external:
    description: The operator's own message broker, without its password.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Check ports and endpoints
  packetwatch.xdp.__private.fleet_preflight:
    metrics:
      fleet_node_bus_metrics_listen: 127.0.0.1:9481
    host:
      packetwatch_metrics_listen: 127.0.0.1:9477
"""

RETURN = r"""#"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.inventory import check_node

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run


def check(module: AnsibleModule, dummy: Run) -> Result:
    """Check; there is nothing to say if all is well."""
    metrics = {name: str(text or "") for name, text in module.params["metrics"].items()}
    check_node(metrics, module.params["host"], module.params["external"])
    return {"changed": False}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "metrics": {"type": "dict", "required": True},
            "host": {"type": "dict", "default": {}},
            "external": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    call_library(module, lambda run: check(module, run))


if __name__ == "__main__":
    main()
