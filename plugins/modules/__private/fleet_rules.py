#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_rules
short_description: Write the rules of a node's enforcers
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.fleet_node#role); it may change or vanish in any release.
  - Checks names, actions and thresholds, and writes a file for each enforcer. In check mode it only checks.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
attributes:
  diff_mode:
    support: none
options:
  enforcers:
    description: Rules by the name of the enforcer.
    type: dict
    required: true
  folder:
    description: The folder of the files, which are named C(enforcer-NAME.json).
    type: path
    required: true
  protect:
    description: Addresses and prefixes that nobody bans, as C(fleet_node_protect). The module only checks them.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Write the rules of the enforcers
  packetwatch.xdp.__private.fleet_rules:
    enforcers:
      enforcer-node1: {quorum: {action: enforce}}
    folder: /etc/packetwatch-fleet-node
"""

RETURN = r"""
removed:
  description: Enforcers that have a file, and are not declared any more. Their files stay.
  returned: success
  type: list
  elements: str
"""

import glob
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.address import parse_prefix
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import InvalidInput
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.files import replace_file
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._node.rules import (
    format_rules,
    parse_enforcers,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result, Run

_START = "enforcer-"
_END = ".json"


def check(protect: t.Iterable[str]) -> None:
    """Raise `InvalidInput` for what is neither an address nor a prefix."""
    for text in protect:
        try:
            parse_prefix(text)
        except InvalidInput as error:
            raise InvalidInput(f"fleet_node_protect: {error}") from None


def write(declared: t.Mapping[str, t.Any], folder: str, dry: bool) -> Result:
    """Write the files that differ."""
    found = parse_enforcers(declared, "fleet_node_enforcers")
    changed = False
    for name, rules in found.items():
        path, text = os.path.join(folder, f"{_START}{name}{_END}"), format_rules(rules)
        if _read(path) != text:
            changed = True
            if not dry:
                replace_file(path, text, 0o644)
    paths = glob.glob(os.path.join(glob.escape(folder), f"{_START}*{_END}"))
    names = [os.path.basename(path)[len(_START) : -len(_END)] for path in paths]
    return {"changed": changed, "removed": sorted({*names} - found.keys())}


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "enforcers": {"type": "dict", "required": True},
            "folder": {"type": "path", "required": True},
            "protect": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params

    def act(dummy: Run) -> Result:
        check(options["protect"])
        return write(options["enforcers"], options["folder"], module.check_mode)

    call_library(module, act)


if __name__ == "__main__":
    main()
