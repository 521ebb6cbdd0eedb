#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: declare
short_description: Install the software, and make one change of everything that the role declares
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Lists, feeds, policies, interfaces, program and settings are planned together, activated as one generation, and confirmed or
    reverted together. M(packetwatch.xdp.rollback) rolls all of them back.
  - Installs the host library, the agent, the C source, units and the command C(packetwatchctl) when the change is planned and not
    refused, and before anything of it is activated. They are unpacked into a folder named by version and digest, which becomes the
    current one by a rename. The previous folder is kept, older ones are removed.
  - Makes the agent's user and the groups, and sets the members of the groups.
  - The action plugin first asks which files the host lacks, and sends only those.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
options:
  allow:
    description: The allowed sources, as lists by variable.
    type: dict
    default: {}
  deny:
    description: The denied sources, as lists by variable.
    type: dict
    default: {}
  interfaces:
    description: Dictionaries with the C(name) of an interface, its C(mode), its C(next) program, and options of its policy. The action plugin
      replaces C(next_src) by C(next_source), the text of that file. Other interfaces are detached.
    type: list
    elements: dict
    default: []
  policy:
    description: The policy of all interfaces, as options of M(packetwatch.xdp.policy).
    type: dict
    default: {}
  settings:
    description: Variables of C(/etc/default/packetwatch).
    type: dict
    default: {}
  names:
    description: The feeds of this host. Read by the action plugin.
    type: list
    elements: str
    default: []
  copies:
    description: What M(packetwatch.xdp.__private.fetch) has returned, by name. Read by the action plugin.
    type: dict
    default: {}
  feeds:
    description: The feeds of this host with their copies, as in M(packetwatch.xdp.__private.feeds). Set by the action plugin.
    type: list
    elements: dict
    default: []
  now:
    description: The controller's time in Unix seconds, by which ages of copies are counted. Set by the action plugin.
    type: float
  sources:
    description: Files with the copies of feeds that the host lacks, by name. Set by the action plugin.
    type: dict
    default: {}
  force_feeds:
    description: Whether to accept copies of feeds however much they differ.
    type: bool
    default: false
  readers:
    description: The members of the group that may use the reading commands. If omitted, the members do not change.
    type: list
    elements: str
  admins:
    description: The members of the group that may also make changes. If omitted, the members do not change.
    type: list
    elements: str
  program:
    description: SHA-256 of the program's C source. Set by the action plugin.
    type: str
    required: true
  src:
    description: Path of that source on the host. Set by the action plugin.
    type: path
  name:
    description: The name of the folder with the software. Set by the action plugin.
    type: str
    required: true
  manifest:
    description: Path and SHA-256 of each file of the software. Set by the action plugin.
    type: dict
    required: true
  archive:
    description: Path of the software's archive on the host. Set by the action plugin.
    type: path
"""

EXAMPLES = r"""
- name: Declare everything
  packetwatch.xdp.__private.declare:
    deny: {packetwatch_deny: [203.0.113.0/24]}
    interfaces: [{name: eth0}]
"""

RETURN = r"""
lacks:
  description: The files that must be sent first, as C(archive), C(src) and names of feeds as C(feed NAME). Nothing was changed then.
  returned: when the host lacks some
  type: list
  elements: str
interfaces:
  description:
    - The C(mode) of each interface, C(none) if it was detached, and the C(reason) for generic mode with C(auto).
  returned: when the host lacks nothing
  type: dict
  sample: {"eth0": {"mode": "native", "reason": ""}}
feeds:
  description: What became of each feed, as in M(packetwatch.xdp.__private.feeds).
  returned: when the host lacks nothing
  type: dict
software_changed:
  description: Whether files of the software, accounts or members of groups were changed, or would be.
  returned: when the host lacks nothing
  type: bool
units_due:
  description: Whether M(packetwatch.xdp.__private.units) has anything to do once the change is confirmed.
  returned: when the host lacks nothing
  type: bool
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.copies import Ages
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import (
    CONFIRMATION,
    make_change,
    report_feeds,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.install import (
    install,
    plan_install,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.software import describe
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.units import needs, plan_units
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.whole import read_whole

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run


def apply(module: AnsibleModule, run: Run) -> Result:
    """Plan everything; then install the software and make the change, or name the files that are needed."""
    params = module.params
    host = Host(run)
    software = plan_install(params)
    whole, lacks = read_whole(params, host.store.read_current()[1], Ages(host.paths.ages))
    if software.unpack and params["archive"] is None and not module.check_mode:
        lacks = ["archive", *lacks]
    if whole is None or lacks:
        return {"changed": False, "lacks": lacks}
    if not module.check_mode:
        # Before the change, which copies the times for the agent. They are right too if it fails.
        whole.feeds.ages.write()
    plan, result = make_change(
        module,
        host,
        whole.edit,
        wish=whole.wish,
        prepare=lambda: install(run, software, params["archive"]),
    )
    # Everything is declared now, so a bad list can be repaired before the panic is lifted.
    host.refuse_panic()
    feeds = report_feeds(module, whole.feeds, plan)
    after = plan.states[1]
    planned = needs(after, software.changed)
    units = plan_units(
        run,
        after.interfaces,
        after.settings,
        software.changed,
        module.check_mode and software.changed,
    )
    return result | {
        "changed": plan.changed or software.changed,
        "diff": [describe(software)] * software.changed + [result.get("diff")] * plan.changed,
        "interfaces": {
            found.interface: {"mode": found.mode, "reason": found.reason}
            for found in plan.attachments
        },
        "feeds": feeds,
        "software_changed": software.changed,
        "units_due": units.changed,
        **({"planned": planned} if module.check_mode else {}),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "allow": {"type": "dict", "default": {}},
            "deny": {"type": "dict", "default": {}},
            "interfaces": {"type": "list", "elements": "dict", "default": []},
            "policy": {"type": "dict", "default": {}},
            "settings": {"type": "dict", "default": {}},
            "names": {"type": "list", "elements": "str", "default": []},
            "copies": {"type": "dict", "default": {}},
            "feeds": {"type": "list", "elements": "dict", "default": []},
            "now": {"type": "float"},
            "sources": {"type": "dict", "default": {}},
            "force_feeds": {"type": "bool", "default": False},
            "readers": {"type": "list", "elements": "str"},
            "admins": {"type": "list", "elements": "str"},
            "program": {"type": "str", "required": True},
            "src": {"type": "path"},
            "name": {"type": "str", "required": True},
            "manifest": {"type": "dict", "required": True},
            "archive": {"type": "path"},
            **CONFIRMATION,
        },
        supports_check_mode=True,
    )
    call_library(module, lambda run: apply(module, run))


if __name__ == "__main__":
    main()
