# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent follows: the maps of the loaded program, and confirmed state."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.errors import PacketwatchError

from .confirmed import Confirmed
from .drift import Drift
from .outlook import Outlook
from .part import Part

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map
    from packetwatch_core._kernel.pins import Pins

    from .loop import Loop

MAPS = (
    "bans",
    "scan_bans",
    "overflow",
    "hosts",
    "nets",
    "local",
    "open_ports",
    "events",
    "counters4",
    "shared",
    "tracks2",
    "firsts2",
)
_CONFIRMED_PERIOD = 5.0
_PINS_PERIOD = 2.0


class Following(Part):
    """Stops the loop when the pinned maps are no longer those that the agent has open."""

    def __init__(
        self,
        pins: Pins,
        maps: t.Mapping[str, Map],
        confirmed: Confirmed,
        outlook: Outlook,
        drift: Drift,
        complain: t.Callable[[str], None],
    ) -> None:
        self._pins = pins
        self._maps = maps
        self._confirmed = confirmed
        self._outlook = outlook
        self._drift = drift
        self._complain = complain

    def start(self, loop: Loop) -> None:
        self._read_confirmed()
        loop.after(_CONFIRMED_PERIOD, self._read_confirmed)
        loop.after(_PINS_PERIOD, lambda: self._check_pins(loop))
        self._drift.watch(loop, self._outlook, self._find_drift)

    def reload(self) -> None:
        self._read_confirmed(force=True)

    def stop(self) -> None:
        for bpf_map in self._maps.values():
            bpf_map.close()

    def _read_confirmed(self, force: bool = False) -> float:
        try:
            self._confirmed.refresh(force)
        except PacketwatchError as error:
            self._complain(f"confirmed state cannot be read: {error}")
        return _CONFIRMED_PERIOD

    def _check_pins(self, loop: Loop) -> float:
        """No program writes to maps that are not pinned."""
        try:
            if not self._pins.holds("shared", self._maps["shared"]):
                loop.stop()
        except PacketwatchError as error:
            self._complain(str(error))
        return _PINS_PERIOD

    def _find_drift(self) -> list[str]:
        unpinned = [name for name in MAPS if not self._pins.holds(name, self._maps[name])]
        return self._outlook.drift(unpinned)
