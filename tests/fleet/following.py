# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Users of real nodes: stores through the gates, and followers that a test drives."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterator

from fleet.host_process import PATIENCE
from fleet.servers import FleetNodes

from packetwatch_core._network.endpoints import Endpoint
from packetwatch_core._node.keys import KEYS
from packetwatch_fleet.store.interface import Change, Follower, Gone, Lost, Put, Relisted, Writer
from packetwatch_fleet.store.plugins import open_store


def settings(nodes: FleetNodes, host: str, *gates: int) -> dict[str, str]:
    """The variables of a host's fleet process. gates: in the order of their numbers; none: all."""
    credentials = nodes.host_credentials(host)
    password = credentials.certificate.with_suffix(".password")
    password.write_text(credentials.password + "\n")
    chosen = gates or range(len(nodes.gates))
    endpoints = [
        f"{nodes.nodes[number].name}={Endpoint('', *nodes.gates[number])}" for number in chosen
    ]
    return {
        "PW_FLEET_STORE": "etcd",
        "PW_FLEET_HOST": host,
        "PW_FLEET_ENDPOINTS": ",".join(endpoints),
        "PW_FLEET_ACCOUNT": host,
        "PW_FLEET_PASSWORD_FILE": str(password),
        "PW_FLEET_CA": str(credentials.authority),
        "PW_FLEET_CERTIFICATE": str(credentials.certificate),
    }


class Mirror:
    """What a follower knows: every change is applied, as a host does it."""

    def __init__(self, nodes: FleetNodes, host: str, *gates: int) -> None:
        self._nodes = nodes
        store = open_store("etcd", settings(nodes, host, *gates))
        assert store
        self.store = store
        self.items: dict[str, bytes] = {}
        self.changes: list[tuple[float, Change]] = []
        with nodes.lan.entered():
            self.follower: Follower = store.follow(f"{KEYS}bans/", f"{KEYS}lifts/")
            self.writer: Writer = store.writer()

    def close(self) -> None:
        self.follower.close()
        self.writer.close()

    def until(self, holds: Callable[[], bool], seconds: float = PATIENCE) -> float:
        """Drive until something holds; return the seconds that it took."""
        began = time.monotonic()
        while not holds():
            left = began + seconds - time.monotonic()
            assert left > 0, (self.items, self.changes[-5:])
            self._turn(min(left, 0.2))
        return time.monotonic() - began

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._turn(min(left, 0.2))

    def kinds(self) -> list[str]:
        """The names of all changes so far, without repetitions."""
        names = [type(change).__name__ for dummy, change in self.changes]
        return [name for at, name in enumerate(names) if not at or names[at - 1] != name]

    def _turn(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self.follower, select.POLLIN)
        poll.register(self.writer, select.POLLIN)
        due = min(self.follower.deadline(), self.writer.deadline()) - time.monotonic()
        poll.poll(max(0.0, min(due, seconds)) * 1000)
        # The sockets that a step opens belong to the namespace.
        with self._nodes.lan.entered():
            self.writer.step()
            for change in self.follower.step():
                self._apply(change)

    def _apply(self, change: Change) -> None:
        self.changes.append((time.monotonic(), change))
        if isinstance(change, Put):
            self.items[change.key.removeprefix(KEYS)] = change.value
        elif isinstance(change, Gone):
            self.items.pop(change.key.removeprefix(KEYS), None)
        elif isinstance(change, Relisted):
            found = change.snapshot.items
            self.items = {key.removeprefix(KEYS): value for key, (dummy, value) in found.items()}

    @property
    def is_following(self) -> bool:
        """Whether the last news is not that it lost the store."""
        return bool(self.changes) and not isinstance(self.changes[-1][1], Lost)


@contextlib.contextmanager
def mirror(nodes: FleetNodes, host: str = "host-a", *gates: int) -> Iterator[Mirror]:
    """A follower that has listed the store once."""
    found = Mirror(nodes, host, *gates)
    try:
        found.until(lambda: found.is_following)
        yield found
    finally:
        found.close()
