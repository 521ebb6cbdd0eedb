# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports to the program which ports have a service, so that scan_grace begins when a service ends."""

from __future__ import annotations

import contextlib
import time
import typing as t

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._network import listeners, stack

from .output import Output, Trouble
from .part import Part

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map

    from .loop import Loop

# Pause between two readings in seconds, and the maximum share of one core that readings take meanwhile.
_MIN_PAUSE = 1.0
_MAX_PAUSE = 10.0
_SHARE = 0.0005


class Listeners(Part):
    """Writes the ports of all listening sockets with the present time to the map ``open_ports``.

    with_udp: whether sockets of UDP count too. It also writes what else the program must know of the
    network stack.
    """

    def __init__(
        self, maps: t.Mapping[str, Map], output: Output, with_udp: t.Callable[[], bool]
    ) -> None:
        self._maps = maps
        self._with_udp = with_udp
        self._trouble = Trouble(output)
        self._stack_trouble = Trouble(output)

    def start(self, loop: Loop) -> None:
        # If it cannot be written, `tick` says so.
        with contextlib.suppress(PacketwatchError, OSError):
            listeners.adopt(listeners.clock(), self._maps)
        loop.after(0, self.tick)

    def tick(self) -> float:
        """Read and write the ports; return seconds until the next call."""
        started = time.thread_time()
        trouble = ""
        # The time before the reading: a service that ends meanwhile may still be listed.
        now = listeners.clock()
        try:
            listeners.write(listeners.read_ports(self._with_udp()), now, self._maps)
        except (PacketwatchError, OSError) as error:
            trouble = (
                f"scan_grace counts from the last connection instead of a service's end: {error}"
            )
        self._trouble.log(trouble)
        self._write_stack()
        return min(max((time.thread_time() - started) / _SHARE, _MIN_PAUSE), _MAX_PAUSE)

    def _write_stack(self) -> None:
        trouble = ""
        try:
            stack.write_stack(self._maps)
        except (PacketwatchError, OSError) as error:
            trouble = f"only SYNs and stealth packets count towards scans: {error}"
        self._stack_trouble.log(trouble)
