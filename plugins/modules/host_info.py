#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Return what the XDP filter on a host does now
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Reads the attached programs, counters and bans from the kernel, and the declared state from the host's files.
  - If something cannot be read, the task fails. It never returns an empty answer instead.
extends_documentation_fragment:
  - packetwatch.xdp._attributes.info
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
options:
  gather_subset:
    description:
      - What to return. Each subset is a return value of the same name.
      - With V(bans), entries of the kernel's tables that are not bans are left out, with a warning.
      - V(bans) and V(protected) can be long. V(entries) and V(ranges) are as long as the lists, some 40 MB for a million
        IPv6 addresses.
      - V(all) stands for all subsets.
    type: list
    elements: str
    choices: [all, bans, change, counters, entries, feeds, interfaces, lists, panic, policy, protected, ranges, version]
    default: [change, counters, interfaces, lists, panic, policy]
seealso:
  - module: packetwatch.xdp.access_lists
  - module: packetwatch.xdp.ban
  - module: packetwatch.xdp.policy
  - module: packetwatch.xdp.program
"""

EXAMPLES = r"""
- name: Read the state of the filter
  packetwatch.xdp.host_info:
  register: filter

- name: Make sure that it is attached to the uplink
  ansible.builtin.assert:
    that: filter.interfaces.eth0.mode in ['native', 'generic']
    fail_msg: eth0 is not filtered

- name: Get the bans
  packetwatch.xdp.host_info:
    gather_subset:
      - bans
  register: now

- name: Show the sources that scanned us
  ansible.builtin.debug:
    msg: "{{ now.bans | selectattr('origin', 'equalto', 'scan') | map(attribute='source') }}"
"""

RETURN = r"""
interfaces:
  description: Interfaces to which the program is attached, or declared to be attached, by name.
  returned: if O(gather_subset) has it
  type: dict
  contains:
    wanted:
      description: The declared mode. V(none) if the program is attached, but not declared.
      type: str
    mode:
      description:
        - How the program is attached, V(native) or V(generic). V(none) if it is not attached.
        - V(dispatcher:PRIORITY:ACTIONS) if it is a member of a dispatcher.
      type: str
    program_id:
      description: The kernel's number of the program.
      type: int
    verified_instructions:
      description: Number of instructions that the kernel's verifier processed to load the program. The kernel allows 1,000,000.
      type: int
    chain:
      description:
        - The XDP programs that a packet meets, in this order. Empty if there is none.
        - Each has C(kind) (V(packetwatch), V(next), or V(other) for a program that keeps us from attaching), C(id), C(name) and
          C(tag) as in C(bpftool prog). A packet goes on to the following program with the verdicts of C(passes_on). C(origin) is the
          pin of a next program, or V(next_src).
        - C(problem) says why a declared program does not run, and is empty otherwise. C(strays) says whether an apply repairs that.
      type: list
      elements: dict
  sample:
    eth0:
      wanted: auto
      mode: native
      program_id: 42
      verified_instructions: 224250
      chain:
        - {kind: packetwatch, id: 42, name: packetwatch, tag: 7937539f9cc8fd36, passes_on: [pass], origin: "", problem: "", strays: false}
lists:
  description: The lists, and the tables that were compiled from them.
  returned: if O(gather_subset) has it
  type: dict
  contains:
    live:
      description: Whether a program reads the tables.
      type: bool
    digest:
      description: Digest of the lists from which the tables in the kernel were compiled.
      type: str
    allow:
      description: Number of entries that are declared as allowed, by name of the list.
      type: dict
    deny:
      description: The same for denied entries.
      type: dict
    current:
      description: Whether the tables in the kernel are those of the lists that are declared now.
      type: bool
    declared:
      description: Digest of the declared lists, by name of the pair. The same entries have the same digest on every host.
      type: dict
  sample:
    live: true
    digest: 0c8a4d2ab1f0e4d5
    current: true
    declared: {"ansible": "5f1d7a84db00d2fc"}
    allow: {"ansible": 3}
    deny: {"ansible": 200, "feed-example": 10000}
change:
  description: The confirmed state, and the last change if it had to be confirmed.
  returned: if O(gather_subset) has it
  type: dict
  contains:
    number:
      description: Number of the confirmed state. V(0) if nothing was ever confirmed.
      type: int
    confirmed_at:
      description: When that state was confirmed. V(none) if nothing was ever confirmed.
      type: str
    took_back:
      description: If that state is a rollback by M(packetwatch.xdp.rollback), the number of the state that was undone, else V(none).
      type: int
    program:
      description: Digest of the source of the declared program. Empty if none is declared.
      type: str
    status:
      description:
        - What became of the last change, V(pending), V(confirmed) or V(rolled_back).
        - V(none) if no change had to be confirmed since the host was booted, or if one that was confirmed at once has followed.
      type: str
    owner:
      description: Who made that change.
      type: str
    remaining:
      description: Seconds until the host reverts a pending change, else V(none).
      type: float
    ended_at:
      description: When it was confirmed or reverted. V(none) if it is pending.
      type: str
  sample:
    number: 12
    confirmed_at: "2026-11-26T09:59:12Z"
    took_back: null
    program: 3b0c44298fc1c149
    status: confirmed
    owner: packetwatch.xdp.access_lists (user admin)
    remaining: null
    ended_at: "2026-11-26T09:59:12Z"
feeds:
  description: How old the copies of feeds are, by the names of the feeds. A copy of unknown age is left out.
  returned: if O(gather_subset) has it
  type: dict
  contains:
    age:
      description: Seconds since the publisher last served this copy.
      type: float
    fetched_at:
      description: When that was.
      type: str
    published_at:
      description: When it was published, by its publisher. V(none) if unknown.
      type: str
    expires_at:
      description: When the host removes it, unless a run renews it. V(none) without C(expire_after).
      type: str
  sample: {"example": {"age": 3600, "fetched_at": "2026-11-26T09:59:12Z", "published_at": null, "expires_at": null}}
panic:
  description:
    - Who let everything pass, and since when, as C(owner) and C(since). See M(packetwatch.xdp.panic).
    - V(none) if the host filters.
  returned: if O(gather_subset) has it
  type: dict
version:
  description: The software that the role has installed, as C(VERSION-DIGEST). Empty if none is installed.
  returned: if O(gather_subset) has it
  type: str
  sample: 1.0.0-rc.1-2c26b46b68ff
policy:
  description:
    - The complete policies, by interface. The key C(default) has the policy of all other interfaces.
    - Keys are the options of M(packetwatch.xdp.policy).
  returned: if O(gather_subset) has it
  type: dict
counters:
  description: Counters of the program since it was loaded, summed over all interfaces.
  returned: if O(gather_subset) has it
  type: dict
bans:
  description: Bans that have not expired.
  returned: if O(gather_subset) has it
  type: list
  elements: dict
  contains:
    source:
      description: The banned address or IPv6 /64.
      type: str
    origin:
      description: What made the ban, V(scan), V(manual) or V(fleet).
      type: str
    remaining:
      description: Seconds until it expires. V(none) if it holds until it is lifted.
      type: float
    ports:
      description: Number of distinct ports that led to it. A port counts once for each address of the host.
      type: int
    dropped:
      description: Number of packets that it has dropped.
      type: int
protected:
  description: Sources that are never banned, with the reason, by address or prefix.
  returned: if O(gather_subset) has it
  type: dict
  sample: {"192.0.2.1": "own address", "192.0.2.254": "gateway"}
entries:
  description:
    - All declared entries, V(allow) and V(deny), by name of the list.
    - The text of the list's file, one entry a line, with its expiry and its comment. It is text because Ansible would need minutes
      for a million values.
  returned: if O(gather_subset) has it
  type: dict
  sample: {"allow": {}, "deny": {"ansible": "198.51.100.0/24 # scanners\n"}}
ranges:
  description:
    - The ranges that the tables in the kernel allow and deny.
    - A text for V(allow) and one for V(deny), with a line for each range. A line has an address, or the first and the last address
      with a hyphen between them. IPv4 comes first, and addresses ascend.
    - Allowed addresses are not part of the denied ranges.
  returned: if O(gather_subset) has it
  type: dict
  sample: {"allow": "198.51.100.7\n", "deny": "198.51.100.0-198.51.100.6\n198.51.100.8-198.51.100.255\n"}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import run_module

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host

ALL = "all"
DEFAULT = ["change", "counters", "interfaces", "lists", "panic", "policy"]
SUBSETS = [
    "bans",
    "change",
    "counters",
    "entries",
    "feeds",
    "interfaces",
    "lists",
    "panic",
    "policy",
    "protected",
    "ranges",
    "version",
]


def gather(module: AnsibleModule, host: Host) -> Result:
    """Return the wanted subsets."""
    subsets = set(module.params["gather_subset"])
    if ALL in subsets:
        subsets = set(SUBSETS)
    if "bans" in subsets:
        for text in host.damaged_bans():
            module.warn(text)
    return {"changed": False} | host.info(subsets)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "gather_subset": {
                "type": "list",
                "elements": "str",
                "choices": [ALL, *SUBSETS],
                "default": DEFAULT,
            },
        },
        supports_check_mode=True,
    )
    run_module(module, lambda host: gather(module, host))


if __name__ == "__main__":
    main()
