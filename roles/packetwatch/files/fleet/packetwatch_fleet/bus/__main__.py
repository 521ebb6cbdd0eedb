# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m packetwatch_fleet.bus``: publishes a host's events."""

from __future__ import annotations

import os
import sys

from packetwatch_agent.loop import Loop
from packetwatch_agent.output import Output
from packetwatch_agent.part import Parts
from packetwatch_agent.presence import Presence
from packetwatch_agent.service import Service

from ..process import serve
from .plugins import open_bus
from .publisher import Publisher
from .settings import BusSettings


def assemble(settings: BusSettings, output: Output) -> Service:
    """Make the process: its one part, and what it is given. Raises `PacketwatchError`."""
    bus = open_bus(settings.bus, os.environ)
    publisher = Publisher(bus, settings.host_name, settings.events, settings.agent_socket, output)
    parts = Parts(publisher)
    loop = Loop()
    presence = Presence(loop, settings, output, parts)
    return Service(loop, parts, presence, output, "publishing events")


def main() -> int:
    """Publish until SIGTERM; return 0, or 2 if a setting is wrong."""
    return serve(BusSettings, "packetwatch_bus", assemble)


if __name__ == "__main__":
    sys.exit(main())
