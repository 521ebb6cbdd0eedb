# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps protected and local addresses current, and takes bans off what became protected."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._bans.bans import MAPS, Ban, Bans, Source
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._kernel import netlink
from packetwatch_core._network import protect

from .output import Output, Trouble
from .settings import Settings

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map

_SETTLE = 0.5
_PERIOD = 10.0
# Of one core: a router's million routes take a second to read, and may change all the time.
_SHARE = 0.05


class Guard:
    """What is protected now. Changes of addresses and routes are seen at once, files and SSH
    clients every ten seconds."""

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
        self._names: dict[int, str] = {}
        self._names_read = 0.0
        self._names_current = False
        self._due = 0.0
        self._earliest = 0.0
        self._trouble = Trouble(output)
        self.protection = protect.Protection({}, {}, set(), [])

    def changed(self) -> None:
        """The kernel says that addresses, routes or links have changed."""
        self._names_current = False
        self._due = min(self._due, time.monotonic() + _SETTLE)

    def tick(self) -> float:
        """Refresh if it is time to; returns seconds until the next look."""
        now = time.monotonic()
        if now >= max(self._due, self._earliest):
            self.refresh()
            after = time.monotonic()
            self._due = after + _PERIOD
            self._earliest = after + (after - now) / _SHARE
        return _SETTLE

    def refresh(self) -> None:
        """Bring the maps in line; what cannot be read or written is told once, and tried again."""
        settings = self._settings
        trouble = ""
        try:
            former = self.protection
            network = protect.read_network()
            self.protection = protect.compute(settings.protect, settings.protect_auto, network)
            left_out = protect.write(self.protection, self._maps).left_out
            self._spare(former)
            self._on_network(network)
            problems = list(self.protection.problems)
            if left_out:
                problems.append("the maps have no room for all that was learned")
            trouble = "; ".join(problems)
        except (PacketwatchError, OSError) as error:
            trouble = str(error)
        self._trouble.tell(f"protected addresses are not current: {trouble}" if trouble else "")

    def name(self, ifindex: int) -> str:
        """Name of an interface, empty if there is none."""
        if not self._names_current or ifindex not in self._names:
            self._read_names()
        return self._names.get(ifindex, "")

    def counts(self) -> dict[str, int]:
        """Protected addresses by origin."""
        found = dict.fromkeys(protect.ORIGINS.values(), 0)
        for origin in self.protection.hosts.values():
            found[protect.ORIGINS[origin]] += 1
        return found

    def _read_names(self) -> None:
        """At most once a second: an event may name an interface that is gone."""
        now = time.monotonic()
        if now - self._names_read < 1.0:
            return
        self._names_read = now
        self._names_current = True
        try:
            self._names = {link.ifindex: link.name for link in netlink.links()}
        except PacketwatchError as error:
            self._output.say("warn", f"names of interfaces are not current: {error}")

    def _spare(self, former: protect.Protection) -> None:
        """Lift the bans on what has become protected since `former`."""
        if self.protection.nets != former.nets:
            for ban in self._bans.walk():
                if self._bans.protection_of(ban.source) and self._bans.remove(ban):
                    self._on_lift(ban)
            return
        for address in self.protection.hosts.keys() - former.hosts.keys():
            for table in MAPS:
                found = self._bans.find(Source(128, address), table)
                if found and self._bans.remove(found):
                    self._on_lift(found)
