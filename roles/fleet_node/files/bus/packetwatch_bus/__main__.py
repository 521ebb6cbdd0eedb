# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m packetwatch_bus``: takes commands."""

from __future__ import annotations

import collections
import os
import sys
import typing as t

from packetwatch_agent.loop import Loop
from packetwatch_agent.metrics import COUNTER, GAUGE, Rows, Values, by_label
from packetwatch_agent.output import Output, Trouble
from packetwatch_agent.part import Part, Parts
from packetwatch_agent.presence import Presence
from packetwatch_agent.service import Service
from packetwatch_core._base.errors import InvalidInput, Unreadable
from packetwatch_core._base.files import parse_json
from packetwatch_fleet.bus.interface import Bus, Command, takes_messages
from packetwatch_fleet.bus.plugins import open_bus
from packetwatch_fleet.driver import Driver
from packetwatch_fleet.host.status import resident
from packetwatch_fleet.process import serve

from .desk import VERBS, Desk, Result
from .rest import Rest
from .settings import BusSettings

_MAX_TEXT = 64


class Counter(Part):
    """Where commands come in and answers go out."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_fleet_bus_commands_total": (COUNTER, "Commands by the status of the answer."),
        "packetwatch_fleet_bus_connected": (GAUGE, "Whether the bus takes messages."),
        "packetwatch_fleet_bus_connects_total": (COUNTER, "Connections made to the bus."),
        "packetwatch_fleet_bus_resident_memory_bytes": (GAUGE, "Memory of the process."),
    }

    def __init__(self, bus: Bus, desk: Desk, output: Output) -> None:
        self._bus = bus
        self._desk = desk
        self._output = output
        self._trouble = Trouble(output)
        self._counts: collections.Counter[str] = collections.Counter()
        self._driver: Driver | None = None

    def start(self, loop: Loop) -> None:
        self._driver = Driver(loop, self._bus, self._step)

    def stop(self) -> None:
        if self._driver:
            self._driver.close()

    def values(self) -> Values:
        return {
            "packetwatch_fleet_bus_commands_total": by_label("status", self._counts),
            "packetwatch_fleet_bus_connected": [({}, int(takes_messages(self._bus)))],
            "packetwatch_fleet_bus_connects_total": [({}, self._bus.connects)],
            "packetwatch_fleet_bus_resident_memory_bytes": [({}, resident())],
        }

    def _step(self) -> None:
        self._bus.step()
        for command in self._bus.commands():
            result = self._desk.handle(command)
            self._counts[str(result["status"])] += 1
            self._log(command, result, self._bus.answer(command, result))
        problem = self._bus.problem
        self._trouble.log(f"no commands are taken: {problem}" * bool(problem))

    def _log(self, command: Command, result: Result, is_answered: bool) -> None:
        """A line for each command. The API logs what it was asked besides."""
        verb = command.verb if command.verb in VERBS else "?"
        refused = result.get("error", "")
        self._output.say(
            "warn" if refused else "info",
            f"refused: {refused}" if refused else f"done: {verb}",
            event__action="command",
            event__outcome="failure" if refused else "success",
            user__name=command.user[:_MAX_TEXT] or None,
            http__response__status_code=result["status"],
            packetwatch__command=verb,
            packetwatch__id=result["id"] or None,
            packetwatch__revision=result.get("revision"),
            packetwatch__answered=is_answered,
        )


def _tokens(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            found = parse_json(file.read())
    except (OSError, ValueError, InvalidInput) as error:
        raise Unreadable(f"PW_BUS_TOKENS is {path!r}: {error}: run the playbook again") from None
    return {str(name): str(token) for name, token in dict(found).items()}


def assemble(settings: BusSettings, output: Output) -> Service:
    """Make the process: its one part, and what it is given. Raises `PacketwatchError`."""
    bus = open_bus(settings.bus, os.environ)
    desk = Desk(Rest(settings.api_socket), _tokens(settings.tokens), settings.list)
    loop = Loop()
    parts = Parts(Counter(bus, desk, output))
    presence = Presence(loop, settings, output, parts)
    return Service(loop, parts, presence, output, "taking commands")


def main() -> int:
    """Serve until SIGTERM; return 0, or 2 if a setting is wrong."""
    return serve(BusSettings, "packetwatch_bus", assemble)


if __name__ == "__main__":
    sys.exit(main())
