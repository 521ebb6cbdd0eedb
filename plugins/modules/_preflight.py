#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: _preflight
short_description: Check whether Packetwatch can be installed on a host
version_added: 0.1.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Checks everything that the role relies on. If something is wrong, it fails with all reasons at once, each with its
    remedy, before the role has changed anything.
  - The action plugin first refuses variables that the role does not know.
  - Updates the lists of C(apt) if they lack a package that is needed, except in check mode.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.action
attributes:
  diff_mode:
    support: none
options:
  interfaces:
    description: Names of interfaces, or dictionaries with a C(name), a C(mode) and policy options.
    type: list
    elements: raw
  packages:
    description: The packages that are needed besides the kernel's headers.
    type: list
    elements: str
    default: []
  policy:
    description: The policy for all interfaces, as options of M(packetwatch.xdp.policy). Set by the action plugin.
    type: dict
    default: {}
  protect:
    description: The declared protected addresses and prefixes.
    type: list
    elements: str
    default: []
  readers:
    description: The users that may use the reading commands, if they are declared.
    type: list
    elements: str
    default: []
  admins:
    description: The users that may also make changes, if they are declared.
    type: list
    elements: str
    default: []
  list_memory:
    description: The maximum memory of the lists, in MiB.
    type: int
    default: 64
  confirm_timeout:
    description: Seconds for which a change waits to be confirmed.
    type: float
    default: 60
  metrics_listen:
    description: Address and port of the metrics. Empty means none.
    type: str
    default: ""
  heartbeat_url:
    description: Where to send heartbeats. Empty means nowhere.
    type: str
    default: ""
  heartbeat_interval:
    description: Seconds between two heartbeats.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Check the host
  packetwatch.xdp._preflight:
    packages: [libbpf1, python3-bpfcc]
"""

RETURN = r"""
interfaces:
  description: The interfaces to attach to, as dictionaries.
  returned: success
  type: list
  elements: dict
packages:
  description: The packages to install. In check mode without those that the lists of C(apt) do not have.
  returned: success
  type: list
  elements: str
policy:
  description: The policy for all interfaces, as options of M(packetwatch.xdp.policy). Set by the action plugin.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._preflight.check import check_host
from ansible_collections.packetwatch.xdp.plugins.module_utils._preflight.machine import Machine


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "interfaces": {"type": "list", "elements": "raw"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "policy": {"type": "dict", "default": {}},
            "protect": {"type": "list", "elements": "str", "default": []},
            "readers": {"type": "list", "elements": "str", "default": []},
            "admins": {"type": "list", "elements": "str", "default": []},
            "list_memory": {"type": "int", "default": 64},
            "confirm_timeout": {"type": "float", "default": 60},
            "metrics_listen": {"type": "str", "default": ""},
            "heartbeat_url": {"type": "str", "default": ""},
            "heartbeat_interval": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    call_library(
        module,
        lambda run: check_host(Machine(run), module.params, module.check_mode, module.warn),
    )


if __name__ == "__main__":
    main()
