# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Confirm the return to the former state."""

from __future__ import annotations

import typing as t

from ansible_collections.packetwatch.xdp.plugins.plugin_utils._confirm import ChangeAction

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import (
        Arguments,
        Brought,
    )


class ActionModule(ChangeAction):
    """Has nothing to bring."""

    module_name = "packetwatch.xdp.rollback"

    def files(self, arguments: Arguments) -> dict[str, Brought]:
        return {}
