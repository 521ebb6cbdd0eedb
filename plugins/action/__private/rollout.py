# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The gate between two batches of hosts.

Ansible itself stops a rollout after a failed host, but not after an unreachable one.
"""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import some_of
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._notes import Notes

_MAX_SHOWN = 10


class ActionModule(ActionBase):
    """Keeps its notes on the controller, and runs nothing on hosts."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Note that a host is done, or fail if a host of an earlier batch is not."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        dummy, options = self.validate_argument_spec(
            {"phase": {"choices": ["begin", "end"], "required": True}}
        )
        notes = Notes("rollout")
        if options["phase"] == "end":
            notes.leave(variables["inventory_hostname"], True)
            return result | {"changed": False}
        lost = unfinished(
            variables["ansible_play_hosts_all"], variables["ansible_play_batch"], notes.read()
        )
        if lost:
            raise AnsibleActionFail(
                f"hosts of earlier batches were not completed: {some_of(lost, _MAX_SHOWN)}; "
                "this host and those after it were not changed: repair these hosts, then run the play again"
            )
        return result | {"changed": False}


def unfinished(
    hosts: t.Sequence[str], batch: t.Container[str], done: t.Container[str]
) -> list[str]:
    """Hosts of earlier batches that are not done; hosts: all hosts of the play, in its order."""
    earlier: list[str] = []
    for host in hosts:
        if host in batch:
            break
        earlier.append(host)
    return [host for host in earlier if host not in done]
