# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Confirm a rollback."""

from __future__ import annotations

from ansible_collections.packetwatch.xdp.plugins.plugin_utils._confirm import ChangeAction


class ActionModule(ChangeAction):
    """Confirms what the module changes."""

    module_name = "packetwatch.xdp.rollback"
