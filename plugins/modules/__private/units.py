#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: Enable and start the units that confirmed state needs
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Enables the units that attach the declared interfaces at boot, and disables those of other interfaces.
  - Runs the agent, and restarts it if it runs with other code or other settings.
  - Makes C(/etc/default/packetwatch) a link to the settings of confirmed state, if that state has settings.
  - Does nothing on a host without the role's units.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.host
options:
  restart:
    description: Whether to restart the agent if it runs, whatever it runs with.
    type: bool
    default: false
  planned:
    description: What a change would declare that check mode has planned. By default, what confirmed state declares.
    type: dict
    suboptions:
      interfaces:
        description: Names of the declared interfaces.
        type: list
        elements: str
        required: true
      settings:
        description: Text of the settings.
        type: str
        required: true
      installs:
        description: Whether the role's units would be installed first.
        type: bool
        default: false
"""

EXAMPLES = r"""
- name: Enable and start units
  packetwatch.xdp.__private.units:
"""

RETURN = r"""#"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.units import forecast, settle


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "restart": {"type": "bool", "default": False},
            "planned": {
                "type": "dict",
                "options": {
                    "interfaces": {"type": "list", "elements": "str", "required": True},
                    "settings": {"type": "str", "required": True},
                    "installs": {"type": "bool", "default": False},
                },
            },
        },
        supports_check_mode=True,
    )
    restart, planned = module.params["restart"], module.params["planned"]
    call_library(
        module,
        lambda run: forecast(run, restart, planned) if module.check_mode else settle(run, restart),
    )


if __name__ == "__main__":
    main()
