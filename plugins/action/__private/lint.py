# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Find what is wrong with the variables in an inventory, and lists and entries that have no effect."""

from __future__ import annotations

import typing as t

from ansible.inventory.manager import InventoryManager
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.packetwatch.xdp.plugins.module_utils._active.idle import EXPIRED
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import some_of
from ansible_collections.packetwatch.xdp.plugins.module_utils._preflight.lists import (
    find_idle_entries,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._preflight.values import (
    read_variables,
)
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._levels import Levels
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._variables import (
    FEEDS,
    check_feeds,
    evaluate,
    known_variables,
    of_host,
    unknown_variables,
)

if t.TYPE_CHECKING:
    from ansible.template import Templar

Found = dict[str, list[str]]
"""Hosts by what was found."""

_GROUP = "packetwatch"
_MAX_HOSTS = 1


class ActionModule(ActionBase):
    """Reads the inventory on the controller, and asks no host."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Show all problems, each with its hosts, and fail if there are any."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        sources = list(variables["ansible_inventory_sources"])
        inventory = InventoryManager(loader=self._loader, sources=sources)
        problems = [str(item) for item in Levels(inventory, self._loader, sources).hidden()]
        pattern = str(variables.get("packetwatch_hosts", _GROUP))
        hosts = [str(host.name) for host in inventory.get_hosts(pattern)]
        if not hosts:
            problems.append(
                f"the inventory has no host that matches {pattern}: put the hosts into the group {_GROUP}"
            )
        found: Found = {}
        remarks: Found = {}
        for host in hosts:
            _judge(host, *of_host(host, variables["hostvars"], self._templar), found, remarks)
        problems += _lines(found)
        for problem in [*_lines(remarks), *problems]:
            Display().display(problem)
        message = f"problems: {len(problems)}, see above" if problems else "nothing is wrong"
        return result | {"changed": False, "failed": bool(problems), "msg": message}


def _judge(
    host: str, variables: t.Mapping[str, t.Any], templar: Templar, found: Found, remarks: Found
) -> None:
    """Add a host to each of its problems, and to the remarks, which do not fail a pipeline.

    These are entries that expired meanwhile, and variables that need facts of the host.
    """
    values = evaluate(variables, templar)
    declared = read_variables({"packetwatch_fleet_host": host, **values.found})
    idle = find_idle_entries(declared.lists).named
    expired = idle.pop(EXPIRED)
    problems = [
        *unknown_variables(variables, known_variables()),
        *values.problems,
        *check_feeds(values.found.get(FEEDS, [])),
        *declared.problems,
        *(text for texts in idle.values() for text in texts),
    ]
    for problem in problems:
        found.setdefault(problem, []).append(host)
    for text in [*values.unknown, *expired]:
        remarks.setdefault(text, []).append(host)


def _lines(found: Found) -> list[str]:
    return [f"{some_of(hosts, _MAX_HOSTS)}: {text}" for text, hosts in found.items()]
