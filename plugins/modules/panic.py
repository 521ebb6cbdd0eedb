#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: panic
short_description: Let all packets pass until the panic is lifted
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Detaches the filter from all interfaces at once. The panic also holds over a reboot, until it is lifted.
  - It takes effect at once. Nothing is compiled, and the agent is not needed. A pending change is reverted.
  - Lists and policies can still be declared meanwhile. They become active when the panic is lifted. Attaching is refused.
  - The program stays loaded, with bans and counters, but no packet reaches it.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
options:
  state:
    description:
      - With V(present) all packets pass. This is not confirmed, and O(confirm_timeout) has no effect.
      - With V(absent) the host filters again, as declared. If no fresh connection comes through to confirm that, all packets pass
        again, and the task fails.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: packetwatch.xdp.change
  - module: packetwatch.xdp.policy
  - module: packetwatch.xdp.rollback
"""

EXAMPLES = r"""
# Denied and banned sources reach the host too.
- name: Let all packets pass
  packetwatch.xdp.panic:

- name: Filter again
  packetwatch.xdp.panic:
    state: absent
"""

RETURN = r"""
panic:
  description:
    - Who started the panic, and when, as C(owner) and C(since). After it was lifted, who had started it.
    - V(none) if there was no panic, and in check mode if there is none yet.
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
    for text in done.problems:
        module.warn(text)
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
