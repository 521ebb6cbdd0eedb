#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check whether Packetwatch can be installed on a host
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Checks everything that the role relies on. If something is wrong, it fails with all reasons at once, each with its
    remedy, before the role has changed anything.
  - The action plugin reads all variables of the role, and finds those that have an unknown name or cannot be evaluated.
  - Updates the lists of C(apt) if they lack a package that is needed, except in check mode and if RV(compiled).
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
  packages:
    description: The packages that are needed besides the kernel's headers.
    type: list
    elements: str
    default: []
  variables:
    description: The variables of the role, without the feeds and without secrets. Set by the action plugin.
    type: dict
    default: {}
  program:
    description: The SHA-256 of the collection's program. Set by the action plugin.
    type: str
    default: ""
  problems:
    description: What the action plugin has found wrong. Set by the action plugin.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Check the host
  packetwatch.xdp.__private.preflight:
    packages: [libbpf1, python3-bpfcc]
"""

RETURN = r"""
interfaces:
  description: The interfaces to attach to, as dictionaries.
  returned: success
  type: list
  elements: dict
packages:
  description: The packages to install. In check mode, and if RV(compiled), without those that the lists of C(apt) do not have.
  returned: success
  type: list
  elements: str
policy:
  description: The policy for all interfaces, as options of M(packetwatch.xdp.policy).
  returned: success
  type: dict
compiled:
  description:
    - Whether the host has the compiled program of this version, and what is needed to load it. RV(packages) then has only
      packages that this run can do without.
  returned: success
  type: bool
heartbeat_interval:
  description: Seconds between two heartbeats.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._preflight.check import check_host
from ansible_collections.packetwatch.xdp.plugins.module_utils._preflight.machine import Machine


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "program": {"type": "str", "default": ""},
            "variables": {"type": "dict", "default": {}},
            "problems": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    call_library(
        module,
        lambda run: check_host(Machine(run), module.params, module.check_mode, module.warn),
    )


if __name__ == "__main__":
    main()
