#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: remove
short_description: Remove everything of Packetwatch from a host
version_added: 1.0.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Detaches the program, and removes lists, policies, bans, files, units, users and groups, whatever part of them is there.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.host
"""

EXAMPLES = r"""
- name: Remove everything
  packetwatch.xdp.__private.remove:
"""

RETURN = r"""#"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._front import call_library
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.removal import remove


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    call_library(module, lambda run: remove(run, module.check_mode))


if __name__ == "__main__":
    main()
