# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemd, Prometheus, control clients and a heartbeat's receiver see of the agent."""

from __future__ import annotations

import os
import signal

from packetwatch_core._network.fleet import OFF

from .control.rights import Rights
from .control.server import Server as ControlServer
from .loop import Loop
from .output import Complaints, Output
from .part import Parts
from .scrape import Server
from .sdnotify import Notifier
from .settings import Settings

_RETRY = 10.0


class Presence:
    """Puts signals, watchdog, and the parts' metrics, commands and problems into a loop."""

    def __init__(
        self,
        loop: Loop,
        settings: Settings,
        output: Output,
        parts: Parts,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._output = output
        self._parts = parts
        self._notifier = Notifier(os.environ)
        self._server: Server | None = None
        self._control: ControlServer | None = None
        self._warn = Complaints(output)
        self.stopping = False
        """Whether a signal has asked the agent to end."""

    @property
    def is_unit(self) -> bool:
        """Whether systemd waits for notifications of the agent, and restarts it when it ends."""
        return self._notifier.is_heard

    def begin(self) -> None:
        """Handle signals, and open the metrics' port and the control socket if possible."""
        self._loop.on_signal(signal.SIGTERM, self._on_stop)
        self._loop.on_signal(signal.SIGINT, self._on_stop)
        self._begin_heartbeat()
        for listen in (self._listen, self._listen_for_control):
            again = listen()
            if again is not None:
                self._loop.after(again, listen)

    def ready(self, status: str) -> None:
        """Notify systemd that the agent is ready, and from now on that it is alive."""
        if self._notifier.interval:
            self._loop.after(0, self._sign_of_life)
        self._notifier.send("READY=1", f"STATUS={status}")

    def end(self) -> None:
        """Close what `begin` opened."""
        if self.stopping:
            self._notifier.send("STOPPING=1")
        if self._server:
            self._server.close()
        if self._control:
            self._control.close()

    def _begin_heartbeat(self) -> None:
        url = self._settings.heartbeat_url
        if url is None:
            return
        # Imported here: it costs memory, and most hosts have no heartbeat.
        from .heartbeat import Heartbeat

        interval = self._settings.heartbeat_interval
        heartbeat = Heartbeat(url, interval, self._output, self._parts.problems)
        heartbeat.begin(self._loop)
        self._parts.add(heartbeat)

    def _on_stop(self) -> None:
        self.stopping = True
        self._loop.stop()

    def _listen(self) -> float | None:
        """Open the metrics' port; if that fails, logging goes on, and the loop tries again later."""
        listen = self._settings.metrics_listen
        if listen is None:
            return None
        try:
            self._server = Server(self._loop, listen, self._parts.page)
        except OSError as error:
            self._warn(f"no metrics: PW_METRICS_LISTEN {listen[0]} {listen[1]}: {error.strerror}")
            return _RETRY
        return None

    def _listen_for_control(self) -> float | None:
        """Open the control socket; if that fails, the loop tries again later."""
        settings = self._settings
        if not settings.control_socket:
            return None
        fleet = "" if settings.fleet == OFF else settings.fleet_user
        rights = Rights(settings.readers, settings.admins, fleet=fleet)
        try:
            self._control = ControlServer(
                self._loop, settings.control_socket, rights, self._parts.commands(), self._output
            )
        except OSError as error:
            self._warn(f"no control: PW_CONTROL_SOCKET {settings.control_socket}: {error.strerror}")
            return _RETRY
        return None

    def _sign_of_life(self) -> float:
        self._notifier.send("WATCHDOG=1")
        return self._notifier.interval
