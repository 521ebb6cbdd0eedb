#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_broker
short_description: Write what a fleet's RabbitMQ knows
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.fleet_node#role); it may change or vanish in any release.
  - Writes the accounts, their permissions, the exchanges and the queue as a file that RabbitMQ imports at its start. The file has
    hashes of the passwords.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.host
options:
  path:
    description: The file.
    type: path
    required: true
  group:
    description: The group that may read it.
    type: str
    default: rabbitmq
  bus:
    description: Password of the account that takes commands.
    type: str
    required: true
  hosts:
    description: Passwords of the hosts, by name.
    type: dict
    default: {}
  subscribers:
    description: Passwords of those who read events, by name.
    type: dict
    default: {}
  operators:
    description: Passwords of those who send commands, by name.
    type: dict
    default: {}
  roles:
    description: The role of each operator at the API, by name.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Write what RabbitMQ knows
  packetwatch.xdp.__private.fleet_broker:
    path: /etc/packetwatch-fleet-node/rabbitmq.json
    bus: "{{ bus_password }}"
"""

RETURN = r"""#"""

import json
import os
import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.files import replace_file
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.broker import (
    Passwords,
    definitions,
    verbs_of,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run

_MODE = 0o640


def write(module: AnsibleModule, dummy: Run) -> Result:
    """Write the file if it differs."""
    given = module.params
    operators = {
        name: (str(password), verbs_of(str(given["roles"].get(name, "")), name))
        for name, password in given["operators"].items()
    }
    found = definitions(Passwords(given["bus"], given["hosts"], given["subscribers"], operators))
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    path = given["path"]
    try:
        with open(path, encoding="utf-8") as file:
            is_same = file.read() == text
    except FileNotFoundError:
        is_same = False
    if not is_same and not module.check_mode:
        replace_file(path, text, _MODE)
        shutil.chown(path, "root", given["group"])
        os.chmod(path, _MODE)
    return {"changed": not is_same}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "group": {"type": "str", "default": "rabbitmq"},
            "bus": {"type": "str", "required": True, "no_log": True},
            "hosts": {"type": "dict", "default": {}, "no_log": True},
            "subscribers": {"type": "dict", "default": {}, "no_log": True},
            "operators": {"type": "dict", "default": {}, "no_log": True},
            "roles": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    call_library(module, lambda run: write(module, run))


if __name__ == "__main__":
    main()
