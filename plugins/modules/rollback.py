#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback
short_description: Roll back to the state that was confirmed before
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Declares and activates lists, feeds, policies, interfaces, program and settings as they were before the last confirmed change.
    This is a change like any other, and it must be confirmed. A run of the role is one change.
  - Goes back one step and no further. A second rollback changes nothing.
  - Interfaces are attached and detached as the earlier state declares them. An interface that does not exist any more is an error.
  - Does not change units. The playbook C(packetwatch.xdp.rollback) also enables the units that the earlier state needs, and
    restarts the agent if its settings differ.
  - The next run of the role declares the state of the inventory again.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
options:
  force:
    description:
      - Whether to deny addresses that the host needs, as in M(packetwatch.xdp.access_lists), if the earlier lists did.
    type: bool
    default: false
seealso:
  - module: packetwatch.xdp.change
    description: Reverts a pending change.
  - module: packetwatch.xdp.panic
"""

EXAMPLES = r"""
- name: Roll back the last change
  packetwatch.xdp.rollback:
"""

RETURN = r"""
counts:
  description: How many entries the lists hold after the change.
  returned: success
  type: dict
  sample: {"allow": 3, "deny": 10200}
live:
  description: Whether a program reads these tables.
  returned: success
  type: bool
  sample: true
digest_before:
  description: As M(packetwatch.xdp.access_lists) returns it.
  returned: success
  type: str
  sample: 5f1d7a84db00d2fc
digest_after:
  description: As M(packetwatch.xdp.access_lists) returns it.
  returned: success
  type: str
  sample: 0c8a4d2ab1f0e4d5
confirmed:
  description:
    - Whether the change is confirmed, so that boot reads it. Always V(true) for a task that has succeeded.
    - Not returned in check mode.
  returned: success
  type: bool
  sample: true
planned:
  description:
    - The interfaces and the settings of the state that would be confirmed, from which the units follow.
    - Returned only in check mode.
  returned: check mode
  type: dict
  sample: {"interfaces": ["eth0"], "settings": "PW_METRICS_LISTEN=\"127.0.0.1:9477\"\n", "installs": false}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.edits import (
    roll_back,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import (
    CONFIRMATION,
    make_change,
    run_module,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._setup.units import needs

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host


def apply(module: AnsibleModule, host: Host) -> Result:
    """Roll back; in check mode, also return what the units would follow."""
    plan, result = make_change(module, host, roll_back(host.store), force=module.params["force"])
    return result | ({"planned": needs(plan.states[1])} if module.check_mode else {})


def main() -> None:
    module = AnsibleModule(
        argument_spec={"force": {"type": "bool", "default": False}, **CONFIRMATION},
        supports_check_mode=True,
    )
    run_module(module, lambda host: apply(module, host))


if __name__ == "__main__":
    main()
