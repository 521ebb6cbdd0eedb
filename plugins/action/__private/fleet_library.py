# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Send the programs of a fleet's node if the node lacks this version of them."""

from __future__ import annotations

import pathlib
import typing as t

from ansible.errors import AnsibleActionFail
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._archive import NODE, collect
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import (
    TransferAction,
    Upload,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import (
        Arguments,
        Result,
    )

_COLLECTION = pathlib.Path(__file__).resolve().parents[3]


class ActionModule(TransferAction):
    """Asks the module first."""

    module_name = "packetwatch.xdp.__private.fleet_library"

    def execute(self, arguments: Arguments, task_vars: dict[str, t.Any] | None) -> Result:
        try:
            software = collect(_COLLECTION, NODE)
        except (KeyError, OSError, ValueError) as error:
            raise AnsibleActionFail(
                f"cannot read the collection's software: {error}; install the collection again"
            ) from error
        arguments = arguments | {"name": software.name, "manifest": software.manifest}
        result = super().execute(arguments, task_vars)
        if not result.get("lacks"):
            return result
        archive = self._send("archive", Upload(software.name, software.pack()))
        return super().execute(arguments | {"archive": archive}, task_vars)
