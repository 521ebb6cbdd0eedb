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
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import InvalidInput
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.presets import fill_in
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._variables import (
    FEEDS,
    evaluate,
    of_host,
)

_MODULE = "packetwatch.xdp.feed"
# Options that the hosts use, and not the module: the host has the last good copy.
_FOR_HOSTS: t.Final = ("max_change", "allow_empty", "expire_after")
_RETURNED = ("path", "digest", "entries", "left_out", "bad", "fetched", "published")

Feed = dict[str, t.Any]


def gather(declared: t.Mapping[str, t.Any]) -> dict[str, Feed]:
    """The feeds that hosts declare, by name; ValueError names the host with a wrong one."""
    found: dict[str, Feed] = {}
    owners: dict[str, str] = {}
    for host, feeds in declared.items():
        if not isinstance(feeds, list):
            # The value may contain secrets, such as headers.
            raise ValueError(
                f"{FEEDS} of {host} is of type {type(feeds).__name__}: write a list of dictionaries"
            )
        names = set()
        for index, feed in enumerate(feeds):
            if not isinstance(feed, dict) or not isinstance(feed.get("name"), str):
                raise ValueError(
                    f"{FEEDS}[{index}] of {host} has no name: write a dictionary with name and url or path"
                )
            name = feed["name"]
            if name in names:
                raise ValueError(
                    f"{FEEDS}[{index}] of {host}: {name} is listed twice; keep one of them"
                )
            names.add(name)
            if found.setdefault(name, feed) != feed:
                raise ValueError(
                    f"feed {name} is declared differently on {owners[name]} and on {host}: "
                    "rename one of the two"
                )
            owners.setdefault(name, host)
    return found


def _skipped(name: str, bad: Feed) -> str:
    """Say which wrong lines of a feed were skipped."""
    return f"feed {name}: {bad['total']} wrong lines are skipped: {'; '.join(bad['examples'])}"


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
                feeds = gather(
                    {host: self._declared(host, task_vars["hostvars"]) for host in hosts}
                )
            else:
                feeds = gather({task_vars["inventory_hostname"]: arguments.get("feeds") or []})
        except ValueError as error:
            raise AnsibleActionFail(f"{error} (nothing was changed)") from error
        copies = {name: self._copy(feed, bool(hosts), task_vars) for name, feed in feeds.items()}
        warnings = [copy["problem"] for copy in copies.values() if copy["problem"]]
        warnings += [_skipped(name, copy["bad"]) for name, copy in copies.items() if copy["bad"]]
        return result | {"changed": False, "feeds": copies, "warnings": warnings}

    def _declared(self, host: str, hostvars: t.Any) -> t.Any:
        """The feeds that a host declares; ValueError if they cannot be evaluated."""
        variables, templar = of_host(host, hostvars, self._templar)
        values = evaluate({FEEDS: variables.get(FEEDS) or []}, templar)
        for problem in (*values.problems, *values.unknown):
            raise ValueError(f"{host}: {problem}")
        return values.found[FEEDS]

    def _copy(self, feed: Feed, urls: bool, task_vars: dict[str, t.Any]) -> Feed:
        options = {name: value for name, value in feed.items() if name not in _FOR_HOSTS}
        try:
            filled = fill_in(feed)
        except InvalidInput as error:
            raise AnsibleActionFail(
                f"feed {feed['name']}: {error} (nothing was changed)"
            ) from error
        copy: Feed = {
            "list": filled.get("list", "deny"),
            "max_change": filled["max_change"],
            "allow_empty": filled.get("allow_empty", False),
            "expire_after": filled.get("expire_after"),
            "digest": "",
            "problem": "",
            "bad": {},
            "fetched": None,
            "published": None,
        }
        if options.get("path") is None and not urls:
            problem = "only the first play of packetwatch.xdp.site fetches a url: run that"
            return copy | {"problem": f"feed {feed['name']}: {problem}"}
        if options.get("path") is not None:
            options["path"] = self._find(str(options["path"]))
        # Ansible removes this folder when the run ends.
        options["dest"] = os.path.join(constants.DEFAULT_LOCAL_TMP, "packetwatch-feeds")
        options["cache"] = os.path.join(
            constants.config.get_config_value("ANSIBLE_HOME"), "packetwatch-feeds"
        )
        done = self._execute_module(_MODULE, options, task_vars=task_vars)
        if done.get("failed"):
            if not done.get("unavailable"):
                raise AnsibleActionFail(
                    f"feed {feed['name']}: {done.get('msg', 'failed')} (nothing was changed)"
                )
            return copy | {"problem": done["msg"]}
        return (
            copy
            | {key: done[key] for key in _RETURNED}
            | {"bad": done["bad"] if done["bad"]["total"] else {}}
        )

    def _find(self, path: str) -> str:
        """The path of a file, found as the module copy finds it; the module reports a missing one."""
        try:
            return str(self._find_needle("files", os.path.expanduser(path)))
        except AnsibleActionFail:
            return path
