# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent while no filter is loaded: it serves metrics that say so, and waits for the maps."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._health.problems import Facts
from packetwatch_core._network.fleet import OFF

from .confirmed import Confirmed
from .control.commands import WAITING, about, without_filter
from .control.watch import Watch
from .drift import Drift
from .loop import Loop
from .metrics import Rows, Values
from .outlook import Outlook
from .output import Complaints, Output
from .part import Part, Parts
from .presence import Presence
from .process import Process
from .settings import Settings

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map
    from packetwatch_core._kernel.pins import Pins

    from .control.requests import Command

_PERIOD = 2.0
_BLIND = 60.0


class Waiting(Part):
    """Waits for the maps of `names`."""

    METRICS: t.ClassVar[Rows] = Outlook.METRICS

    def __init__(
        self,
        pins: Pins,
        names: t.Sequence[str],
        settings: Settings,
        output: Output,
        drift: Drift,
    ) -> None:
        self._pins = pins
        self._names = names
        self._output = output
        self._drift = drift
        self._has_fleet = settings.fleet != OFF
        self._process = Process()
        self._patience = time.monotonic() + _BLIND
        self._warn = Complaints(output)
        self._confirmed = Confirmed(settings.config_dir)
        self._loop = Loop()
        self._outlook = Outlook(settings, self._confirmed, self._warn)
        parts = Parts(self._process, drift, self, Watch(output))
        self._presence = Presence(self._loop, settings, output, parts)
        self._maps: dict[str, Map] | None = None

    def run(self) -> dict[str, Map] | None:
        """The maps by name as soon as all are there; None: the agent has to end."""
        if self._open() is not None:
            self._presence.begin()
            self._loop.after(_PERIOD, self._open)
            self._drift.watch(self._loop, self._outlook, self._drifted)
            self._presence.ready("no filter is loaded")
            self._loop.run()
            self._presence.end()
        self._loop.close()
        return self._maps

    def values(self) -> Values:
        absent = [({"interface": name, "mode": "none"}, 0.0) for name in self._interfaces()]
        return self._outlook.values() | {"packetwatch_attached": absent}

    def facts(self, known: Facts) -> Facts:
        return self._outlook.facts(known)._replace(is_loaded=False)

    def commands(self) -> dict[str, Command]:
        return without_filter(self._about, self._has_fleet)

    def _about(self) -> dict[str, t.Any]:
        self._interfaces()
        return about(WAITING, self._process.started, self._outlook.modes())

    def _open(self) -> float | None:
        try:
            self._maps = self._pins.open_run_maps(self._names)
        except PacketwatchError as error:
            self._warn(str(error))
            if self._presence.is_unit and self._is_blind():
                self._output.say("info", "a filter is there, but not its maps: restarting")
                self._loop.stop()
                return None
            return _PERIOD
        self._loop.stop()
        return None

    def _is_blind(self) -> bool:
        """Whether a filter has been attached for a while whose maps this process cannot see.

        It sees the maps through a mount that systemd made when it started. The one-shot that makes
        the maps restarts the agent, but may have died before it could.
        """
        return time.monotonic() >= self._patience and self._is_filtered()

    def _drifted(self) -> list[str]:
        """What has drifted."""
        self._interfaces()
        return self._outlook.drift() or self._outlook.drift(is_blind=self._is_filtered())

    def _is_filtered(self) -> bool:
        """Whether a program is on an interface of confirmed state."""
        self._interfaces()
        return any(mode != "none" for mode in self._outlook.modes().values())

    def _interfaces(self) -> list[str]:
        try:
            self._confirmed.refresh()
        except PacketwatchError as error:
            self._warn(str(error))
        return self._confirmed.interfaces
