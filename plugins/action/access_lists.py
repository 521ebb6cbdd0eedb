# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send the files of lists, and confirm the change."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._confirm import ChangeAction
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import Upload

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import (
        Arguments,
        Result,
    )


class ActionModule(ChangeAction):
    """Sends the files that the options allow_src and deny_src name."""

    module_name = "packetwatch.xdp.access_lists"

    def execute(self, arguments: Arguments, task_vars: dict[str, t.Any] | None) -> Result:
        for option in ("allow", "deny"):
            # The module cannot tell null from an option that was left out.
            if option in arguments and arguments[option] is None:
                raise AnsibleActionFail(
                    f"{option} is empty (null), and nothing was changed: write a list of entries, or [] "
                    f"for none, or leave {option} out to keep the list as it is"
                )
        return super().execute(arguments, task_vars)

    def files(self, arguments: Arguments) -> dict[str, Upload]:
        if self.is_remote(arguments):
            return {}
        found = {}
        for option in ("allow_src", "deny_src"):
            if arguments.get(option) is not None:
                path = self.find(arguments[option])
                found[option] = Upload(path, self.read(path))
        return found
