# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Find lists in the inventory that have no effect."""

from __future__ import annotations

import typing as t

from ansible.inventory.manager import InventoryManager
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._levels import Levels


class ActionModule(ActionBase):
    """Reads the inventory on the controller, and asks no host."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Fail if there are such lists, and name them."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        sources = list((task_vars or {})["ansible_inventory_sources"])
        inventory = InventoryManager(loader=self._loader, sources=sources)
        hidden = [str(item) for item in Levels(inventory, self._loader, sources).hidden()]
        for item in hidden:
            Display().display(item)
        message = (
            f"{len(hidden)} lists have no effect, see above" if hidden else "no list is hidden"
        )
        return result | {"changed": False, "failed": bool(hidden), "msg": message}
