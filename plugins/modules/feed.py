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

import email.utils
import hashlib
import os
import re
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import (
    InvalidInput,
    PacketwatchError,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.files import replace_file
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.store import (
    FEED,
    check_name,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.parse import (
    FORMATS,
    Format,
    read_feed,
)

CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})", re.IGNORECASE)
PIECE = 1 << 16


class Unavailable(PacketwatchError):
    """The feed cannot be had, or is not what it should be; the task's options are right."""


class Published(t.NamedTuple):
    """What was published, and when (Unix time) if that can be told."""

    data: bytes
    modified: t.Optional[float]


def check_options(params: t.Mapping[str, t.Any]) -> None:
    """Refuse what can be seen to be wrong without the feed."""
    check_name(FEED + params["name"])
    url, checksum = params["url"], params["checksum"]
    if url is not None and not url.startswith(("https://", "http://")):
        raise InvalidInput(f"url is {url!r}: write https://... or http://..., or use path")
    if checksum is not None and not CHECKSUM.fullmatch(checksum):
        raise InvalidInput(f"checksum is {checksum!r}: write sha256: and 64 hexadecimal digits")
    if params["column"] == "0":
        raise InvalidInput("column is 0: columns count from 1")
    if len(params["delimiter"]) != 1 or params["delimiter"] in '\n\r"':
        raise InvalidInput(f"delimiter is {params['delimiter']!r}: write one character")
    for option in ("timeout", "max_bytes", "max_age"):
        if params[option] is not None and params[option] <= 0:
            raise InvalidInput(f"{option} is {params[option]:g}: write a number above 0")


def fetch(params: t.Mapping[str, t.Any]) -> Published:
    """Ask the server; the whole of it has `timeout` seconds."""
    url, end = params["url"], time.monotonic() + params["timeout"]
    headers = {str(name): str(value) for name, value in params["headers"].items()}
    try:
        with open_url(
            url,
            headers=headers,
            unredirected_headers=list(headers),
            timeout=params["timeout"],
            http_agent="packetwatch",
            use_netrc=False,
        ) as answer:
            pieces, size = [], 0
            while piece := answer.read(PIECE):
                pieces.append(piece)
                size += len(piece)
                check_size(size, params["max_bytes"])
                if time.monotonic() > end:
                    raise Unavailable(f"{url} takes more than {params['timeout']:g} s")
            modified = answer.headers.get("Last-Modified")
    # A server, a proxy or a network can go wrong in more ways than have a common class.
    except (OSError, ValueError, EOFError) as error:
        raise Unavailable(f"cannot fetch {url}: {error}") from error
    return Published(b"".join(pieces), read_time(modified))


def read_time(text: str | None) -> float | None:
    """Unix time of a date as HTTP has it."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None


def read(params: t.Mapping[str, t.Any]) -> Published:
    """Read the file, if it is no longer than it may be."""
    path = params["path"]
    try:
        with open(path, "rb") as file:
            check_size(os.fstat(file.fileno()).st_size, params["max_bytes"])
            data = file.read(params["max_bytes"] + 1)
            check_size(len(data), params["max_bytes"])
            return Published(data, os.fstat(file.fileno()).st_mtime)
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error


def check_size(size: int, most: int) -> None:
    """Refuse what is larger than a feed may be."""
    if size > most:
        raise Unavailable(f"it has more than {most} bytes: look at it, or raise max_bytes")


def check_published(found: Published, checksum: str | None, max_age: float | None) -> None:
    """Refuse what is not what was expected, or older."""
    digest = hashlib.sha256(found.data).hexdigest()
    if checksum is not None and checksum.partition(":")[2].lower() != digest:
        raise Unavailable(f"it is sha256:{digest}, and checksum is {checksum}")
    if max_age is None:
        return
    if found.modified is None:
        raise Unavailable("the server does not say how old it is, so leave out max_age")
    age = time.time() - found.modified
    if age > max_age:
        raise Unavailable(f"it is {age:.0f} s old, and max_age is {max_age:g}")


def make(params: t.Mapping[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Fetch, check, read, and leave the list; check: without leaving anything."""
    check_options(params)
    name = params["name"]
    try:
        found = fetch(params) if params["url"] is not None else read(params)
        check_published(found, params["checksum"], params["max_age"])
    except Unavailable as error:
        raise Unavailable(f"feed {name}: {error}") from error
    kind = Format(params["format"], params["column"], params["delimiter"])
    try:
        copy = read_feed(found.data, kind, name, params["bogons"])
    except InvalidInput as error:
        raise Unavailable(str(error)) from error
    path = os.path.join(params["dest"], f"{copy.digest}.list")
    changed = not os.path.exists(path)
    if changed and not check:
        try:
            os.makedirs(params["dest"], 0o700, exist_ok=True)
            replace_file(path, copy.text, 0o644)
        except OSError as error:
            raise PacketwatchError(f"cannot write {path}: {error.strerror}") from error
    return {
        "changed": changed,
        "name": name,
        "list": params["list"],
        "path": path,
        "digest": copy.digest,
        "entries": copy.entries,
        "left_out": copy.left_out._asdict(),
    }


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
        module.exit_json(**make(module.params, module.check_mode))
    except PacketwatchError as error:
        module.fail_json(msg=str(error), unavailable=isinstance(error, Unavailable))


if __name__ == "__main__":
    main()
