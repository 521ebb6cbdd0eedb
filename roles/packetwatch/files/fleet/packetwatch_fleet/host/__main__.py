# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m packetwatch_fleet.host``: the fleet process of a host."""

from __future__ import annotations

import os
import sys

from packetwatch_agent.loop import Loop
from packetwatch_agent.output import Output
from packetwatch_agent.part import Parts
from packetwatch_agent.presence import Presence
from packetwatch_agent.service import Service
from packetwatch_core._base.errors import PacketwatchError

from ..fold import Board
from ..process import serve
from ..sources import Sources
from ..store.plugins import open_store
from .applier import Applier
from .picture import Picture
from .settings import FleetSettings
from .status import Status
from .witness import Witness


def assemble(settings: FleetSettings, output: Output) -> Service:
    """Make the process: its parts, and what each of them is given. Raises `PacketwatchError`."""
    store = open_store(settings.store, os.environ)
    if store is None:
        raise PacketwatchError("PW_FLEET_STORE is none: this host is in no fleet")
    sources = Sources(settings.shared_prefixes)
    board = Board(sources, settings.enforcers)
    path = settings.agent_socket
    picture = Picture(store, board, settings.state_dir, output)
    applier = Applier(path, picture, sources, output)
    witness = Witness(
        store, settings.host_name, path, picture, applier, sources, settings.takes, output
    )
    parts = Parts(picture, applier, witness, Status(picture, applier, witness, board, sources))
    loop = Loop()
    presence = Presence(loop, settings, output, parts)
    return Service(loop, parts, presence, output, "following the store")


def main() -> int:
    """Serve until SIGTERM; return 0, or 2 if a setting is wrong."""
    return serve(FleetSettings, "packetwatch_fleet", assemble)


if __name__ == "__main__":
    sys.exit(main())
