#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: access_lists
short_description: Declare who is always let in and who is always kept out
version_added: 0.1.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Sets one named pair of lists, of allowed and of denied sources. The program obeys the union of all pairs on the host.
  - Both lists of the pair, however long, take effect at once and together.
  - A source that any list allows is never dropped. One that is denied, and not allowed, always is.
  - The pair is wholly owned by who writes under its name. What a list held before, and is not given to the module again, is
    removed. Pairs of other names, and bans, are not touched.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
options:
  name:
    description:
      - Name of the pair, made of the characters a-z, 0-9, V(_) and V(-).
      - The role writes V(ansible), the command line tool V(local).
      - Names that begin with V(feed-) are for lists that others publish. What is wrong in those, when hosts boot, or hits a network
        that the host is connected to or a protected address, is left out. The role removes such pairs that are not in its variable
        C(packetwatch_feeds).
    type: str
    default: ansible
  state:
    description:
      - V(present) sets the lists that are given. If only one is, the other one stays as it is.
      - V(absent) removes the pair.
    type: str
    choices: [present, absent]
    default: present
  allow:
    description:
      - List of sources that are always let in, in IPv4 or IPv6. An entry is an address, a prefix, or a dictionary.
      - A dictionary has the key C(address), and may have C(comment), C(expires) (a time with zone in quotes, such as
        V(2026-12-01T00:00:00Z)), and C(state). C(state=absent) withdraws the same prefix from the list.
      - Instead of a list it can be a dictionary of lists by the name of the variable that each comes from. The lists are
        merged, and errors name the variable and the index of the entry.
      - An empty list removes all entries, if O(allow_empty=true).
      - For more than some thousand entries use O(allow_src), which is many times faster.
    type: raw
  deny:
    description: List of sources that are always kept out, in the same form as O(allow).
    type: raw
  allow_src:
    description:
      - A file with sources that are always let in, on the controller unless O(remote_src=true).
      - One address or prefix a line, optionally followed by C(expires=) and a time, and by C(#) and a comment.
    type: path
  deny_src:
    description: A file with sources that are always kept out, in the same form as O(allow_src).
    type: path
  remote_src:
    description: Whether O(allow_src) and O(deny_src) are on the managed host.
    type: bool
    default: false
  allow_empty:
    description:
      - Whether a list that has entries may be left with none.
      - Without it, a variable that turned out empty by mistake is an error.
    type: bool
    default: false
  force:
    description:
      - Whether to deny addresses that the host needs, such as its own, its gateways, resolvers and the clients of its SSH
        sessions. Without it a list that covers one of them, and does not allow it, is refused.
      - This can cut you off. If it does, the host returns by itself, see O(confirm_timeout).
    type: bool
    default: false
seealso:
  - module: packetwatch.xdp.change
  - module: packetwatch.xdp.ban
  - module: packetwatch.xdp.program
"""

EXAMPLES = r"""
# Whatever these lists held before is replaced.
- name: Keep two networks out, but not our monitoring in one of them
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

- name: Set a long list from a file on the controller, leaving the allow list of this name as it is
  packetwatch.xdp.access_lists:
    name: feed-example
    deny_src: files/example.list

# Fails without allow_empty if the list has entries.
- name: Deny nobody any more
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
    - Digest of what the program's tables were compiled from before.
    - Empty if no program of this collection is attached.
  returned: success
  type: str
  sample: 5f1d7a84db00d2fc
digest_after:
  description: The same for what the tables are compiled from now, or would be in check mode.
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
    - How many entries of O(allow) and O(deny) were merged into others, because another entry of the same prefix and end was
      there.
  returned: success and O(state=present)
  type: dict
  sample: {"allow": 0, "deny": 2}
live:
  description:
    - Whether a program reads these tables.
    - V(false) where no interface is attached yet, or what is loaded and installed is of another version. What is
      declared then takes effect when an interface is attached, or the program replaced.
  returned: success
  type: bool
  sample: true
hits:
  description:
    - Whom the new lists deny that nothing denied before, as far as the host knows them. At most 20 of each kind, sorted.
    - C(ssh_peers) are the clients of its SSH sessions, C(protected) what else it protects (both only with O(force=true)), C(peers)
      who else has a TCP connection with it now, in either direction, C(seen) who has opened one in the last C(minutes).
    - C(seen) rests on what the program keeps for its log, so it knows nobody where C(log_connections=none) of
      M(packetwatch.xdp.policy), no source that was allowed, and an IPv6 source only by its /64.
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
    - Whether what is declared is what boot reads. Always V(true) for a task that has succeeded.
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
    """Texts of those lists that were given, by kind, and how many of their entries were repeated."""
    texts: dict[str, str] = {}
    repeated: dict[str, int] = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        path = params[f"{kind}_src"]
        if path is not None:
            texts[kind] = read_list(path, kind)
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
