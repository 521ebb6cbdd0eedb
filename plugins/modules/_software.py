#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: _software
short_description: Install or remove Packetwatch's own files
version_added: 0.1.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Unpacks the host library, the agent, the C source, units and the command C(packetwatchctl) into a folder named by version and
    digest, and makes it the current one by a rename. The previous folder is kept, older ones are removed.
  - Makes the agent's user and the groups, and sets the members of the groups.
  - With O(state=absent) it removes everything of Packetwatch from the host, whatever part of it is there. It also detaches the
    program, and removes lists, policies and bans.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.action
options:
  state:
    description: Whether the files are installed or removed.
    type: str
    choices: [absent, present]
    default: present
  readers:
    description: The members of the group that may use the reading commands. If omitted, the members do not change.
    type: list
    elements: str
  admins:
    description: The members of the group that may also make changes. If omitted, the members do not change.
    type: list
    elements: str
  name:
    description: The folder's name. Set by the action plugin.
    type: str
  manifest:
    description: Path and SHA-256 of each file. Set by the action plugin.
    type: dict
  archive:
    description: Path of the archive on the host. Set by the action plugin.
    type: path
"""

EXAMPLES = r"""
- name: Install the software
  packetwatch.xdp._software:
    state: present
"""

RETURN = r"""
name:
  description: The folder that is current now.
  returned: success and O(state=present)
  type: str
  sample: 0.1.0-2c26b46b68ff
previous:
  description: The folder that was current before; empty if there was none.
  returned: success and O(state=present)
  type: str
lacks_archive:
  description: Whether the archive must be sent first. Nothing was done then.
  returned: success and O(state=present)
  type: bool
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.install import install
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.removal import remove

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run


def apply(module: AnsibleModule, run: Run) -> Result:
    """Install the version, or remove everything."""
    if module.params["state"] == "absent":
        return remove(run, module.check_mode)
    return install(run, module.params, module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["absent", "present"], "default": "present"},
            "readers": {"type": "list", "elements": "str"},
            "admins": {"type": "list", "elements": "str"},
            "name": {"type": "str"},
            "manifest": {"type": "dict"},
            "archive": {"type": "path"},
        },
        required_if=[("state", "present", ("name", "manifest"))],
        supports_check_mode=True,
    )
    call_library(module, lambda run: apply(module, run))


if __name__ == "__main__":
    main()
