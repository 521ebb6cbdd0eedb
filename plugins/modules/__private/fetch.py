#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fetch
short_description: Fetch the feeds of hosts, each once
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Fetches the feeds in the variable C(packetwatch_feeds) of the hosts, by M(packetwatch.xdp.feed), into a folder that
    Ansible removes when the run ends.
  - If a feed cannot be fetched, the task warns, and hosts keep their last good copy. If a feed is described wrongly, or
    differently by two hosts, the task fails.
  - The action plugin does all the work, on the controller. Delegate the task to C(localhost).
extends_documentation_fragment:
  - packetwatch.xdp._attributes.controller
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.action
attributes:
  check_mode:
    details:
      - Does the same in check mode, to show what the hosts would get.
options:
  hosts:
    description: The hosts of the run, whose variables are read.
    type: list
    elements: str
  feeds:
    description:
      - The feeds of one host, if no earlier play has fetched them. Feeds with a C(url) count as unavailable.
    type: list
    elements: dict
"""

EXAMPLES = r"""
- name: Fetch all feeds
  packetwatch.xdp.__private.fetch:
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
feeds:
  description:
    - The fetched feeds, by name. Each has the C(list) that it is for, C(path) and C(digest) of the copy, C(entries), C(left_out),
      C(bad), C(fetched), C(published), C(max_change), C(allow_empty), C(expire_after), and the C(problem) if there is no copy.
  returned: success
  type: dict
  sample: {"example": {"list": "deny", "path": "/tmp/x/0c8a.list", "digest": "0c8a", "max_change": 50, "problem": ""}}
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "list", "elements": "str"},
            "feeds": {"type": "list", "elements": "dict"},
        },
        supports_check_mode=True,
    )
    module.fail_json(
        msg="only the action plugin can do this: call it as packetwatch.xdp.__private.fetch"
    )


if __name__ == "__main__":
    main()
