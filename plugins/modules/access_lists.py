#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: access_lists
short_description: Declare sources whose packets always pass and sources whose packets are dropped
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Sets one named pair of lists, of allowed and of denied sources. The program uses the union of all pairs on the host.
  - Both lists of the pair become active together, however long they are.
  - Packets of a source that any list allows are never dropped. Packets of a source that is denied, and not allowed, always are.
  - The module replaces the pair as a whole. Entries that are not given again are removed. Pairs of other names, and bans, are not
    touched.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
options:
  name:
    description:
      - Name of the pair, made of the characters a-z, 0-9, V(_) and V(-).
      - The role writes V(ansible), the command line tool V(local).
      - Names that begin with V(feed-) are for published lists. Entries of such a pair that match a protected address, or a network
        that the host is connected to, are left out. If such a pair is damaged when the host boots, it is left out as a whole. The
        role removes those of these pairs that its variable C(packetwatch_feeds) does not name.
    type: str
    default: ansible
  state:
    description:
      - V(present) sets the lists that are given. If only one list is given, the other one does not change.
      - V(absent) removes the pair.
    type: str
    choices: [present, absent]
    default: present
  allow:
    description:
      - List of IPv4 and IPv6 sources that are always allowed. An entry is an address, a prefix, or a dictionary.
      - A dictionary has the key C(address), and may have C(comment), C(expires) (a time with zone in quotes, such as
        V(2026-12-01T00:00:00Z)), and C(state). C(state=absent) withdraws the same prefix from the list.
      - A dictionary of lists is possible too; its keys are the names of the variables that hold them. The lists are merged, and
        errors name the variable and the index of the entry.
      - An empty list removes all entries, if O(allow_empty=true).
      - For more than a few thousand entries use O(allow_src), which is many times faster.
    type: raw
  deny:
    description: List of sources that are denied, in the same form as O(allow).
    type: raw
  allow_src:
    description:
      - A file with sources that are always allowed, on the controller unless O(remote_src=true).
      - It has one address or prefix a line, optionally followed by C(expires=) and a time, and by C(#) and a comment.
    type: path
  deny_src:
    description: A file with sources that are denied, in the same form as O(allow_src).
    type: path
  remote_src:
    description: Whether O(allow_src) and O(deny_src) are on the managed host.
    type: bool
    default: false
  allow_empty:
    description:
      - Whether the last entries of a list may be removed.
      - Without it, a variable that is empty by mistake is an error.
    type: bool
    default: false
  force:
    description:
      - Whether to deny addresses that the host needs, such as its own, its gateways, resolvers and the clients of its SSH
        sessions. Without it, a list that denies one of them is refused, unless an allow list has that address.
      - This can cut you off. If it does, the host reverts the change by itself, see O(confirm_timeout).
    type: bool
    default: false
seealso:
  - module: packetwatch.xdp.change
  - module: packetwatch.xdp.ban
  - module: packetwatch.xdp.program
"""

EXAMPLES = r"""
# These lists replace what the pair held before.
- name: Deny two networks, but not our monitoring in one of them
  packetwatch.xdp.access_lists:
    allow:
      - address: 198.51.100.17
        comment: monitoring
    deny:
      - 198.51.100.0/24
      - 2001:db8:bad::/48
      - address: 203.0.113.9
        comment: until the abuse desk answers
        expires: "2026-12-01T00:00:00Z"

- name: Merge lists of several teams; an error names the variable
  packetwatch.xdp.access_lists:
    name: teams
    deny:
      deny_web: "{{ deny_web }}"
      deny_mail: "{{ deny_mail }}"

- name: Set a long list from a file on the controller, and keep the allow list of this name
  packetwatch.xdp.access_lists:
    name: feed-example
    deny_src: files/example.list

# Fails without allow_empty if the list has entries.
- name: Deny no source any more
  packetwatch.xdp.access_lists:
    deny: []
    allow_empty: true

- name: Remove a pair
  packetwatch.xdp.access_lists:
    name: feed-example
    state: absent
"""

RETURN = r"""
digest_before:
  description:
    - Digest of the lists from which the program's tables were compiled before.
    - Empty if no program of this collection is attached.
  returned: success
  type: str
  sample: 5f1d7a84db00d2fc
digest_after:
  description: The same for the tables after the change, in check mode for those that it would have.
  returned: success
  type: str
  sample: 0c8a4d2ab1f0e4d5
counts:
  description: How many entries the lists hold after the change.
  returned: success
  type: dict
  sample: {"allow": 3, "deny": 10200}
repeated:
  description:
    - How many entries of O(allow) and O(deny) were merged into another entry with the same prefix and expiry.
  returned: success and O(state=present)
  type: dict
  sample: {"allow": 0, "deny": 2}
without_effect:
  description:
    - How many entries of all lists on the host decide no packet, by reason. C(shadowed) entries are denied, but an allow list
      covers them. No packet has an C(impossible) source, such as a multicast address. C(expired) entries are past their time.
    - Up to five entries for each reason are named in warnings.
  returned: when lists were compiled
  type: dict
  sample: {"shadowed": 1, "impossible": 0, "expired": 2}
live:
  description:
    - Whether a program reads these tables.
    - V(false) if no interface is attached yet, or if the loaded and the installed program are of another version. The declared
      state then becomes active when an interface is attached or the program is replaced.
  returned: success
  type: bool
  sample: true
hits:
  description:
    - Addresses known to the host that the new lists deny and that were not denied before. At most 20 of each kind, sorted.
    - C(ssh_peers) are the clients of SSH sessions, and C(protected) are other protected addresses (both only with O(force=true)).
      C(peers) are the other ends of TCP connections that exist now, and C(seen) are sources that opened one in the last
      C(minutes).
    - C(seen) comes from what the program keeps for its log. It lacks sources that were allowed, it is empty with
      C(log_connections=none) of M(packetwatch.xdp.policy), and it has IPv6 sources only by their /64.
    - C(counts) are the full numbers. C(unknown) says what could not be read.
  returned: when the lists change
  type: dict
  sample:
    ssh_peers: []
    protected: []
    peers: [198.51.100.17]
    seen: [198.51.100.9, "2001:db8:7:1::/64"]
    counts: {"ssh_peers": 0, "protected": 0, "peers": 1, "seen": 2}
    minutes: 10
    unknown: []
confirmed:
  description:
    - Whether the change is confirmed, so that boot reads it. Always V(true) for a task that has succeeded.
    - Not returned in check mode.
  returned: success
  type: bool
  sample: true
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import InvalidInput
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.edits import (
    list_text,
    read_list,
    remove_lists,
    set_lists,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import (
    CONFIRMATION,
    change,
    run_module,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host

KINDS: tuple[t.Literal["allow", "deny"], ...] = ("allow", "deny")


def apply(module: AnsibleModule, host: Host) -> Result:
    """Set or remove the pair that the options describe."""
    name = module.params["name"]
    texts, repeated = read_lists(module.params)
    if module.params["state"] == "absent":
        if texts:
            raise InvalidInput("state is absent, which takes no lists; leave them out")
        return change(module, host, remove_lists(name))
    edit = set_lists(name, texts, module.params["allow_empty"])
    done = change(module, host, edit, force=module.params["force"])
    return done | {"repeated": repeated}


def read_lists(params: t.Mapping[str, t.Any]) -> tuple[dict[str, str], dict[str, int]]:
    """Texts of the lists that were given, by kind, and how many of their entries were duplicates."""
    texts: dict[str, str] = {}
    repeated: dict[str, int] = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        path = params[f"{kind}_src"]
        if path is not None:
            texts[kind] = read_list(path)
        elif params[kind] is not None:
            texts[kind], repeated[kind] = list_text(params[kind], kind)
    return texts, repeated


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "ansible"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "allow": {"type": "raw"},
            "deny": {"type": "raw"},
            "allow_src": {"type": "path"},
            "deny_src": {"type": "path"},
            "remote_src": {"type": "bool", "default": False},
            "allow_empty": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            **CONFIRMATION,
        },
        mutually_exclusive=[("allow", "allow_src"), ("deny", "deny_src")],
        required_if=[("state", "present", ("allow", "deny", "allow_src", "deny_src"), True)],
        supports_check_mode=True,
    )
    run_module(module, lambda host: apply(module, host))


if __name__ == "__main__":
    main()
