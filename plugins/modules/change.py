#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: change
short_description: Confirm a pending change, or revert it
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Confirms or reverts a pending change of M(packetwatch.xdp.access_lists), M(packetwatch.xdp.policy) or
    M(packetwatch.xdp.program). These modules do so by themselves. Use this module for a change that was made by other means, or
    for one whose controller is gone.
  - Needs neither the agent nor the role.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
options:
  state:
    description:
      - V(confirmed) confirms the change, so that boot reads it. If the host has reverted it already, the task fails and says so.
        It is not an error to confirm a change twice.
      - V(rolled_back) reverts the change at once. If no change is pending, nothing happens.
    type: str
    choices: [confirmed, rolled_back]
    required: true
  token:
    description:
      - The word that was given to the change. If another change is pending, it is left alone and the task fails.
      - If omitted, any pending change is meant, of any owner.
    type: str
    default: ""
seealso:
  - module: packetwatch.xdp.access_lists
  - module: packetwatch.xdp.policy
  - module: packetwatch.xdp.program
"""

EXAMPLES = r"""
# The task that made the change then fails.
- name: Revert the pending change now
  packetwatch.xdp.change:
    state: rolled_back

- name: Confirm a change that was made by hand on the host
  packetwatch.xdp.change:
    state: confirmed
"""

RETURN = r"""
status:
  description:
    - What became of the change, V(confirmed) or V(rolled_back). V(pending) if a change with another token is pending. V(none) if no
      change is pending and no earlier one is known.
    - In check mode V(pending) or V(none), as it is now.
  returned: always
  type: str
  sample: confirmed
owner:
  description: Who made the change. Empty if the status is V(none).
  returned: success
  type: str
  sample: packetwatch.xdp.access_lists (user admin)
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import (
    InvalidInput,
    Pending,
    Reverted,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import run_module

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host


def decide(module: AnsibleModule, host: Host) -> Result:
    """Confirm or revert; a refusal says what became of the change."""
    if module.check_mode:
        pending = host.pending()
        meant = pending is not None and module.params["token"] in ("", pending.token)
        owner = pending.owner if pending else ""
        return {"changed": meant, "status": "pending" if pending else "none", "owner": owner}
    act = host.confirm if module.params["state"] == "confirmed" else host.roll_back
    try:
        changed, change, problems = act(module.params["token"])
    except Reverted as error:
        module.fail_json(msg=str(error), status="rolled_back")
    except Pending as error:
        module.fail_json(msg=str(error), status="pending")
    except InvalidInput as error:
        module.fail_json(msg=str(error), status="confirmed")
    for text in problems:
        module.warn(text)
    if change is None:
        return {"changed": changed, "status": "none", "owner": ""}
    return {"changed": changed, "status": change.status, "owner": change.owner}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["confirmed", "rolled_back"], "required": True},
            "token": {"type": "str", "default": "", "no_log": False},
        },
        supports_check_mode=True,
    )
    run_module(module, lambda host: decide(module, host))


if __name__ == "__main__":
    main()
