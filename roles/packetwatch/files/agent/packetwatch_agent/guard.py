# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps protected and local addresses current, and lifts bans of sources that become protected."""

from __future__ import annotations

import math
import time
import typing as t

from packetwatch_core._bans.bans import MAPS, Ban, Bans, Source
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._base.steps import finish
from packetwatch_core._health.problems import FROZEN
from packetwatch_core._network import protect
from packetwatch_core._network.settings import unknown_protection

from .metrics import GAUGE, Rows, Values, by_label
from .output import Output, Trouble
from .part import Part
from .settings import Settings

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map

    from .loop import Loop, Steps

_SETTLE = 0.5
_PERIOD = 10.0
# Maximum share of one core. Reading a router's million routes takes a second, and they may change all the
# time.
_MAX_SHARE = 0.05
# Bans that are compared in about a millisecond.
_EACH = 64


class Guard(Part):
    """Computes protected addresses and writes them to the maps.

    on_lift: called with each ban that was lifted. on_network: called with each snapshot of the
    network. The kernel reports changes of addresses and routes. Files and SSH clients are read
    every ten seconds.
    """

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_protected_addresses": (GAUGE, "Addresses that are never banned, by origin."),
    }

    def __init__(
        self,
        maps: t.Mapping[str, Map],
        settings: Settings,
        output: Output,
        on_lift: t.Callable[[Ban], None],
        on_network: t.Callable[[protect.Network], None],
    ) -> None:
        self._maps = maps
        self._settings = settings
        self._output = output
        self._bans = Bans(maps)
        self._on_lift = on_lift
        self._on_network = on_network
        self._due = 0.0
        self._earliest = 0.0
        self._trouble = Trouble(output)
        self.protection = protect.Protection({}, {}, set(), [])

    def start(self, loop: Loop) -> None:
        self.refresh()
        loop.after(0, self.tick)

    def reload(self) -> None:
        self.refresh()

    def values(self) -> Values:
        return {"packetwatch_protected_addresses": by_label("origin", self.counts())}

    def changed(self) -> None:
        """Refresh soon: addresses, routes or links have changed."""
        self._due = min(self._due, time.monotonic() + _SETTLE)

    def tick(self) -> Steps:
        """Refresh if it is due; return seconds until the next call."""
        now = time.monotonic()
        if now >= max(self._due, self._earliest):
            # What changes meanwhile brings the next refresh forward.
            self._due = math.inf
            yield from self._refresh()
            after = time.monotonic()
            self._due = min(self._due, after + _PERIOD)
            self._earliest = after + (after - now) / _MAX_SHARE
        return _SETTLE

    def refresh(self) -> None:
        """Do all of `_refresh` at once."""
        finish(self._refresh())

    def _refresh(self) -> Steps:
        """Bring the maps up to date; log an error once, and try again at the next call."""
        settings = self._settings
        trouble = ""
        try:
            former = self.protection
            network = yield from protect.read_network_in_steps()
            self.protection = protect.compute(
                settings.protect, settings.protect_auto, network, shared=settings.shared_prefixes
            )
            # What a wrong setting protected is unknown: no present entry is removed because of it.
            self.protection.problems.extend(unknown_protection(settings.problems))
            yield
            left_out = protect.write(self.protection, self._maps).left_out
            frozen = protect.frozen(self._maps)
            yield from self._spare(former)
            self._on_network(network)
            problems = list(self.protection.problems)
            if left_out:
                problems.append(f"the maps have no room for {left_out} of the learned addresses")
            if frozen:
                problems.append(f"the maps {', '.join(frozen)} are frozen: {FROZEN}")
            trouble = "; ".join(problems)
        except (PacketwatchError, OSError) as error:
            trouble = str(error)
        self._trouble.log(f"protected addresses are not current: {trouble}" if trouble else "")
        return None

    def counts(self) -> dict[str, int]:
        """Protected addresses by origin."""
        found = dict.fromkeys(protect.ORIGINS.values(), 0)
        for origin in self.protection.hosts.values():
            found[protect.ORIGINS[origin]] += 1
        return found

    def _spare(self, former: protect.Protection) -> t.Iterator[None]:
        """Lift the bans of sources that have become protected since `former`."""
        if self.protection.nets != former.nets:
            for number, ban in enumerate(self._bans.walk()):
                if not number % _EACH:
                    yield
                if self._bans.protection_of(ban.source) and self._bans.pardon(ban):
                    self._on_lift(ban)
            return
        for address in self.protection.hosts.keys() - former.hosts.keys():
            for table in MAPS:
                found = self._bans.find(Source(128, address), table)
                if found and self._bans.pardon(found):
                    self._on_lift(found)
