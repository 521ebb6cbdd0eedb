# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Read the variables of the role on the controller, then let the module check them and the host."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.digest import digest_text
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._program import own_source
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._variables import (
    FEEDS,
    check_feeds,
    evaluate,
    known_variables,
    unknown_variables,
    without_secrets,
)


class ActionModule(ActionBase):
    """Checks names on the controller, which alone sees them, and the feeds, which have secrets.

    Secrets of the fleet stay on the controller until the role writes them to the host.
    """

    _VALID_ARGS = frozenset({"packages"})

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Run the module, with all variables and what is wrong with them."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        problems = list(unknown_variables(variables, known_variables()))
        values = evaluate(variables, self._templar)
        problems += [*values.problems, *values.unknown]
        problems += check_feeds(values.found.pop(FEEDS, []))
        arguments = {
            "variables": without_secrets(values.found),
            "problems": problems,
            "program": digest_text(own_source()),
        }
        return result | self._execute_module(
            module_args=self._task.args | arguments, task_vars=task_vars
        )
