# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent while a filter is loaded: its parts in a loop, from the first to the last."""

from __future__ import annotations

import signal

from . import __version__
from .loop import Loop
from .output import Output
from .part import Parts
from .presence import Presence


class Service:
    """Runs the parts until SIGTERM, or until one of them stops the loop."""

    def __init__(self, loop: Loop, parts: Parts, presence: Presence, output: Output) -> None:
        self._loop = loop
        self._parts = parts
        self._presence = presence
        self._output = output

    def run(self) -> bool:
        """Serve; return whether the agent was asked to end.

        The parts write what is then in the ring, and save the bans.
        """
        self._presence.begin()
        self._loop.on_signal(signal.SIGHUP, self._reload)
        self._parts.start(self._loop)
        self._output.say("info", f"started, version {__version__}")
        self._presence.ready("following the program")
        self._loop.run()
        self._parts.stop()
        self._presence.end()
        self._loop.close()
        self._output.say("info", "stopped" if self._presence.stopping else "the filter is unloaded")
        return self._presence.stopping

    def _reload(self) -> None:
        """SIGHUP. Settings need a restart."""
        self._parts.reload()
        self._output.say("info", "reloaded")
