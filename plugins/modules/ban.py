#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ban
short_description: Ban a source for a while, or lift its bans
version_added: 0.1.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Bans a source at run time, or lifts all bans that hit it, whoever made them.
  - A ban is not declared. It ends by itself, and allow lists beat it. To keep a source out for good use
    M(packetwatch.xdp.access_lists).
  - The program must be attached to at least one interface.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
options:
  address:
    description:
      - The address of the source.
      - An IPv6 address stands for its /64, unless that network holds the host itself or somebody who is never banned.
    type: str
    required: true
  state:
    description:
      - V(present) bans the source. As long as a ban of the same O(duration) is in force, nothing changes. A ban of another
        duration begins anew.
      - V(absent) lifts all bans that hit the source.
    type: str
    choices: [present, absent]
    default: present
  duration:
    description:
      - For how many seconds the source is banned.
      - If omitted, it is banned until the ban is lifted.
    type: float
  reason:
    description: Why. Ansible writes it into the host's system log, as all options of a task.
    type: str
    default: ""
seealso:
  - module: packetwatch.xdp.access_lists
  - module: packetwatch.xdp.host_info
"""

EXAMPLES = r"""
- name: Keep a source out for a day
  packetwatch.xdp.ban:
    address: 203.0.113.9
    duration: 86400
    reason: ticket 4711

- name: Let it in again
  packetwatch.xdp.ban:
    address: 203.0.113.9
    state: absent
"""

RETURN = r"""
source:
  description: What is banned, or no longer is.
  returned: success
  type: str
  sample: 2001:db8:0:1::/64
lifted:
  description: The bans that were lifted, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: The banned address or IPv6 /64.
      type: str
    origin:
      description: What made the ban, V(scan), V(manual) or V(fleet).
      type: str
    evidence:
      description: What it rested on. V(syn) is a SYN, which proves nothing about its sender.
      type: str
    by:
      description: Who made it, as the host's journal has it. Empty if it does not tell.
      type: str
    reason:
      description: Why, as the host's journal has it. Empty if it does not tell.
      type: str
    since:
      description: When it was made, in seconds since 1970. V(none) if before the host was booted.
      type: float
    until:
      description: When it would have ended, V(none) if never.
      type: float
    ports:
      description: Number of distinct ports that led to it.
      type: int
    dropped:
      description: Number of packets that it has dropped.
      type: int
    interface:
      description: Where the packets came in that led to it. Empty if none did.
      type: str
    short:
      description: Whether it was a short one, made while too many were.
      type: bool
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import run_module

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host


def apply(module: AnsibleModule, host: Host) -> Result:
    """Ban the address, or lift its bans."""
    params = module.params
    if params["state"] == "absent":
        change = host.unban(params["address"], check=module.check_mode)
    else:
        change = host.ban(params["address"], params["duration"], check=module.check_mode)
    return {
        "changed": change.changed,
        "source": change.source,
        "lifted": change.lifted,
        "diff": {"before": change.before, "after": change.after},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "duration": {"type": "float"},
            "reason": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    run_module(module, lambda host: apply(module, host))


if __name__ == "__main__":
    main()
