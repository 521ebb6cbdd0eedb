# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds out whether a banned source has proved its address by a connection with this host.

The kernel compares all its connections with the source: 0.3 ms, and 0.3 ms for each thousand of them. So the
share of a core that this may take is limited. In a flood of bans, most are not examined.
"""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._kernel import abi
from packetwatch_core._network.connected import is_connected

from .events import Event
from .output import Output, Trouble

_SHARE = 0.01
# Seconds of processor time that may be saved up, so that a few bans at once are all examined.
_BURST = 0.02


class Witness:
    """Examines bans."""

    def __init__(self, output: Output, clock: t.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = _BURST
        self._filled = clock()
        self._trouble = Trouble(output)

    def examine(self, event: Event) -> Event:
        """Return the event of a ban, with `EVENT_ANSWER` if its source has a connection."""
        now = self._clock()
        self._left = min(self._left + (now - self._filled) * _SHARE, _BURST)
        self._filled = now
        if self._left <= 0:
            return event
        started = time.thread_time()
        try:
            is_proved = is_connected(event.source.prefix)
            self._trouble.log("")
        except PacketwatchError as error:
            is_proved = False
            self._trouble.log(f"no ban has the evidence answer: {error}")
        self._left -= time.thread_time() - started
        return event._replace(flags=event.flags | abi.EVENT_ANSWER) if is_proved else event
