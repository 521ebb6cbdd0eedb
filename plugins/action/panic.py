# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Confirm the end of a panic; its beginning locks nobody out."""

from __future__ import annotations

import typing as t

from ansible_collections.packetwatch.xdp.plugins.plugin_utils._confirm import ChangeAction

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import (
        Arguments,
        Result,
    )


class ActionModule(ChangeAction):
    """Confirms the end of a panic; the panic itself takes effect at once."""

    module_name = "packetwatch.xdp.panic"

    def execute(self, arguments: Arguments, task_vars: dict[str, t.Any] | None) -> Result:
        if arguments.get("state") != "absent":
            arguments = arguments | {"confirm_timeout": 0}
        return super().execute(arguments, task_vars)
