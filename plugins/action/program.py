# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring the XDP program's source: the collection's own, or the user's."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.packetwatch.xdp.plugins.module_utils._source import flatten
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import (
    Brought,
    TransferAction,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import Arguments

COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
OWN_SOURCE = os.path.join(COLLECTION, "roles", "packetwatch", "files", "bpf", "packetwatch.bpf.c")


class ActionModule(TransferAction):
    """Sends the source as one text, so that what is loaded is what the controller has."""

    module_name = "packetwatch.xdp.program"

    def files(self, arguments: Arguments) -> dict[str, Brought]:
        if arguments.get("state") == "detached":
            return {}
        if arguments.get("src") is None:
            path = OWN_SOURCE
        elif self.is_remote(arguments):
            return {}
        else:
            path = self.find(arguments["src"])
        text = flatten(os.path.dirname(path), os.path.basename(path))
        return {"src": Brought(path, text.encode())}
