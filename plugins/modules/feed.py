#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: feed
short_description: Fetch a published list, check it, and convert it for access lists
version_added: 0.1.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Runs on the host that fetches the list, usually the controller, once for all hosts. The file that it writes is named by its
    digest, so all hosts of a run get the same copy.
  - The playbook C(packetwatch.xdp.site) does this for all feeds of O(packetwatch.xdp.packetwatch#role:main:packetwatch_feeds).
    Use the module by itself if you use M(packetwatch.xdp.access_lists) by itself.
  - Fails if the feed cannot be fetched, is too large or too old, does not match the checksum, or has a line that cannot be read.
    No part of such a feed is used.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
attributes:
  check_mode:
    support: partial
    details:
      - Fetches and checks in check mode too, and writes no file.
  diff_mode:
    support: none
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - python >= 3.11
options:
  name:
    description:
      - Name of the feed, made of the characters a-z, 0-9, V(_) and V(-). On hosts its list is called V(feed-NAME).
    type: str
    required: true
  list:
    description: Whether the feed's addresses are denied or allowed.
    type: str
    choices: [deny, allow]
    default: deny
  url:
    description: Location of the feed, as C(https://...) or C(http://...).
    type: str
  path:
    description: A file with the feed, on the host on which the module runs.
    type: path
  dest:
    description: Folder for the converted list. It is made if it is missing. Old copies in it are not removed.
    type: path
    required: true
  format:
    description:
      - V(plain) has one address or prefix a line. What follows C(#), C(;) or C(//) is a comment.
      - V(hosts) has an address and then any text on a line, like C(/etc/hosts).
      - V(csv) has the address or prefix in one O(column).
      - V(ranges) has the first and the last address, separated by blanks, tabs, a comma or a dash, and then any text, like
        DShield's block list. Both belong to the range. A single address or prefix is accepted too.
      - V(ipset) is the output of C(ipset save), or a list of one address or prefix a line, like C(.ipset) and C(.netset) files.
    type: str
    choices: [plain, hosts, csv, ranges, ipset]
    default: plain
  column:
    description: For V(csv), the number of the column, counted from 1, or its name in the header line, which may be a comment.
    type: str
    default: "1"
  delimiter:
    description: For V(csv), the character between two columns.
    type: str
    default: ","
  headers:
    description:
      - Headers of the request, such as C(Authorization). They are sent to the host of O(url) only, and not to the target of a redirect.
    type: dict
    default: {}
  timeout:
    description: Maximum time in seconds for the whole download.
    type: float
    default: 60
  max_bytes:
    description: Maximum size of the feed in bytes, unpacked.
    type: int
    default: 67108864
  checksum:
    description: Digest that the feed must have, as V(sha256:) and hexadecimal digits. For feeds that do not change.
    type: str
  max_age:
    description:
      - Maximum age of the feed in seconds, by the header C(Last-Modified) or by the file's modification time.
      - It is an error if the server does not send the header.
    type: float
  bogons:
    description:
      - Whether to keep entries in special-purpose address space (private, loopback, link-local, multicast, documentation, reserved
        and the like, see RFC 6890).
      - Otherwise an entry that overlaps it is left out and counted. Each host then also leaves out entries that overlap a network
        that it is connected to.
    type: bool
    default: false
seealso:
  - module: packetwatch.xdp.access_lists
"""

EXAMPLES = r"""
- name: Deny the addresses of a feed
  hosts: web
  become: true
  tasks:
    - name: Fetch it once
      packetwatch.xdp.feed:
        name: example
        url: https://feeds.example.net/block.csv
        format: csv
        column: address
        headers:
          Authorization: "Bearer {{ feed_token }}"
        max_age: 172800
        dest: /var/tmp/feeds
      register: fetched
      run_once: true
      delegate_to: localhost
      become: false

    - name: Give it to all hosts
      packetwatch.xdp.access_lists:
        name: feed-example
        deny_src: "{{ fetched.path }}"
"""

RETURN = r"""
name:
  description: Name of the feed.
  returned: success
  type: str
  sample: example
list:
  description: The list that the feed is for.
  returned: success
  type: str
  sample: deny
path:
  description: The file that was written, with one prefix a line, sorted, without duplicates.
  returned: success
  type: str
  sample: /var/tmp/feeds/0c8a4d2ab1f0e4d5.list
digest:
  description: SHA-256 of that file.
  returned: success
  type: str
  sample: 0c8a4d2ab1f0e4d50c8a4d2ab1f0e4d50c8a4d2ab1f0e4d50c8a4d2ab1f0e4d5
entries:
  description: Number of prefixes in the file.
  returned: success
  type: int
  sample: 10200
left_out:
  description: Entries in special-purpose space that were left out. C(total) is their number, C(examples) the first of them.
  returned: success
  type: dict
  sample: {"total": 1, "examples": ["10.0.0.0/8"]}
unavailable:
  description: Whether the feed is at fault, and not the options of the task.
  returned: failure
  type: bool
  sample: true
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import (
    PacketwatchError,
    Unavailable,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.convert import convert
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.parse import FORMATS


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "list": {"type": "str", "choices": ["deny", "allow"], "default": "deny"},
            "url": {"type": "str"},
            "path": {"type": "path"},
            "dest": {"type": "path", "required": True},
            "format": {"type": "str", "choices": list(FORMATS), "default": "plain"},
            "column": {"type": "str", "default": "1"},
            "delimiter": {"type": "str", "default": ","},
            "headers": {"type": "dict", "default": {}, "no_log": True},
            "timeout": {"type": "float", "default": 60},
            "max_bytes": {"type": "int", "default": 1 << 26},
            "checksum": {"type": "str"},
            "max_age": {"type": "float"},
            "bogons": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("url", "path")],
        required_one_of=[("url", "path")],
        supports_check_mode=True,
    )
    try:
        result = convert(module.params, open_url, module.check_mode)
    except PacketwatchError as error:
        module.fail_json(msg=str(error), unavailable=isinstance(error, Unavailable))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
