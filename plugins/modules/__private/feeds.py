#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: feeds
short_description: Set all feeds of a host in one change
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Owns all lists whose names begin with V(feed-). Lists of feeds that are not named are removed.
  - A feed whose copy could not be fetched, or differs too much from the last good copy, keeps the last good copy. The other
    feeds are changed.
  - The action plugin first asks which copies the host lacks, and sends only those.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
options:
  names:
    description: The feeds of this host. Read by the action plugin.
    type: list
    elements: str
    default: []
  copies:
    description: What M(packetwatch.xdp.__private.fetch) has returned, by name. Read by the action plugin.
    type: dict
    default: {}
  feeds:
    description: The feeds of this host with their copies. Set by the action plugin.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the feed.
        type: str
        required: true
      list:
        description: The list that the feed is for.
        type: str
        choices: [deny, allow]
        required: true
      digest:
        description: SHA-256 of the copy. Empty if there is no copy.
        type: str
        default: ""
      problem:
        description: Why there is no copy.
        type: str
        default: ""
      max_change:
        description: By how many percent the copy may differ from the last good copy, in entries and in addresses.
        type: float
        default: 50
      allow_empty:
        description: Whether a copy without entries replaces the last good copy.
        type: bool
        default: false
      expire_after:
        description: Age in seconds at which a last good copy that cannot be renewed is removed.
        type: float
      fetched:
        description: When the copy was fetched, in Unix seconds.
        type: float
      published:
        description: When the copy was published, in Unix seconds, if that is known.
        type: float
  now:
    description: The controller's time in Unix seconds, by which ages are counted. Set by the action plugin.
    type: float
  sources:
    description: Files with the copies that the host lacks, by name. Set by the action plugin.
    type: dict
    default: {}
  force:
    description: Whether to accept copies however much they differ.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Set the feeds
  packetwatch.xdp.__private.feeds:
    names: [example]
    copies: "{{ fetched.feeds }}"
"""

RETURN = r"""
feeds:
  description:
    - What became of each feed, by name. Its C(status) is V(current), V(kept) (the last good copy stays), V(empty) (the publisher's
      list is empty), V(expired) (the last good copy was older than C(expire_after), and is removed), V(missing) (there is no good
      copy) or V(broken) (the list on disk is damaged). C(reason) says why; it is empty if the new copy is used.
    - C(entries) counts the entries of the list. C(left_out) has those of them that match this host (C(total), C(examples)).
    - C(age) is the number of seconds since the publisher last served the copy, C(published) is its own time in Unix seconds.
      V(none) if unknown.
  returned: when the host lacks nothing
  type: dict
  sample:
    example:
      status: current
      reason: ""
      entries: 10200
      left_out: {"total": 0, "examples": []}
      age: 2.5
      published: 1780000000
without_effect:
  description: How many entries of all lists on the host decide no packet, see M(packetwatch.xdp.access_lists).
  returned: when lists were compiled
  type: dict
lacks:
  description: Feeds whose copies the host lacks. Nothing was changed.
  returned: when the host lacks some
  type: list
  elements: str
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.copies import (
    Ages,
    FeedRun,
    gather_wanted,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import (
    CONFIRMATION,
    make_change,
    report_feeds,
    run_module,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host


def apply(module: AnsibleModule, host: Host) -> Result:
    """Set the feeds, or say which copies are needed first."""
    params = module.params
    dummy, state = host.store.read_current()
    wanted, lacks = gather_wanted(params["feeds"], state, params["sources"], params["force"])
    if lacks:
        return {"changed": False, "lacks": lacks}
    run = FeedRun(
        params["feeds"], wanted, state, Ages(host.paths.ages), params["now"] or time.time()
    )
    if not module.check_mode:
        # Before the change, which copies the times for the agent. They are right too if it fails.
        run.ages.write()
    plan, result = make_change(module, host, run.edit)
    return result | {"feeds": report_feeds(module, run, plan)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "copies": {"type": "dict", "default": {}},
            "feeds": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "list": {"type": "str", "choices": ["deny", "allow"], "required": True},
                    "digest": {"type": "str", "default": ""},
                    "problem": {"type": "str", "default": ""},
                    "max_change": {"type": "float", "default": 50},
                    "allow_empty": {"type": "bool", "default": False},
                    "expire_after": {"type": "float"},
                    "fetched": {"type": "float"},
                    "published": {"type": "float"},
                },
            },
            "now": {"type": "float"},
            "sources": {"type": "dict", "default": {}},
            "force": {"type": "bool", "default": False},
            **CONFIRMATION,
        },
        supports_check_mode=True,
    )
    run_module(module, lambda host: apply(module, host))


if __name__ == "__main__":
    main()
