# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send the sources of the XDP program and of the next one, and confirm the change."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.packetwatch.xdp.plugins.module_utils._kernel.source import (
    BODY,
    PREFACE,
    flatten,
    flatten_alone,
)
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._confirm import ChangeAction
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._program import OWN, own_source
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import Upload

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import Arguments


class ActionModule(ChangeAction):
    """Sends each source as one text, so that the host loads what the controller has."""

    module_name = "packetwatch.xdp.program"

    def files(self, arguments: Arguments) -> dict[str, Upload]:
        if arguments.get("state") == "detached":
            return {}
        sent = {}
        if arguments.get("src") is None:
            sent["src"] = Upload(os.path.join(OWN, BODY), own_source().encode())
        if self.is_remote(arguments):
            return sent
        if arguments.get("src") is not None:
            path = os.path.abspath(self.find(arguments["src"]))
            beside = os.path.dirname(path)
            directory = beside if os.path.exists(os.path.join(beside, PREFACE)) else OWN
            sent["src"] = Upload(path, flatten(directory, path).encode())
        if arguments.get("next_src") is not None:
            path = os.path.abspath(self.find(arguments["next_src"]))
            sent["next_src"] = Upload(path, flatten_alone(path).encode())
        return sent
