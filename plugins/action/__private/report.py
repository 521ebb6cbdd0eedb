# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Ask each host for its state, and report on all hosts at once."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.packetwatch.xdp.plugins.module_utils._active.lists import pair_digest
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import (
    InvalidInput,
    PacketwatchError,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.edits import list_text
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.policy import (
    DEFAULT,
    fields_from_options,
    merge_policy,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.store import ROLE, State
from ansible_collections.packetwatch.xdp.plugins.module_utils._health.info import program_digest
from ansible_collections.packetwatch.xdp.plugins.plugin_utils import _report
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._archive import collect
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._notes import Notes
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._policy import declared_policy
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._program import own_source

_COLLECTION = pathlib.Path(__file__).resolve().parents[3]
_MODULE = "packetwatch.xdp.host_info"
_SUBSET = ["change", "feeds", "interfaces", "lists", "panic", "policy", "version"]

Result = dict[str, t.Any]


class ActionModule(ActionBase):
    """Each host's task leaves a note; the last task, on one host, reads all notes."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        dummy, options = self.validate_argument_spec(
            {
                "phase": {"choices": ["ask", "show"], "required": True},
                "allow": {"type": "dict", "default": {}},
                "deny": {"type": "dict", "default": {}},
                "interfaces": {"type": "list", "elements": "raw"},
                "dest": {"type": "list", "elements": "path", "default": []},
            }
        )
        variables = task_vars or {}
        if options["phase"] == "show":
            return result | show(variables["ansible_play_hosts_all"], options["dest"])
        host = variables["inventory_hostname"]
        row = self._ask(host, options, variables)
        Notes("report").leave(host, dataclasses.asdict(row))
        return result | {"changed": False, "problems": row.problems}

    def _ask(self, host: str, options: Result, variables: dict[str, t.Any]) -> _report.Row:
        try:
            policy = declared_policy(variables, self._templar)
            wanted = wanted_of(options["allow"], options["deny"], policy, options["interfaces"])
        except PacketwatchError as error:
            raise AnsibleActionFail(str(error)) from error
        arguments = {"gather_subset": _SUBSET}
        try:
            info = self._execute_module(_MODULE, arguments, task_vars=variables)
        except AnsibleConnectionFailure as error:
            return _report.not_reached(host, str(error))
        if info.get("failed") or info.get("unreachable"):
            return _report.not_reached(host, str(info.get("msg", "no answer")))
        return _report.row(host, info, wanted)


def wanted_of(
    allow: t.Any,
    deny: t.Any,
    policy: t.Mapping[str, t.Any],
    interfaces: t.Sequence[t.Any] | None = None,
) -> _report.Wanted:
    """What the role would give a host with these variables; raises `InvalidInput` for a wrong one."""
    state = State(
        allow={ROLE: list_text(allow, "allow").text},
        deny={ROLE: list_text(deny, "deny").text},
    )
    default = fields_from_options(policy)
    policies = {DEFAULT: merge_policy(default)}
    modes = {}
    for index, item in enumerate(interfaces or ()):
        options = item if isinstance(item, dict) else {"name": item}
        name = options.get("name")
        if not isinstance(name, str) or name == DEFAULT:
            raise InvalidInput(
                f"packetwatch_interfaces[{index}]: {name!r} is not the name of an interface"
            )
        modes[name] = str(options.get("mode") or "auto")
        own = fields_from_options(options)
        if own:
            policies[name] = merge_policy(default, own, name)
    return _report.Wanted(
        ROLE,
        pair_digest(state, ROLE),
        # In the form in which a host returns it.
        json.loads(json.dumps({name: found._asdict() for name, found in policies.items()})),
        program_digest(own_source()),
        collect(_COLLECTION).name,
        None if interfaces is None else modes,
    )


def show(hosts: t.Sequence[str], destinations: t.Sequence[str]) -> Result:
    """Show the report and write it to files; it fails if a host has problems."""
    for path in destinations:
        if pathlib.Path(path).suffix not in _report.FORMATS:
            raise AnsibleActionFail(
                f"packetwatch_report: {path!r} has no known suffix; write one of "
                f"{', '.join(_report.FORMATS)}"
            )
    notes = Notes("report").read()
    rows = [
        _report.Row(**notes[host])
        if host in notes
        else _report.not_reached(host, "its task has failed")
        for host in hosts
    ]
    for path in destinations:
        try:
            text = _report.FORMATS[pathlib.Path(path).suffix](rows)
            pathlib.Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise AnsibleActionFail(f"cannot write {path}: {error.strerror}") from error
    Display().display(_report.as_text(rows))
    failed = not all(row.ok for row in rows)
    return {"changed": False, "failed": failed, "msg": _report.summary(rows)}
