# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Fetch each feed once for all hosts that use it; a feed that cannot be fetched is only a warning."""

from __future__ import annotations

import os
import typing as t

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

_VARIABLE = "packetwatch_feeds"
_MODULE = "packetwatch.xdp.feed"
_MAX_CHANGE = 50.0

Feed = dict[str, t.Any]


def gather(declared: t.Mapping[str, t.Any]) -> dict[str, Feed]:
    """The feeds that hosts declare, by name; ValueError names the host with a wrong one."""
    found: dict[str, Feed] = {}
    owners: dict[str, str] = {}
    for host, feeds in declared.items():
        if not isinstance(feeds, list):
            # The value may contain secrets, such as headers.
            raise ValueError(
                f"{_VARIABLE} of {host} is of type {type(feeds).__name__}: write a list of dictionaries"
            )
        names = set()
        for index, feed in enumerate(feeds):
            if not isinstance(feed, dict) or not isinstance(feed.get("name"), str):
                raise ValueError(
                    f"{_VARIABLE}[{index}] of {host} has no name: write a dictionary with name and url or path"
                )
            name = feed["name"]
            if name in names:
                raise ValueError(
                    f"{_VARIABLE}[{index}] of {host}: {name} is listed twice; keep one of them"
                )
            names.add(name)
            if found.setdefault(name, feed) != feed:
                raise ValueError(
                    f"feed {name} is declared differently on {owners[name]} and on {host}: "
                    "rename one of the two"
                )
            owners.setdefault(name, host)
    return found


class ActionModule(ActionBase):
    """Gathers the feeds of hosts, and runs the module for each feed."""

    _VALID_ARGS = frozenset({"hosts", "feeds"})

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Return the copy of each feed, or why there is none."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        task_vars = task_vars or {}
        hosts = arguments.get("hosts") or []
        try:
            if hosts:
                variables = task_vars["hostvars"]
                feeds = gather({host: variables[host].get(_VARIABLE) or [] for host in hosts})
            else:
                feeds = gather({task_vars["inventory_hostname"]: arguments.get("feeds") or []})
        except ValueError as error:
            raise AnsibleActionFail(f"{error} (nothing was changed)") from error
        copies = {name: self._copy(feed, bool(hosts), task_vars) for name, feed in feeds.items()}
        problems = [copy["problem"] for copy in copies.values() if copy["problem"]]
        return result | {"changed": False, "feeds": copies, "warnings": problems}

    def _copy(self, feed: Feed, urls: bool, task_vars: dict[str, t.Any]) -> Feed:
        options = dict(feed)
        copy: Feed = {
            "list": options.get("list", "deny"),
            "max_change": options.pop("max_change", _MAX_CHANGE),
            "digest": "",
            "problem": "",
        }
        if options.get("path") is None and not urls:
            problem = "only the first play of packetwatch.xdp.site fetches a url: run that"
            return copy | {"problem": f"feed {feed['name']}: {problem}"}
        if options.get("path") is not None:
            options["path"] = self._find(str(options["path"]))
        # Ansible removes this folder when the run ends.
        options["dest"] = os.path.join(constants.DEFAULT_LOCAL_TMP, "packetwatch-feeds")
        done = self._execute_module(_MODULE, options, task_vars=task_vars)
        if done.get("failed"):
            if not done.get("unavailable"):
                raise AnsibleActionFail(
                    f"feed {feed['name']}: {done.get('msg', 'failed')} (nothing was changed)"
                )
            return copy | {"problem": done["msg"]}
        return copy | {key: done[key] for key in ("path", "digest", "entries", "left_out")}

    def _find(self, path: str) -> str:
        """The path of a file, found as the module copy finds it; the module reports a missing one."""
        try:
            return str(self._find_needle("files", os.path.expanduser(path)))
        except AnsibleActionFail:
            return path
