# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Refuse variables that the role does not know, then let the module check the host."""

from __future__ import annotations

import difflib
import pathlib
import re
import typing as t

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.digest import digest_text
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._policy import declared_policy
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._program import own_source

_ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "packetwatch"
_LIST = re.compile(r"packetwatch_(allow|deny)__[a-z0-9_]+")
# Variables of the playbooks.
_OTHERS = ("packetwatch_batches", "packetwatch_hosts")


def unknown_variables(names: t.Iterable[str], known: t.Collection[str]) -> t.Iterator[str]:
    """Explain each variable that begins as ours and is unknown: what was perhaps meant."""
    for name in sorted(names):
        if not name.startswith("packetwatch_") or name in known or _LIST.fullmatch(name):
            continue
        kind, lists, _suffix = name.partition("__")
        near = difflib.get_close_matches(kind, known, 1)
        if lists and kind in ("packetwatch_allow", "packetwatch_deny"):
            hint = "what follows the two underscores may hold only a-z, 0-9 and _"
        elif near:
            hint = f"did you mean {near[0]}{lists and '__NAME'}?"
        else:
            hint = "the variables of the role are in the README of the collection"
        yield f"the variable {name} is unknown: {hint}"


def known_variables() -> list[str]:
    """The names of the role's variables."""
    text = (_ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    return [*yaml.safe_load(text)["argument_specs"]["main"]["options"], *_OTHERS]


class ActionModule(ActionBase):
    """Checks names on the controller, which alone sees them, and the host by the module."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Run the module, unless a variable is unknown; the policy of all interfaces is added."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        problems = list(unknown_variables(variables, known_variables()))
        if problems:
            raise AnsibleActionFail(f"{'; '.join(problems)} (nothing was changed)")
        policy = {"policy": declared_policy(variables, self._templar)}
        program = {"program": digest_text(own_source())}
        arguments = self._task.args | policy | program
        done = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result | done | policy
