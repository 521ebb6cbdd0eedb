# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One call of ``packetwatchctl``: where things are, who asks, and what a command returns."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import typing as t

from packetwatch_core._base.address import format_prefix, parse_prefix
from packetwatch_core._base.clock import Clock, read_clock
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._base.paths import Paths
from packetwatch_core._declared.store import State, Store
from packetwatch_core._feeds.spare import read_note
from packetwatch_core._health.status import Status
from packetwatch_core._network.settings import read_values

from ...settings import DEFAULTS
from .. import audit, wire
from ..client import Connection
from ..rights import Peer

if t.TYPE_CHECKING:
    from packetwatch_core._feeds.spare import Note
    from packetwatch_core._host.host import Host

EDIT_SOCKET = "/run/packetwatch-edit.sock"
FLEET_SOCKET = "/run/packetwatch-fleet/control.sock"
# Another writer may be compiling, which takes a slow machine a minute.
_PATIENCE = 240.0

Parser = argparse.ArgumentParser
Options = argparse.Namespace


class Places(t.NamedTuple):
    """Where things are on this host."""

    paths: Paths
    control: str
    edit: str = EDIT_SOCKET
    fleet: str = FLEET_SOCKET

    @classmethod
    def of(cls, environment: t.Mapping[str, str]) -> Places:
        """From the environment, else from the agent's settings, else the defaults."""
        paths = Paths()
        values = DEFAULTS | read_values(paths.settings)[0] | dict(environment)
        paths = paths._replace(
            bpffs=values["PW_PINS"],
            state=values["PW_CONFIG_DIR"],
            spared=values["PW_SPARED_FILE"],
            status=values["PW_STATUS_FILE"],
        )
        fleet = values.get("PW_FLEET_CONTROL_SOCKET", FLEET_SOCKET)
        return cls(paths, values["PW_CONTROL_SOCKET"], fleet=fleet)


class Outcome(t.NamedTuple):
    """What a command returns: JSON for programs, lines for people, the exit status."""

    result: wire.Result
    lines: list[str]
    status: int = wire.DONE


class Session:
    """One call by one user. `log` gets the audit lines of what root does without the agent."""

    def __init__(self, places: Places, log: t.Callable[[str], None]) -> None:
        self.places = places
        self.is_root = os.geteuid() == 0
        self._log = log
        self._host: Host | None = None

    @property
    def host(self) -> Host:
        """The host library, for root."""
        if self._host is None:
            from packetwatch_core._host.host import Host

            from ...run import run

            self._host = Host(run, self.places.paths, patience=_PATIENCE)
        return self._host

    def agent(self) -> Connection:
        """A connection to the agent; raises `ControlError`."""
        return Connection(self.places.control, "is the agent up (systemctl status packetwatch)?")

    def ask(self, command: str, **arguments: t.Any) -> wire.Result:
        """The agent's answer to one request."""
        with self.agent() as agent:
            return agent.ask(command, **arguments)

    def fleet(self) -> Connection:
        """A connection to the fleet process; raises `ControlError`."""
        return Connection(
            self.places.fleet,
            "is this host in a fleet, and is the fleet process up (systemctl status packetwatch-fleet)?",
        )

    def state(self) -> State:
        """Confirmed state, which every user may read."""
        return Store(self.places.paths.state).read_current()[1]

    def note(self) -> Note:
        """Root's note about feeds, which every user may read."""
        return read_note(self.places.paths.spared)

    def chains(self) -> wire.Result:
        """The programs that a packet meets, by interface, as root has noted them for every user."""
        found = Status(self.places.paths.status).read().get("chains")
        return found if isinstance(found, dict) else {}

    def clock(self) -> Clock:
        """The time that has certainly passed on this host."""
        return read_clock(self.places.paths.clock)

    def as_root(self, request: wire.Request, act: t.Callable[[], wire.Result]) -> wire.Result:
        """Do something without the agent or the one-shot, and log the audit line instead of them."""
        error: Exception | None = None
        result: wire.Result = {}
        try:
            result = act()
            return result
        except (PacketwatchError, OSError) as problem:
            error = problem
            raise
        finally:
            if request.get("check") is not True:
                self._audit(request, result, error)

    def _audit(self, request: wire.Request, result: wire.Result, error: Exception | None) -> None:
        line = audit.line(
            socket.gethostname(),
            Peer(os.getpid(), os.getuid(), frozenset()),
            request["command"],
            audit.arguments_of(request),
            error=error,
            message=str(result.get("message", "")),
            reason=str(request.get("reason") or request.get("comment") or ""),
        )
        self._log(line)


class Command(t.NamedTuple):
    """A command: one line about it, its arguments, and its function.

    The function returns None if it has written everything itself.
    """

    summary: str
    add_arguments: t.Callable[[Parser], None]
    run: t.Callable[[Session, Options], Outcome | None]


def write(text: str) -> None:
    """Write to standard output at once. Characters that its encoding does not have are escaped."""
    encoding = sys.stdout.encoding
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def no_arguments(parser: Parser) -> None:
    """For a command that has only those of all commands."""


def canonical(address: str) -> str:
    """An address or prefix as the library writes it; raises `InvalidInput`."""
    return format_prefix(parse_prefix(address))
