#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: _fetch
short_description: Fetch the feeds of hosts, each once
version_added: 0.1.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Fetches what the variable C(packetwatch_feeds) of the hosts names, by M(packetwatch.xdp.feed), into a folder that
    Ansible removes when the run ends.
  - A feed that cannot be had is a warning, and hosts keep their last good copy of it. A feed that is described wrongly, or by two
    hosts in two ways, is an error.
  - All of it is the action plugin's work, on the controller. The task is to be delegated to C(localhost).
attributes:
  action:
    description: Indicates this has a corresponding action plug-in, so some parts of the options run on the controller.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
    support: none
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
    details:
      - Does the same in check mode, which wants to know what the hosts would get.
  diff_mode:
    description: Returns what has changed, or would change, when in diff mode.
    support: none
  platform:
    description: Target OS families that can be operated against.
    support: full
    platforms: posix
options:
  hosts:
    description: The hosts of the run, whose variables are looked at.
    type: list
    elements: str
  feeds:
    description:
      - The feeds of one host, where there was no play before that has fetched them. Those that have a C(url) count as such that
        cannot be had.
    type: list
    elements: dict
"""

EXAMPLES = r"""
- name: Fetch all feeds
  packetwatch.xdp._fetch:
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
feeds:
  description:
    - What was fetched, by name. The C(list) that it is for, C(path) and C(digest) of the copy, C(entries), what was C(left_out),
      C(max_change), and the C(problem), if there is no copy.
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
    module.fail_json(msg="this is the work of the action plugin: call it packetwatch.xdp._fetch")


if __name__ == "__main__":
    main()
