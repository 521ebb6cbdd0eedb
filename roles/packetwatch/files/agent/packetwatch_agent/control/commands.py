# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent answers on its socket: all that it knows, and bans, which are all it may change."""

from __future__ import annotations

import heapq
import itertools
import os
import sys
import typing as t

from packetwatch_core._bans.bans import Ban, Bans
from packetwatch_core._base.address import format_prefix, from_mapped
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._kernel.counters import packets_by_reason, read_counters

from .. import __version__
from . import banning, wire
from .rights import CHANGE, READ
from .server import Command, Handler, Items
from .talkers import Talkers

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map

    from ..guard import Guard

_MOST = 50

FOLLOWING, WAITING = "following the program", "no filter is loaded"


def about(state: str, started: float, modes: dict[str, str]) -> wire.Result:
    """The agent, and the mode in which each declared interface is filtered."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "since": round(started, 3),
        "state": state,
        "interfaces": modes,
    }


def packets(counters: Map) -> dict[str, int]:
    """Packets by "verdict reason", of all families."""
    return packets_by_reason(read_counters(counters))


RIGHTS = {
    "status": READ,
    "bans": READ,
    "protect": READ,
    "why": READ,
    "top": READ,
    "ban": CHANGE,
    "unban": CHANGE,
}


def without_filter(status: t.Callable[[], wire.Result]) -> dict[str, Command]:
    """The table of an agent that waits for a filter: the rights are the same."""

    def refuse(request: wire.Request) -> wire.Result:
        raise wire.ControlError(
            "the agent sees no filter (systemctl status 'packetwatch-xdp@*'); if there is one, "
            "systemctl restart packetwatch"
        )

    table = {name: Command(level, refuse) for name, level in RIGHTS.items()}
    return table | {"status": Command(READ, lambda dummy: status())}


class Commands:
    """The table of commands, on the maps that the agent has."""

    def __init__(
        self,
        maps: t.Mapping[str, Map],
        talkers: Talkers,
        guard: Guard,
        status: t.Callable[[], wire.Result],
        changed: t.Callable[[], None],
    ) -> None:
        self._maps = maps
        self._bans = Bans(maps)
        self._talkers = talkers
        self._guard = guard
        self._names = guard.name
        self._status = status
        self._changed = changed

    def table(self) -> dict[str, Command]:
        """Right and handler by name; docs/control.md has it for readers."""
        handlers: dict[str, Handler] = {
            "status": lambda dummy: self._status(),
            "bans": lambda dummy: self._list_bans(),
            "protect": lambda dummy: self._list_protected(),
            "why": self._why,
            "top": self._top,
            "ban": self._ban,
            "unban": self._unban,
        }
        return {name: Command(RIGHTS[name], handler) for name, handler in handlers.items()}

    def _list_bans(self) -> Items:
        return self._stream(banning.listed(self._bans, self._names))

    def _list_protected(self) -> Items:
        return self._stream(banning.protected(self._maps))

    def _stream(self, items: t.Iterable[object]) -> Items:
        return itertools.chain(map(wire.item, items), [wire.done({})])

    def _why(self, request: wire.Request) -> wire.Result:
        return banning.why(self._bans, wire.text_of(request, "address"), self._names)

    def _ban(self, request: wire.Request) -> wire.Result:
        address, seconds = wire.text_of(request, "address"), wire.seconds_of(request, "duration")
        done = banning.impose(self._bans, address, seconds)
        self._changed()
        return done

    def _unban(self, request: wire.Request) -> wire.Result:
        done = banning.lift(self._bans, wire.text_of(request, "address"))
        self._changed()
        return done

    def _top(self, request: wire.Request) -> wire.Result:
        most = request.get("most", 10)
        if not isinstance(most, int) or not 1 <= most <= _MOST:
            raise InvalidInput(f"most is {most!r}: send a whole number from 1 to {_MOST}")
        return {
            "packets": packets(self._maps["counters"]),
            "sources": [
                {"source": _text(key), "connections": count}
                for key, count in self._talkers.sources(most)
            ],
            "ports": [
                {"port": int.from_bytes(key, sys.byteorder), "connections": count}
                for key, count in self._talkers.ports(most)
            ],
            "scans": [
                {
                    "source": _text(scan.address),
                    "seen": round(scan.seen, 3),
                    "ports": scan.ports,
                    "result": scan.result,
                }
                for scan in self._talkers.scans(most)
            ],
            "drops": self._most_dropped(most),
        }

    def _most_dropped(self, most: int) -> list[dict[str, t.Any]]:
        """Bans that have dropped most."""
        found = heapq.nlargest(
            most, (ban for ban in self._bans.walk() if ban.dropped), key=_dropped
        )
        return [
            {"source": ban.source.text, "origin": ban.origin_name, "dropped": ban.dropped}
            for ban in found
        ]


def _dropped(ban: Ban) -> int:
    return ban.dropped


def _text(address: bytes) -> str:
    return format_prefix(from_mapped(address, 128))
