#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: panic
short_description: Let everything pass until that is lifted
version_added: 0.1.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Takes the filter off all interfaces at once, and keeps it off, also over a reboot, until it is lifted.
  - Waits for nobody. Nothing is compiled, and the agent is not needed. A change that waits to be confirmed is taken back.
  - Lists and policies can still be declared meanwhile. They take effect when the panic is lifted. Attaching is refused.
  - What is loaded stays, with bans and counters, but no packet meets it.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
options:
  state:
    description:
      - With V(present) everything passes. Nothing is confirmed then, and O(confirm_timeout) means nothing.
      - With V(absent) the host filters again what is declared. If no fresh connection comes through to confirm that, everything
        passes again, and the task fails.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: packetwatch.xdp.change
  - module: packetwatch.xdp.policy
  - module: packetwatch.xdp.rollback
"""

EXAMPLES = r"""
# Nobody is kept out any more, neither friend nor foe.
- name: Let everything pass
  packetwatch.xdp.panic:

- name: Filter again
  packetwatch.xdp.panic:
    state: absent
"""

RETURN = r"""
panic:
  description:
    - Who wanted everything to pass, and since when, as C(owner) and C(since). After it was lifted, who had wanted it.
    - V(none) if nobody has, and in check mode if nobody has yet.
  returned: success
  type: dict
  sample: {"owner": "packetwatch.xdp.panic (user admin)", "since": "2026-11-26T09:59:12Z"}
confirmed:
  description: Whether a fresh connection has come through the filter. Always V(true) for a task that has succeeded.
  returned: success, not in check mode, and O(state=absent)
  type: bool
  sample: true
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._health import info
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import (
    CONFIRMATION,
    confirmation,
    read_terms,
    run_module,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host


def switch(module: AnsibleModule, host: Host) -> Result:
    """Let everything pass, or filter again."""
    terms = read_terms(module)
    if module.params["state"] == "present":
        done = host.panic(terms.owner, check=module.check_mode)
        confirmed: Result = {}
    else:
        done = host.lift(check=module.check_mode, terms=terms)
        confirmed = confirmation(module, host, done.pending)
    before, after = "filter as declared\n", "PANIC: let everything pass\n"
    if module.params["state"] == "absent":
        before, after = after, before
    return {
        "changed": done.changed,
        "panic": info.panic(done.panic),
        "diff": {"before": before if done.changed else after, "after": after},
        **confirmed,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            **CONFIRMATION,
        },
        supports_check_mode=True,
    )
    run_module(module, lambda host: switch(module, host))


if __name__ == "__main__":
    main()
