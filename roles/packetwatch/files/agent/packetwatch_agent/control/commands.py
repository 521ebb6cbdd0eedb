# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent answers on its socket: all that it knows, and bans, which are all it may change."""

from __future__ import annotations

import functools
import os
import sys
import typing as t

from packetwatch_core._bans.bans import Ban, Bans
from packetwatch_core._base.address import format_prefix, from_mapped
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.steps import Steps
from packetwatch_core._kernel.counters import packets_by_reason, read_counters

from .. import __version__
from ..part import Part
from . import banning, wire
from .requests import Answer, Command, Items
from .rights import CHANGE, FLEET, READ
from .talkers import Talkers

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map

    from ..guard import Guard
    from ..keeper import Keeper
    from ..outlook import Outlook
    from ..process import Process

_T = t.TypeVar("_T")

FOLLOWING, WAITING = "following the program", "no filter is loaded"
FLEET_COMMANDS = ("fleet_watch", "fleet_apply", "fleet_bans")
"""Commands of the fleet process, which `fleet` answers; docs/fleet-protocol.md describes them."""


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


class Commands(Part):
    """The commands, on the maps that the agent has open."""

    def __init__(
        self,
        maps: t.Mapping[str, Map],
        process: Process,
        outlook: Outlook,
        keeper: Keeper,
        guard: Guard,
        talkers: Talkers,
        names: banning.Names,
    ) -> None:
        self._maps = maps
        self._bans = Bans(maps)
        self._process = process
        self._outlook = outlook
        self._keeper = keeper
        self._guard = guard
        self._talkers = talkers
        self._names = names
        self.on_ban: t.Callable[[str], None] = lambda dummy: None
        """Gets the address of each ban by hand."""
        self.on_unban: t.Callable[[str, list[Ban]], None] = lambda *dummy: None
        """Gets an address, and the bans of it that were lifted by hand."""

    def commands(self) -> t.Mapping[str, Command]:
        return {
            name: Command(right, functools.partial(run, self))
            for name, (right, run) in TABLE.items()
        }

    def _status(self, dummy: wire.Request) -> wire.Result:
        found = about(FOLLOWING, self._process.started, self._outlook.modes())
        return found | {
            "bans": self._keeper.active,
            "entries": self._outlook.entries(),
            "unsaved": self._keeper.unsaved,
            "damaged": self._keeper.evidence(),
            "protected": self._guard.counts(),
            "packets": packets(self._maps["counters4"]),
        }

    def _list_bans(self, dummy: wire.Request) -> Items:
        return _items(banning.listed(self._bans, self._names))

    def _list_protected(self, dummy: wire.Request) -> Items:
        return _items(banning.protected(self._maps))

    def _why(self, request: wire.Request) -> wire.Result:
        return banning.why(self._bans, wire.text_of(request, "address"), self._names)

    def _ban(self, request: wire.Request) -> wire.Result:
        address, seconds = wire.text_of(request, "address"), wire.seconds_of(request, "duration")
        done = banning.impose(self._bans, address, seconds)
        self.on_ban(address)
        self._keeper.read_soon()
        return done

    def _unban(self, request: wire.Request) -> wire.Result:
        address = wire.text_of(request, "address")
        lifted = self._bans.lift(address)
        self.on_unban(address, lifted)
        self._keeper.pardon(address)
        return banning.lifted(self._bans, address, lifted)

    def _top(self, request: wire.Request) -> Items:
        most = request.get("most", 10)
        if not isinstance(most, int) or not 1 <= most <= wire.MAX_ROWS:
            raise InvalidInput(f"most is {most!r}: send a whole number from 1 to {wire.MAX_ROWS}")
        return self._busiest(most)

    def _busiest(self, most: int) -> Items:
        drops = yield from _paused(banning.most_dropped(self._bans, most))
        yield wire.done(self._page(most) | {"drops": drops})

    def _page(self, most: int) -> wire.Result:
        return {
            "packets": packets(self._maps["counters4"]),
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
                    "kind": scan.kind,
                    "ports": scan.ports,
                    "result": scan.result,
                }
                for scan in self._talkers.scans(most)
            ],
        }


# The right that each command needs, and its function; docs/control.md describes them for readers.
TABLE: dict[str, tuple[int, t.Callable[[Commands, wire.Request], Answer]]] = {
    "status": (READ, Commands._status),
    "bans": (READ, Commands._list_bans),
    "protect": (READ, Commands._list_protected),
    "why": (READ, Commands._why),
    "top": (READ, Commands._top),
    "ban": (CHANGE, Commands._ban),
    "unban": (CHANGE, Commands._unban),
}


def without_filter(status: t.Callable[[], wire.Result], has_fleet: bool) -> dict[str, Command]:
    """The commands of an agent that waits for a filter: they need the same rights."""

    def refuse(dummy: wire.Request) -> wire.Result:
        raise wire.ControlError(
            "the agent sees no filter (systemctl status 'packetwatch-xdp@*'); if there is one, "
            "systemctl restart packetwatch"
        )

    table = {name: Command(right, refuse) for name, (right, dummy) in TABLE.items()}
    if has_fleet:
        table |= {name: Command(FLEET, refuse) for name in FLEET_COMMANDS}
    return table | {"status": Command(READ, lambda dummy: status())}


def _items(values: t.Iterable[dict[str, t.Any] | None]) -> Items:
    for value in values:
        yield "" if value is None else wire.item(value)
    yield wire.done({})


def _paused(work: Steps[_T]) -> t.Generator[str, None, _T]:
    """The result of work in steps, with a pause in the answer after each step."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
        yield ""


def _text(address: bytes) -> str:
    return format_prefix(from_mapped(address, 128))
