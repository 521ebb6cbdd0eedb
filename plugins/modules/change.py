#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: change
short_description: Confirm a change that waits for it, or take it back
version_added: 0.1.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Decides about the change that M(packetwatch.xdp.access_lists), M(packetwatch.xdp.policy) or M(packetwatch.xdp.program) has
    made on the host, and that waits to be confirmed. These do so by themselves. It is only needed for a change that was made by
    other means, or to end one of a controller that is gone.
  - Needs neither the agent nor the role.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
options:
  state:
    description:
      - With V(confirmed) the change stays, and is what boot reads. If the host has returned meanwhile, the task fails and says
        so. Confirming a change twice is no error.
      - With V(rolled_back) the host returns at once to what was in force before the change. If no change waits, nothing happens.
    type: str
    choices: [confirmed, rolled_back]
    required: true
  token:
    description:
      - The change that is meant, by the word that was given to it. Any other one is left alone, and the task fails.
      - If omitted, the change that waits is meant, whoever has made it.
    type: str
    default: ""
seealso:
  - module: packetwatch.xdp.access_lists
  - module: packetwatch.xdp.policy
  - module: packetwatch.xdp.program
"""

EXAMPLES = r"""
# Whoever made the change finds it gone.
- name: Return to what was in force before, now
  packetwatch.xdp.change:
    state: rolled_back

- name: Keep what was changed by hand on the host
  packetwatch.xdp.change:
    state: confirmed
"""

RETURN = r"""
status:
  description:
    - What has become of the change, V(confirmed) or V(rolled_back). V(pending) if somebody else's waits. V(none) if none does
      and nothing is known of an earlier one.
    - In check mode what is now.
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
    """Confirm or take back; a refusal says what has become of the change."""
    if module.check_mode:
        pending = host.pending()
        meant = pending is not None and module.params["token"] in ("", pending.token)
        owner = pending.owner if pending else ""
        return {"changed": meant, "status": "pending" if pending else "none", "owner": owner}
    act = host.confirm if module.params["state"] == "confirmed" else host.roll_back
    try:
        changed, change = act(module.params["token"])
    except Reverted as error:
        module.fail_json(msg=str(error), status="rolled_back")
    except Pending as error:
        module.fail_json(msg=str(error), status="pending")
    except InvalidInput as error:
        module.fail_json(msg=str(error), status="confirmed")
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
