#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: feed
short_description: Fetch a published list, check it, and convert it for access lists
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Runs on the host that fetches the list, usually the controller, once for all hosts. The file that it writes is named by its
    digest, so all hosts of a run get the same copy.
  - The playbook C(packetwatch.xdp.site) does this for all feeds of O(packetwatch.xdp.packetwatch#role:main:packetwatch_feeds).
    Use the module by itself if you use M(packetwatch.xdp.access_lists) by itself.
  - Fails if the feed cannot be fetched, is too large, too wide or too old, does not match the checksum, or has more wrong lines
    than O(max_bad). No part of such a feed is used.
  - A feed that gzip, xz, bzip2 or zip has packed is recognised by its first bytes, and unpacked up to O(max_bytes). A zip file
    must have exactly one member.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
attributes:
  check_mode:
    support: partial
    details:
      - Fetches and checks in check mode too, and writes no list. What was fetched is kept in O(cache) in check mode too.
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
  preset:
    description:
      - Name of a well-known feed, of which the address, the format and other options are known. Options of the task come before
        those of the preset. The page C(docs/feeds.md) of the collection lists all presets.
    type: str
  url:
    description: Location of the feed, as C(https://...) or C(http://...). Not needed if the O(preset) has one.
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
        If the second word is a netmask, as in C(203.0.113.0 255.255.255.0), it is read as one.
      - V(ipset) is the output of C(ipset save), or a list of one address or prefix a line, like C(.ipset) and C(.netset) files.
      - V(json) is one object on each line (NDJSON), an array, or a nested document. O(column) has the paths of the addresses.
      - The default is the format of the O(preset), else V(plain).
    type: str
    choices: [plain, hosts, csv, ranges, ipset, json]
  column:
    description:
      - For V(csv), the number of the column, counted from 1, or its name in the header line, which may be a comment. The default
        is V(1).
      - For V(json), the path of the addresses. Members are separated by dots, C([]) stands for all elements of an array, and
        C([MEMBER=VALUE]) for the elements that have this text in this member. Several paths are separated by commas. Examples are
        V(cidr), V(prefixes[].ip_prefix) and V(values[name=Front].addresses[]).
      - A record of the type C(metadata), as Spamhaus publishes it, is not a wrong record. The number in its C(records) must be right,
        and its C(timestamp) is the time of the feed.
    type: str
  delimiter:
    description: For V(csv), the character between two columns. The default is a comma.
    type: str
  header:
    description:
      - For V(csv) with a numbered O(column) and for V(ranges), whether the first record names the columns.
      - V(auto), the default, takes it for names only if the column of addresses has a name such as C(dst_ip), C(network) or C(Start).
        Any other first record without an address is a wrong line.
    type: str
    choices: ["true", "false", auto]
  headers:
    description:
      - Headers of the request, such as C(Authorization). They are sent to the host of O(url) only, and not to the target of a redirect.
    type: dict
    default: {}
  timeout:
    description: Maximum time for the whole download, as seconds or such as V(90s).
    type: str
    default: "60"
  max_bytes:
    description: Maximum size of the feed in bytes, unpacked.
    type: int
    default: 67108864
  max_bad:
    description:
      - How many wrong lines or records are skipped. They are counted and shown.
      - A feed with more wrong lines than right ones is always refused.
    type: int
    default: 0
  widest:
    description:
      - The widest prefix that an entry may have. A feed with a wider entry is refused.
    type: dict
    suboptions:
      ipv4:
        description: Prefix length. The default is 8, and 16 for O(list=allow).
        type: int
      ipv6:
        description: Prefix length. The default is 19, and 32 for O(list=allow).
        type: int
  widest_sum:
    description:
      - All entries together may cover at most as many addresses as a prefix of this length. Special-purpose space does not count.
    type: dict
    suboptions:
      ipv4:
        description: Prefix length. The default is 5, which is 134 million addresses, and 8 for O(list=allow).
        type: int
      ipv6:
        description: Prefix length. The default is 16, and 24 for O(list=allow).
        type: int
  interval:
    description:
      - Time between two fetches, as seconds or such as V(1h). Before that, the answer that was kept in O(cache) is used again.
        Publishers ask for this.
      - The default is that of the O(preset), else 0.
    type: str
  cache:
    description: Folder for answers of servers, readable only for the user. Without it, O(interval) has no effect.
    type: path
  checksum:
    description: Digest that the feed must have, as V(sha256:) and hexadecimal digits. For feeds that do not change.
    type: str
  max_age:
    description:
      - Maximum age of the feed, as seconds or such as V(36h) or V(7d), by its metadata record, by the header C(Last-Modified), or
        by the file's modification time.
      - It is an error if none of them is known.
    type: str
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
        max_age: 2d
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
  description: Number of prefixes in the file. V(0) if the publisher's list is empty.
  returned: success
  type: int
  sample: 10200
left_out:
  description: Entries in special-purpose space that were left out. C(total) is their number, C(examples) the first of them.
  returned: success
  type: dict
  sample: {"total": 1, "examples": ["10.0.0.0/8"]}
bad:
  description: Wrong lines that were skipped because of O(max_bad). C(total) is their number, C(examples) the first of them.
  returned: success
  type: dict
  sample: {"total": 1, "examples": ["line 7: '203.0.113.300' is not an IPv4 address"]}
fetched:
  description: When the feed was fetched, in Unix seconds.
  returned: success
  type: float
  sample: 1780000123.5
published:
  description: When the feed was published, in Unix seconds. V(none) if unknown.
  returned: success
  type: float
  sample: 1780000000
unavailable:
  description: Whether the feed is at fault, and not the options of the task.
  returned: failure
  type: bool
  sample: true
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import (
    PacketwatchError,
    Unavailable,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.convert import convert
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.parse import FORMATS

_LENGTHS: t.Final = {"ipv4": {"type": "int"}, "ipv6": {"type": "int"}}
# The role's variable packetwatch_feeds has the same options.
OPTIONS: t.Final[dict[str, dict[str, t.Any]]] = {
    "name": {"type": "str", "required": True},
    "list": {"type": "str", "choices": ["deny", "allow"], "default": "deny"},
    "preset": {"type": "str"},
    "url": {"type": "str"},
    "path": {"type": "path"},
    "dest": {"type": "path", "required": True},
    "format": {"type": "str", "choices": list(FORMATS)},
    "column": {"type": "str"},
    "delimiter": {"type": "str"},
    "header": {"type": "str", "choices": ["true", "false", "auto"]},
    "headers": {"type": "dict", "default": {}, "no_log": True},
    "timeout": {"type": "str", "default": "60"},
    "max_bytes": {"type": "int", "default": 1 << 26},
    "max_bad": {"type": "int", "default": 0},
    "widest": {"type": "dict", "options": _LENGTHS},
    "widest_sum": {"type": "dict", "options": _LENGTHS},
    "interval": {"type": "str"},
    "cache": {"type": "path"},
    "checksum": {"type": "str"},
    "max_age": {"type": "str"},
    "bogons": {"type": "bool", "default": False},
}
RULES: t.Final = {
    "mutually_exclusive": [("url", "path")],
    "required_one_of": [("url", "path", "preset")],
}


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, **RULES, supports_check_mode=True)
    try:
        result = convert(module.params, open_url, module.check_mode)
    except PacketwatchError as error:
        module.fail_json(msg=str(error), unavailable=isinstance(error, Unavailable))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
