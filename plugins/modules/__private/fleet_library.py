#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_library
short_description: Install the programs of a fleet's node
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.fleet_node#role); it may change or vanish in any release.
  - Unpacks the Python packages of the enforcers and of the API, and those that both use, into a folder named by version and digest
    below C(/usr/lib/packetwatch-fleet-node). The folder becomes C(current) by a rename. The previous folder is kept, older ones are
    removed.
  - The action plugin sends the archive only if the node lacks the version.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.action
options:
  name:
    description: The name of the folder. Set by the action plugin.
    type: str
    required: true
  manifest:
    description: Path and SHA-256 of each file. Set by the action plugin.
    type: dict
    required: true
  archive:
    description: Path of the archive on the node. Set by the action plugin.
    type: path
"""

EXAMPLES = r"""
- name: Install the programs of the node
  packetwatch.xdp.__private.fleet_library:
"""

RETURN = r"""
lacks:
  description: C(archive), which must be sent first. Nothing was changed then.
  returned: when the node lacks it
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.places import NODE_LIBRARY
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.versions import Versions

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run


def install(module: AnsibleModule, run: Run) -> Result:
    """Make the version the current one, or say that its archive is needed."""
    name, manifest, archive = (module.params[one] for one in ("name", "manifest", "archive"))
    versions = Versions(NODE_LIBRARY)
    previous = versions.current
    is_damaged = versions.is_damaged(name, manifest)
    if not is_damaged and previous == name:
        return {"changed": False}
    diff = {"before": f"{previous}\n" if previous else "", "after": f"{name}\n"}
    if module.check_mode:
        return {"changed": True, "diff": diff}
    if is_damaged and archive is None:
        return {"changed": False, "lacks": ["archive"]}
    # The services, which are not root, must be able to read the files, whatever root's own umask is.
    os.umask(0o022)
    if is_damaged:
        versions.unpack(run, name, manifest, archive)
    if previous != name:
        versions.switch(name)
        versions.prune(name, previous)
    else:
        versions.prune()
    return {"changed": True, "diff": diff}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "manifest": {"type": "dict", "required": True},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    call_library(module, lambda run: install(module, run))


if __name__ == "__main__":
    main()
