#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: _feeds
short_description: Give a host its feeds, all of them in one change
version_added: 0.1.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Owns all lists whose names begin with V(feed-). Those of feeds that are not named are removed.
  - A feed whose copy could not be had, or differs too much from the last good one, keeps that. The others are changed.
  - The action plugin first asks which copies the host lacks, and brings only those.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
attributes:
  action_group:
    support: none
    membership: []
options:
  names:
    description: The feeds of this host. Read by the action plugin.
    type: list
    elements: str
    default: []
  copies:
    description: What M(packetwatch.xdp._fetch) has returned, by name. Read by the action plugin.
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
        description: The list that it is for.
        type: str
        choices: [deny, allow]
        required: true
      digest:
        description: SHA-256 of the copy. Empty if there is none.
        type: str
        default: ""
      problem:
        description: Why there is none.
        type: str
        default: ""
      max_change:
        description: By how many percent the copy may differ from the last good one.
        type: float
        default: 50
  sources:
    description: Files with the copies that the host lacks, by name. Set by the action plugin.
    type: dict
    default: {}
  force:
    description: Whether to take copies however much they differ.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Set the feeds
  packetwatch.xdp._feeds:
    names: [example]
    copies: "{{ fetched.feeds }}"
"""

RETURN = r"""
feeds:
  description:
    - What became of each feed, by name. Its C(status) is V(current), V(kept) (the last good copy stays), V(missing) (there never was
      one) or V(broken) (what is on disk is damaged); C(reason) says why.
    - C(entries) counts those of the list, and C(left_out) those of them that hit this host (C(total), C(examples)).
  returned: when the host lacks nothing
  type: dict
  sample: {"example": {"status": "current", "reason": "", "entries": 10200, "left_out": {"total": 0, "examples": []}}}
lacks:
  description: Feeds whose copies are not here. Nothing was changed.
  returned: when the host lacks some
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.digest import digest_text
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import InvalidInput
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.describe import (
    count_entries,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.edits import read_list
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.store import FEED
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.edit import (
    BROKEN,
    CURRENT,
    FeedEdit,
    WantedFeed,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.spare import LeftOut
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import (
    CONFIRMATION,
    make_change,
    run_module,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._change.results import Plan
    from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.store import State
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host


def apply(module: AnsibleModule, host: Host) -> Result:
    """Set the feeds, or say which copies are needed first."""
    dummy, state = host.store.read_current()
    sources: dict[str, str] = module.params["sources"]
    wanted, lacks = [], []
    for feed in module.params["feeds"]:
        text = present_text(feed, state)
        if text is None and feed["digest"]:
            if feed["name"] not in sources:
                lacks.append(feed["name"])
                continue
            text = read_source(feed, sources[feed["name"]])
        limit = -1 if module.params["force"] else feed["max_change"]
        wanted.append(WantedFeed(feed["name"], feed["list"], text, limit, feed["problem"]))
    if lacks:
        return {"changed": False, "lacks": lacks}
    edit = FeedEdit(wanted)
    plan, result = make_change(module, host, edit)
    result["feeds"] = report(edit, plan)
    for name, feed in result["feeds"].items():
        if feed["status"] != CURRENT:
            module.warn(f"feed {name} is {feed['status']}: {feed['reason']}")
    return result


def present_text(feed: t.Mapping[str, t.Any], state: State) -> str | None:
    """The copy, if it is the one that this host has."""
    text = getattr(state, feed["list"]).get(FEED + feed["name"])
    return text if text is not None and digest_text(text) == feed["digest"] else None


def read_source(feed: t.Mapping[str, t.Any], path: str) -> str:
    """The copy that was brought."""
    text = read_list(path, feed["list"])
    if digest_text(text) != feed["digest"]:
        raise InvalidInput(f"{path} is not the copy of feed {feed['name']} that was fetched")
    return text


def report(edit: FeedEdit, plan: Plan) -> dict[str, t.Any]:
    """What became of each feed."""
    after = plan.states[1]
    found = {}
    for name, outcome in edit.outcomes.items():
        drop_in = FEED + name
        text = after.deny.get(drop_in, "") + after.allow.get(drop_in, "")
        broken = plan.feeds.broken.get(drop_in)
        found[name] = {
            "status": BROKEN if broken else outcome.status,
            "reason": "; ".join(filter(None, (outcome.reason, broken))),
            "entries": count_entries(text),
            "left_out": plan.feeds.left_out.get(drop_in, LeftOut(0, []))._asdict(),
        }
    return found


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
                },
            },
            "sources": {"type": "dict", "default": {}},
            "force": {"type": "bool", "default": False},
            **CONFIRMATION,
        },
        supports_check_mode=True,
    )
    run_module(module, lambda host: apply(module, host))


if __name__ == "__main__":
    main()
