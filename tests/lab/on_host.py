# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Prints the fleet's bans on a host, as JSON: those in its kernel, and those that the store declares.

It runs on the host, with the library there. All is read anew: it asks neither the agent nor the fleet
process. Without the argument `store`, it does not ask for the store.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time

sys.path.insert(0, "/usr/lib/packetwatch/current")

from packetwatch_core._bans.bans import Bans
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.pins import Pins
from packetwatch_core._network.settings import read_values
from packetwatch_core._node.keys import BANS, LIFTS
from packetwatch_fleet.fold import Board
from packetwatch_fleet.store.plugins import open_store

_CREDENTIALS = {
    "PW_FLEET_CA": "/etc/packetwatch-fleet/ca.pem",
    "PW_FLEET_CERTIFICATE": "/etc/packetwatch-fleet/host.pem",
    "PW_FLEET_PASSWORD_FILE": "/etc/packetwatch-fleet/password",
}

Times = dict[str, tuple[float, float]]


def in_kernel() -> Times:
    """When each ban has begun, in seconds since 1970 by the host's clock, and the seconds until its end."""
    now, clock = time.monotonic(), time.time()
    with contextlib.closing(Bans.open(Pins())) as bans:
        return {
            ban.source.text: (ban.since / 1e9 - now + clock, ban.expires / 1e9 - now)
            for ban in bans.active()
            if ban.origin == abi.ORIGIN_FLEET
        }


def in_store() -> Times:
    """When each ban was made, in seconds since 1970 by the node's clock, and the seconds until its end."""
    settings = read_values("/etc/default/packetwatch")[0] | _CREDENTIALS
    store = open_store(settings["PW_FLEET_STORE"], settings)
    if store is None:
        raise SystemExit("this host is in no fleet")
    snapshot = store.read(BANS, LIFTS)
    board = Board()
    for key, (_revision, value) in snapshot.items.items():
        board.put(key, value)
    return {
        source: (ban.made, ban.until - snapshot.now) for source, ban in board.bans(snapshot.now)
    }


if __name__ == "__main__":
    print(json.dumps({"kernel": in_kernel(), "store": in_store() if sys.argv[1:] else {}}))
