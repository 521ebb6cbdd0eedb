# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process with parts: they run in a loop, from the first to the last."""

from __future__ import annotations

import signal

from . import __version__
from .loop import Loop
from .output import Output
from .part import Parts
from .presence import Presence


class Service:
    """Runs the parts until SIGTERM, or until one of them stops the loop. doing: what systemd shows meanwhile."""

    def __init__(
        self,
        loop: Loop,
        parts: Parts,
        presence: Presence,
        output: Output,
        doing: str = "following the program",
    ) -> None:
        self._loop = loop
        self._parts = parts
        self._presence = presence
        self._output = output
        self._doing = doing

    def run(self) -> bool:
        """Serve; return whether the process was asked to end.

        The agent's parts write what is then in the ring, and save the bans.
        """
        self._presence.begin()
        self._loop.on_signal(signal.SIGHUP, self._reload)
        self._parts.start(self._loop)
        self._output.say("info", f"started, version {__version__}")
        self._presence.ready(self._doing)
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
