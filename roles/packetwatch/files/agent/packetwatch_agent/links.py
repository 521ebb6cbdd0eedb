# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of interfaces, and the kernel's word that links, addresses or routes have changed."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._kernel import netlink

from .output import Output
from .part import Part

if t.TYPE_CHECKING:
    from .loop import Loop

_PAUSE = 1.0


class Links(Part):
    """Reads the names again after a change, and calls `on_change`."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._changes = netlink.Changes()
        self._names: dict[int, str] = {}
        self._read_at = 0.0
        self._is_current = False
        self.on_change: t.Callable[[], None] | None = None

    def start(self, loop: Loop) -> None:
        loop.watch(self._changes, self._on_change)

    def stop(self) -> None:
        self._changes.close()

    def name(self, ifindex: int) -> str:
        """Name of an interface, empty if there is none."""
        if not self._is_current or ifindex not in self._names:
            self._read()
        return self._names.get(ifindex, "")

    def _on_change(self) -> None:
        if self._changes.drain():
            self._is_current = False
            if self.on_change:
                self.on_change()

    def _read(self) -> None:
        """At most once a second: an event may have an interface that is gone."""
        now = time.monotonic()
        if now - self._read_at < _PAUSE:
            return
        self._read_at = now
        self._is_current = True
        try:
            self._names = {link.ifindex: link.name for link in netlink.links()}
        except PacketwatchError as error:
            self._output.say("warn", f"names of interfaces are not current: {error}")
