# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks root for an apply when this host joins a network that the compiled feeds do not leave out."""

from __future__ import annotations

import typing as t

from packetwatch_core._feeds.spare import unknown_networks
from packetwatch_core._network.protect import connected

from .request import ask

if t.TYPE_CHECKING:
    from packetwatch_core._network.protect import Network

    from .output import Output
    from .settings import Settings


class Networks:
    """Compares the host's networks with root's note; asks only once for the same networks."""

    def __init__(self, settings: Settings, output: Output) -> None:
        self._note = settings.spared_file
        self._request = settings.apply_request
        self._output = output
        self._asked: set[str] = set()

    def check(self, network: Network) -> None:
        """Compare a snapshot of addresses and routes."""
        new = unknown_networks(self._note, connected(network))
        if not new or new == self._asked:
            return
        self._asked = new
        self._output.say("info", f"feeds are to leave out new networks: {', '.join(sorted(new))}")
        ask(self._request)
